"""Encoders and decoders that raise, stall, give NaN or crash; a full queue; clients that go away."""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest

from support import faulty_decoding, faulty_server
from support.server_process import ServerProcess, running_server
from support.tiny_bundle import NAN_PIXEL, make_tiny_bundle
from support.tiny_media import LABELS, fates, marked, tiny_clip

LABEL = 1
DECODE_TIMEOUT_S = 2.0
CONCURRENCY, MAX_STRAY_RUNS = 4, 4


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    make_tiny_bundle(folder)
    make_tiny_bundle(folder, name="raising", raises="audio")
    make_tiny_bundle(folder, name="stalling", stall="visual", deadline_ms=100)
    make_tiny_bundle(folder, name="both", raises="audio", stall="visual", deadline_ms=100)
    make_tiny_bundle(folder, name="nan", nan="visual")
    return folder


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[ServerProcess]:
    settings = {"decode_timeout_s": DECODE_TIMEOUT_S, "intra_op_threads": 1, "queue_wait_s": 30}
    # The stalled pictures keep all cores busy; the sound is given its time nevertheless.
    bounds = {"concurrency": CONCURRENCY, "max_stray_runs": MAX_STRAY_RUNS, "deadlines_ms": {"audio": 8000}}
    with running_server(repository, script=faulty_server.SCRIPT, **settings, **bounds) as it:
        yield it


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return tiny_clip(tmp_path_factory.mktemp("clip"), LABEL)


def predict(server: ServerProcess, files: bytes | dict[str, bytes], **fields: object) -> httpx.Response:
    parts = files if isinstance(files, dict) else {"media": files}
    data = {name: str(value) for name, value in fields.items()}
    return httpx.post(f"{server.url}/v1/predict", files=parts, data={"model": "tiny", **data}, timeout=60.0)


@pytest.mark.parametrize(
    ("model", "modalities", "error", "expected"),
    [
        ("raising", "audio", (503, "unavailable"), ["failed:encoder_error", "absent:not_requested"]),
        ("both", "audio,visual", (503, "unavailable"), ["failed:encoder_error", "timeout:deadline"]),
        ("stalling", "visual", (504, "deadline_exceeded"), ["absent:not_requested", "timeout:deadline"]),
    ],
    ids=["all_failed", "one_failed_one_late", "all_late"],
)
def test_no_encoder_answers(
    server: ServerProcess, clip: bytes, *, model: str, modalities: str, error: tuple[int, str], expected: list[str]
) -> None:
    response = predict(server, clip, model=model, modalities=modalities)
    assert (response.status_code, response.json()["error"]["code"]) == error, response.text
    assert fates(response.json()) == dict(zip(("audio", "visual"), expected, strict=True))


def test_one_that_raises_leaves_the_other(server: ServerProcess, clip: bytes) -> None:
    answer = predict(server, clip, model="raising").json()
    assert fates(answer) == {"audio": "failed:encoder_error", "visual": "ok"}
    assert (answer["label"], answer["degraded"]) == (LABELS[LABEL], True)


def test_nan_from_an_encoder_is_a_failure_of_that_modality_alone(server: ServerProcess, clip: bytes) -> None:
    _, png = cv2.imencode(".png", np.full((16, 16, 3), NAN_PIXEL, np.uint8))
    answer = predict(server, {"media": clip, "visual": png.tobytes()}, model="nan").json()
    assert fates(answer) == {"audio": "ok", "visual": "failed:non_finite"}
    assert (answer["label"], answer["degraded"]) == (LABELS[LABEL], True)
    alone = predict(server, {"visual": png.tobytes()}, model="nan", modalities="visual")
    assert alone.status_code == 503, alone.text


