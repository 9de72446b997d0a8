"""When the client tries again and when it does not, against small real servers that say what they are told to."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import grpc
import numpy as np
import pytest

from dimml.errors import (
    CapacityError,
    ConfigurationError,
    DeadlineExceededError,
    DimmlError,
    InvalidParameterError,
    NotFoundError,
    QueueFullError,
    RequestError,
    TooLargeError,
    UnavailableError,
    UnusableMediaError,
)
from dimml.status import ModalityStatus
from dimml_client import Client
from dimml_client.transport.http import retry_after_s
from support.scripted_servers import ANSWER, FullThenFine, free_port, grpc_server, http_server, refusal


@pytest.mark.parametrize("status", [429, 503])
def test_a_full_server_is_asked_again_with_the_whole_recording(status: int) -> None:
    code = {429: "queue_full", 503: "unavailable"}[status]
    media = np.random.default_rng(0).bytes(300_000)
    with http_server((status, {}, refusal(code)), (200, {}, ANSWER)) as script, Client(script.url) as client:
        answer = client.predict(media)
    assert (answer.label, answer.probability) == ("red", 0.75)
    assert len(script.bodies) == 2
    assert all(media in body for body in script.bodies)


def test_retry_after_is_honoured() -> None:
    full = (429, {"Retry-After": "1"}, refusal("queue_full"))
    with http_server(full, (200, {}, ANSWER)) as script, Client(script.url) as client:
        began = time.monotonic()
        client.predict(b"x")
        assert 1.0 <= time.monotonic() - began < 3.0


def test_the_number_of_repetitions_is_bounded_and_the_last_error_is_typed() -> None:
    down = (503, {}, refusal("unavailable", modalities={"audio": {"status": "failed", "reason": "encoder_error"}}))
    with http_server(down) as script, Client(script.url, retries=1) as client:
        with pytest.raises(UnavailableError, match="it is unavailable") as caught:
            client.predict(b"x")
        assert len(script.bodies) == 2
    assert caught.value.statuses == {"audio": ModalityStatus.parse("failed:encoder_error")}


def test_no_time_is_wasted_on_a_wait_that_does_not_fit() -> None:
    full = (429, {"Retry-After": "60"}, refusal("queue_full"))
    with http_server(full) as script, Client(script.url, timeout_s=5.0) as client:
        began = time.monotonic()
        with pytest.raises(QueueFullError) as caught:
            client.predict(b"x")
        assert time.monotonic() - began < 2.0
        assert len(script.bodies) == 1
    assert caught.value.retry_after_s == 60.0


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (422, refusal("invalid_parameter", field="top_k"), InvalidParameterError),
        (422, refusal("unusable_media", modalities={"audio": {"status": "unusable", "reason": "silent"}}),
         UnusableMediaError),
        (404, refusal("not_found"), NotFoundError),
        (413, refusal("too_large"), TooLargeError),
        (504, refusal("deadline_exceeded"), DeadlineExceededError),
        (500, refusal("internal"), CapacityError),
        (400, refusal("of_a_newer_server"), RequestError),
        (502, "<html>bad gateway</html>", CapacityError),
        (413, "<html>proxy says too large</html>", TooLargeError),
        (404, "[]", RequestError),
    ],
)  # fmt: skip
def test_nothing_else_is_repeated(status: int, body: Any, kind: type[DimmlError]) -> None:
    with http_server((status, {}, body)) as script, Client(script.url) as client:
        with pytest.raises(DimmlError) as caught:
            client.predict(b"x")
        assert len(script.bodies) == 1
    assert type(caught.value) is kind
    if kind is InvalidParameterError:
        assert caught.value.field == "top_k"
    if isinstance(caught.value, UnusableMediaError):
        assert caught.value.statuses == {"audio": ModalityStatus.parse("unusable:silent")}
    if isinstance(body, str):
        assert str(status) in caught.value.message


def test_another_server_altogether_is_recognised() -> None:
    with http_server((200, {}, "<html>hello</html>")) as script, Client(script.url) as client:  # noqa: SIM117
        with pytest.raises(UnavailableError, match="did not answer like a dimml server"):
            client.predict(b"x")


def test_a_server_that_never_answers_costs_the_timeout_and_no_more() -> None:
    with http_server((200, {}, ANSWER), hang_s=20.0) as script, Client(script.url, timeout_s=0.5) as client:
        began = time.monotonic()
        with pytest.raises(DeadlineExceededError, match=r"no answer .* within 0\.5 s"):
            client.predict(b"x")
        assert time.monotonic() - began < 3.0
        assert len(script.bodies) == 1


@pytest.mark.parametrize("byte_every_s", [0.05, 0.4, 20.0])
def test_a_server_that_trickles_its_answer_costs_the_timeout_and_no_more(byte_every_s: float) -> None:
    trickle = http_server((200, {}, ANSWER), byte_every_s=byte_every_s)
    with trickle as script, Client(script.url, timeout_s=1.0) as client:
        began = time.monotonic()
        with pytest.raises(DeadlineExceededError, match=r"no answer .* within 1 s"):
            client.predict(b"x")
        assert 0.9 < time.monotonic() - began < 2.0
        assert len(script.bodies) == 1


def test_a_server_that_takes_the_recording_slowly_costs_the_timeout_and_no_more() -> None:
    stopping = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def sip() -> None:
            connection, _ = listener.accept()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            with connection, suppress(OSError):
                while connection.recv(20_000) and not stopping.wait(0.05):
                    pass

        thread = threading.Thread(target=sip)
        thread.start()
        with Client(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout_s=1.0) as client:
            began = time.monotonic()
            with pytest.raises(DeadlineExceededError, match="within 1 s"):
                client.predict(bytes(50_000_000))
            assert time.monotonic() - began < 2.5
        stopping.set()
        thread.join()


def test_an_answer_that_a_proxy_has_compressed_is_read() -> None:
    packed = gzip.compress(json.dumps(ANSWER).encode())
    with http_server((200, {"Content-Encoding": "gzip"}, packed)) as script, Client(script.url) as client:
        assert client.predict(b"x").label == "red"


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_where_nobody_listens_the_message_says_so_at_once(scheme: str) -> None:
    with Client(f"{scheme}://127.0.0.1:{free_port()}") as client:
        began = time.monotonic()
        with pytest.raises(UnavailableError, match=r"cannot connect to .*dimml serve"):
            client.predict(b"x", model="tiny")
        assert time.monotonic() - began < 5.0
        assert not client.ready()


@pytest.mark.parametrize(
    ("header", "seconds"), [(None, None), ("", None), ("2", 2.0), ("-3", 0.0), ("soon", None), ("inf", None)]
)
def test_retry_after_as_seconds(header: str | None, seconds: float | None) -> None:
    assert retry_after_s(header) == seconds


def test_retry_after_as_a_date() -> None:
    later = retry_after_s(format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True))
    assert later == pytest.approx(29.5, abs=1.0)
    assert retry_after_s(format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True)) == 0.0


@pytest.mark.parametrize(
    ("url", "arguments"),
    [
        ("127.0.0.1:8000", {}),
        ("ftp://host", {}),
        ("grpc://host", {}),
        ("http://", {}),
        ("http://host:99999", {}),
        ("http://host", {"timeout_s": 0.0}),
        ("http://host", {"timeout_s": float("nan")}),
        ("http://host", {"retries": -1}),
    ],
)
def test_what_a_client_cannot_be_made_from(url: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Client(url, **arguments)


def test_a_recording_that_cannot_be_read_is_named_before_anything_is_sent(tmp_path: Any) -> None:
    with http_server((200, {}, ANSWER)) as script, Client(script.url) as client:
        with pytest.raises(InvalidParameterError, match=r"media: there is no such file: .*gone\.mp4") as caught:
            client.predict(tmp_path / "gone.mp4")
        assert caught.value.field == "media"
        with pytest.raises(InvalidParameterError, match="audio: is not a file"):
            client.predict(parts={"audio": tmp_path})
        with pytest.raises(InvalidParameterError, match="give a recording"):
            client.predict()
        assert not script.bodies


@pytest.mark.parametrize(
    "code", [grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED]
)
def test_grpc_is_asked_again_and_its_tensors_become_a_prediction(code: grpc.StatusCode) -> None:
    servicer = FullThenFine(1, code, (("retry-after", "0"),))
    with grpc_server(servicer) as url, Client(url) as client:
        answer = client.predict(b"x", model="tiny")
    assert servicer.calls == 2
    assert (answer.model, answer.version, answer.label) == ("tiny", 3, "b")
    assert [p.label for p in answer.predictions] == ["b", "a"]
    assert answer.degraded
    assert str(answer.modalities["audio"].modality_status) == "unusable:silent"
    assert (answer.modalities["audio"].certainty, answer.modalities["audio"].weight) == (None, 0.0)
    assert answer.modalities["visual"].certainty == pytest.approx(0.9)
    assert answer.fused_head is not None
    assert answer.fused_head.certainty is None
    assert answer.timings_ms is None


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, RequestError),
        (grpc.StatusCode.NOT_FOUND, NotFoundError),
        (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineExceededError),
        (grpc.StatusCode.INTERNAL, CapacityError),
    ],
)
def test_grpc_does_not_repeat_other_errors(code: grpc.StatusCode, kind: type[DimmlError]) -> None:
    servicer = FullThenFine(9, code)
    with grpc_server(servicer) as url, Client(url) as client, pytest.raises(DimmlError) as caught:
        client.predict(b"x", model="tiny")
    assert type(caught.value) is kind
    assert servicer.calls == 1


def test_grpc_repetitions_are_bounded() -> None:
    servicer = FullThenFine(9, grpc.StatusCode.RESOURCE_EXHAUSTED, (("retry-after", "0"),))
    with grpc_server(servicer) as url, Client(url, retries=2) as client:  # noqa: SIM117
        with pytest.raises(QueueFullError, match="refused for now"):
            client.predict(b"x", model="tiny")
    assert servicer.calls == 3