@pytest.mark.parametrize(
    ("marker", "reason"),
    [(faulty_decoding.PICTURE_CRASHES, "decoder_crashed"), (faulty_decoding.PICTURE_HANGS, "decode_timeout")],
)
def test_a_picture_that_kills_the_decoder_does_not_cost_the_sound(
    server: ServerProcess, clip: bytes, marker: bytes, reason: str
) -> None:
    lost = server.metric("dimml_decode_workers_lost_total")
    began = time.monotonic()
    response = predict(server, marked(clip, marker))
    assert response.status_code == 200, response.text
    assert fates(response.json()) == {"audio": "ok", "visual": f"unusable:{reason}"}
    assert (response.json()["label"], response.json()["degraded"]) == (LABELS[LABEL], True)
    assert time.monotonic() - began < DECODE_TIMEOUT_S + 3.0
    assert server.metric("dimml_decode_workers_lost_total") > lost
    assert predict(server, clip).json()["degraded"] is False


@pytest.fixture(scope="module")
def default(repository: Path) -> Iterator[ServerProcess]:
    """A server whose time limits are the defaults."""
    with running_server(repository, script=faulty_server.SCRIPT, models="tiny", decode_workers=2) as it:
        yield it


@pytest.mark.parametrize("fields", [{}, {"timeout_ms": 3000}], ids=["default_time", "short_time"])
def test_a_picture_that_hangs_leaves_the_encoders_their_time(
    default: ServerProcess, clip: bytes, fields: dict[str, object]
) -> None:
    response = predict(default, marked(clip, faulty_decoding.PICTURE_HANGS), **fields)
    assert response.status_code == 200, response.text
    assert fates(response.json()) == {"audio": "ok", "visual": "unusable:decode_timeout"}
    assert response.json()["degraded"] is True


def test_a_picture_alone_that_hangs_is_the_callers_fault_at_the_default_limits(
    default: ServerProcess, clip: bytes
) -> None:
    response = predict(default, marked(clip, faulty_decoding.PICTURE_HANGS), modalities="visual")
    assert response.status_code == 422, response.text
    assert fates(response.json())["visual"] == "unusable:decode_timeout"


def test_a_picture_alone_that_kills_the_decoder_is_the_callers_fault(server: ServerProcess, clip: bytes) -> None:
    response = predict(server, marked(clip, faulty_decoding.PICTURE_CRASHES), modalities="visual")
    assert response.status_code == 422, response.text
    assert fates(response.json())["visual"] == "unusable:decoder_crashed"


def test_a_request_that_ends_before_its_decoding_may_is_late_not_bad(server: ServerProcess, clip: bytes) -> None:
    response = predict(server, marked(clip, faulty_decoding.PICTURE_HANGS), modalities="visual", timeout_ms=500)
    assert response.status_code == 504, response.text
    assert fates(response.json())["visual"] == "unusable:decode_timeout"


@pytest.mark.timeout(180)
def test_a_stalling_encoder_loses_no_request_and_gathers_no_threads(server: ServerProcess, clip: bytes) -> None:
    requests = 200
    before, threads = server.threads(), []

    def one(_: int) -> tuple[int, str, str]:
        response = predict(server, clip, model="stalling")
        threads.append(server.threads())
        answer = response.json()
        return response.status_code, answer.get("label", response.text), fates(answer)["visual"]

    with ThreadPoolExecutor(8) as clients:
        outcomes = Counter(clients.map(one, range(requests)))
    assert sum(outcomes.values()) == requests
    assert {(status, label) for status, label, _ in outcomes} == {(200, LABELS[LABEL])}
    assert {fate for _, _, fate in outcomes} <= {"timeout:deadline", "failed:encoder_busy"}
    # The bound does not know how many requests there were: CONCURRENCY for each of three models, and the strays.
    assert max(threads) - before <= 3 * CONCURRENCY + MAX_STRAY_RUNS, threads
    server.wait_for_metric("dimml_stray_runs", 0, limit_s=0.5)
    assert server.metric("dimml_requests_in_flight") == 0


@pytest.fixture(scope="module")
def narrow(repository: Path) -> Iterator[ServerProcess]:
    """A server that works on one request and lets one more wait."""
    settings = {"concurrency": 1, "queue_length": 1, "decode_workers": 2, "models": "tiny", "upload_timeout_s": 3}
    with running_server(repository, script=faulty_server.SCRIPT, **settings) as it:
        yield it


def test_a_full_queue_refuses_at_once_and_answers_the_others(narrow: ServerProcess, clip: bytes) -> None:
    slow = marked(clip, faulty_decoding.SLOW)
    with ThreadPoolExecutor(2) as clients:
        first: Future[httpx.Response] = clients.submit(predict, narrow, slow)
        narrow.wait_for_load(1, 0)
        second = clients.submit(predict, narrow, slow)
        narrow.wait_for_load(1, 1)
        began = time.monotonic()
        refused = predict(narrow, clip)
        assert time.monotonic() - began < 0.5 * faulty_decoding.SLOW_S
        assert refused.status_code == 429, refused.text
        assert refused.json()["error"]["code"] == "queue_full"
        assert int(refused.headers["Retry-After"]) >= 1
        assert first.result().status_code == second.result().status_code == 200
    assert second.result().json()["timings_ms"]["queue"] > 100.0


def hang_up_on(server: ServerProcess, clip: bytes, *, whole: bool = True) -> socket.socket:
    """A connection that has sent a request, or half of one, and has not read the answer."""
    request = httpx.Request("POST", f"{server.url}/v1/predict", files={"media": clip})
    body = request.read()
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    host, port = server.http.split(":")
    connection = socket.create_connection((host, int(port)))
    sent = body if whole else body[: len(body) // 2]
    connection.sendall(f"POST /v1/predict HTTP/1.1\r\n{head}\r\n".encode() + sent)
    return connection


@pytest.mark.parametrize("padding", [8, 100_000, 700_000])
def test_a_client_that_hangs_up_frees_its_place(narrow: ServerProcess, clip: bytes, padding: int) -> None:
    # A box that says nothing: bodies that come in small pieces, in one large one, and in many.
    slow = marked(clip + padding.to_bytes(4) + b"free" + bytes(padding - 8), faulty_decoding.SLOW)
    cancelled = narrow.metric("dimml_requests_total", outcome="cancelled")
    running = hang_up_on(narrow, slow)
    narrow.wait_for_load(1, 0)
    waiting = hang_up_on(narrow, slow)
    narrow.wait_for_load(1, 1)
    waiting.close()
    narrow.wait_for_load(1, 0)
    running.close()
    narrow.wait_for_load(0, 0)
    hang_up_on(narrow, clip, whole=False).close()
    assert narrow.metric("dimml_requests_total", outcome="cancelled") >= cancelled + 2
    narrow.wait_for_metric("dimml_requests_total", cancelled + 3, outcome="cancelled")
    assert predict(narrow, clip).status_code == 200


def test_bodies_being_sent_are_bounded_and_must_arrive_in_time(narrow: ServerProcess, clip: bytes) -> None:
    began = time.monotonic()
    stalled = [hang_up_on(narrow, clip, whole=False) for _ in range(2)]
    infer = f"{narrow.url}/v2/models/tiny/infer"
    # No metric shows a body that is half there: try until the server has seen both.
    while (refused := predict(narrow, clip)).status_code == 200:
        assert time.monotonic() - began < 2.0
    assert refused.json()["error"]["code"] == "queue_full"
    # Not a body that could be parsed: it is refused before it is read.
    for response in (refused, httpx.post(infer, content=b"{")):
        assert response.status_code == 429, response.text
        assert int(response.headers["Retry-After"]) >= 1
    for connection in stalled:
        with connection, connection.makefile("rb") as answer:
            text = answer.read().decode()  # To the end: the server closes the connection.
            assert text.startswith("HTTP/1.1 408 ")
            assert '"code":"upload_timeout"' in text
    assert 2.5 < time.monotonic() - began < 6.0
    assert predict(narrow, clip).status_code == 200
    assert httpx.post(infer, content=b"{").status_code == 400
