"""The client against a real server, over both transports: the same answers, the same errors."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile

from dimml.errors import (
    DeadlineExceededError,
    DimmlError,
    InvalidParameterError,
    NotFoundError,
    QueueFullError,
    TooLargeError,
    UnavailableError,
    UnusableMediaError,
)
from dimml.prediction import Prediction, TruncationAnswer
from dimml_client import Client
from dimml_server.local import LocalPredictor
from support.server_process import ServerProcess, running_server
from support.tiny_bundle import make_tiny_bundle, tone_hz
from support.tiny_media import LABELS, tiny_clip, two_voices

MAX_BODY_BYTES = 150_000
TRANSPORTS = ("http", "grpc")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    repository = tmp_path_factory.mktemp("repository")
    make_tiny_bundle(repository)
    with running_server(repository, max_body_bytes=MAX_BODY_BYTES, explain="occlusion") as running:
        yield running


def url_of(server: ServerProcess, transport: str) -> str:
    return server.url if transport == "http" else f"grpc://{server.grpc}"


@pytest.fixture(scope="module", params=TRANSPORTS)
def client(request: pytest.FixtureRequest, server: ServerProcess) -> Iterator[Client]:
    with Client(url_of(server, request.param), timeout_s=30.0) as client:
        yield client


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("clips")
    contents: dict[str, bytes] = {
        "red": tiny_clip(folder, 0),
        "green": tiny_clip(folder, 1),
        "blue": tiny_clip(folder, 2, 2.0),
        "no_sound": tiny_clip(folder, 1, sound=None),
        "no_picture": tiny_clip(folder, 1, picture=None),
        "silent": tiny_clip(folder, 1, sound="silence"),
        "nothing": tiny_clip(folder, 1, picture="black", sound="silence"),
        "garbage": b"this is no recording" * 50,
        "voices": two_voices(folder),
    }
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    return {name: folder / name for name in contents}


def fates(prediction: Prediction) -> dict[str, str]:
    return {name: str(answer.modality_status) for name, answer in prediction.modalities.items()}


@pytest.mark.parametrize("label", LABELS)
def test_a_whole_recording_by_path_and_by_bytes(client: Client, clips: dict[str, Path], label: str) -> None:
    by_path, by_bytes = client.predict(clips[label]), client.predict(clips[label].read_bytes())
    assert (by_path.label, by_path.model, by_path.version) == (label, "tiny", 1)
    assert fates(by_path) == {"audio": "ok", "visual": "ok"}
    assert not by_path.degraded
    assert by_path.predictions == by_bytes.predictions
    assert sum(p.probability for p in by_path.predictions) == pytest.approx(1.0, abs=1e-5)
    assert by_path.fused_head is not None
    weights = [answer.weight for answer in by_path.modalities.values()]
    assert sum(weights) + by_path.fused_head.weight == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(
    ("clip", "expected"),
    [
        ("no_sound", {"audio": "absent:no_track", "visual": "ok"}),
        ("no_picture", {"audio": "ok", "visual": "absent:no_track"}),
        ("silent", {"audio": "unusable:silent", "visual": "ok"}),
    ],
)
def test_a_degraded_answer(client: Client, clips: dict[str, Path], clip: str, expected: dict[str, str]) -> None:
    answer = client.predict(clips[clip])
    assert answer.label == "green"
    assert fates(answer) == expected
    assert answer.degraded
    assert [answer.modalities[n].weight for n in expected if expected[n] == "ok"] == [pytest.approx(1.0)]
    assert answer.fused_head is not None
    assert (answer.fused_head.certainty, answer.fused_head.weight) == (None, 0.0)


def test_one_of_several_tracks(client: Client, clips: dict[str, Path]) -> None:
    wanted = {0: "red", 1: "green", "eng": "red", "fra": "green"}
    assert {track: client.predict(clips["voices"], audio_track=track).label for track in wanted} == wanted
    assert client.predict(clips["voices"], audio_track="loudest").label in LABELS[:2]
    # Of a track that is not there the others are used.
    answer = client.predict(clips["blue"], video_track=3)
    assert answer.label == "blue"
    assert fates(answer) == {"audio": "ok", "visual": "absent:no_track"}


def test_what_was_heard_of_two_channels_is_in_the_answer(client: Client, clips: dict[str, Path]) -> None:
    """Where one is inverted, the mix cancels: the better one is heard, and the answer says which."""
    left = 0.4 * np.sin(2 * np.pi * tone_hz(1) * np.arange(16_000) / 16_000)
    for right, channel in ((left, "mix"), (-0.9 * left, "left"), (-1.1 * left, "right")):
        file = io.BytesIO()
        soundfile.write(file, np.stack([left, right], axis=1), 16_000, format="WAV")
        answer = client.predict(file.getvalue())
        assert fates(answer) == {"audio": "ok", "visual": "absent:no_track"}
        assert (answer.label, answer.modalities["audio"].channel) == ("green", channel)
    assert client.predict(clips["green"]).modalities["audio"].channel is None


def test_both_transports_give_the_same_numbers(server: ServerProcess, clips: dict[str, Path]) -> None:
    found = []
    for transport in TRANSPORTS:
        with Client(url_of(server, transport)) as client:
            found.append(client.predict(clips["blue"], start_s=0.2, end_s=1.5))
    http, grpc = found
    assert [p.label for p in http.predictions] == [p.label for p in grpc.predictions]
    for ours, theirs in zip(http.predictions, grpc.predictions, strict=True):
        assert ours.probability == pytest.approx(theirs.probability, abs=1e-6)
    for name in http.modalities:
        assert http.modalities[name].certainty == pytest.approx(grpc.modalities[name].certainty, abs=1e-6)
        assert http.modalities[name].weight == pytest.approx(grpc.modalities[name].weight, abs=1e-6)
    assert http.timings_ms is not None
    assert (http.start_s, grpc.timings_ms, grpc.start_s) == (pytest.approx(0.6, abs=0.06), None, None)


def rounded(value: Any) -> Any:
    """With floats to four places: processes may share the work among other numbers of threads."""
    if isinstance(value, dict):
        return {name: rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value


def test_an_explanation_is_the_same_over_both_transports_and_in_this_process(
    server: ServerProcess, clips: dict[str, Path], tmp_path: Path
) -> None:
    asked: dict[str, Any] = {"start_s": 0.2, "end_s": 1.5, "explain": "occlusion", "damage": "visual:cover:0.4"}
    answers = []
    for transport in TRANSPORTS:
        with Client(url_of(server, transport)) as client:
            answers.append(client.predict(clips["blue"], **asked))
            assert client.predict(clips["blue"]).explanation is None
    make_tiny_bundle(tmp_path)
    with LocalPredictor(tmp_path, decode_workers=1) as predictor:
        answers.append(predictor.predict(clips["blue"], **asked))
    found = []
    for answer in answers:
        assert answer.damage == {"visual": "cover:0.4"}
        assert answer.explanation is not None
        assert answer.explanation.log_probability == pytest.approx(np.log(answer.probability), abs=1e-6)
        found.append(rounded(answer.explanation.model_dump(exclude={"explain_ms"})))
    assert found[0] == found[1] == found[2]
    assert list(found[0]["modalities"]) == ["audio", "visual"]
    assert len(found[0]["occlusion"]["stretches"]) == 5
    assert found[0]["stopped"] is None


def test_a_file_per_modality(client: Client, clips: dict[str, Path]) -> None:
    # Sound and picture disagree, so that each vote shows where it was read.
    own = client.predict(parts={"audio": clips["red"], "visual": clips["blue"]})
    rest = client.predict(clips["blue"], parts={"audio": clips["red"]})
    assert own.predictions == rest.predictions
    assert own.predictions != client.predict(clips["blue"]).predictions
    alone = client.predict(parts={"audio": clips["red"]})
    assert alone.label == "red"
    assert fates(alone) == {"audio": "ok", "visual": "absent:not_sent"}
    assert alone.degraded


def test_chosen_modalities_do_not_degrade(client: Client, clips: dict[str, Path]) -> None:
    answer = client.predict(clips["blue"], parts={"audio": clips["red"]}, modalities=["visual"])
    assert answer.label == "blue"
    assert fates(answer) == {"audio": "absent:not_requested", "visual": "ok"}
    assert not answer.degraded
    assert answer.modalities["visual"].weight == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"modalities": ["smell"]}, "modalities"),
        ({"modalities": ["media"]}, "modalities"),
        ({"modalities": []}, "modalities"),
        ({"parts": {"smell": b"x"}}, "smell"),
        ({"top_k": 4}, "top_k"),
    ],
)
def test_both_transports_name_the_same_field(
    client: Client, clips: dict[str, Path], arguments: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidParameterError) as caught:
        client.predict(clips["red"], **arguments)
    assert caught.value.field == field


def test_a_modality_that_is_asked_for_but_not_sent_is_unusable_media(client: Client, clips: dict[str, Path]) -> None:
    with pytest.raises(UnusableMediaError, match="no requested modality is usable") as caught:
        client.predict(parts={"audio": clips["red"]}, modalities=["visual"])
    assert {name: str(status) for name, status in caught.value.statuses.items()} == {
        "audio": "absent:not_requested",
        "visual": "absent:not_sent",
    }


def test_a_bad_top_k_is_refused_before_a_recording_is_sent(server: ServerProcess, clips: dict[str, Path]) -> None:
    asked = 'dimml_requests_total{model="tiny",outcome="ok",transport="grpc"'

    def answered() -> str:
        lines = httpx.get(f"{server.url}/metrics").text.splitlines()
        return next((line for line in lines if line.startswith(asked)), "")

    with Client(url_of(server, "grpc")) as client:
        client.predict(clips["red"])
        before = answered()
        assert before
        with pytest.raises(InvalidParameterError, match="top_k must be from 1 to 3"):
            client.predict(clips["red"], top_k=4)
        assert answered() == before


def test_top_k_and_model(client: Client, clips: dict[str, Path]) -> None:
    assert [p.label for p in client.predict(clips["red"], model="tiny", version=1, top_k=1).predictions] == ["red"]


def test_a_client_is_shared_by_threads(client: Client, clips: dict[str, Path]) -> None:
    wanted = [*LABELS] * 4
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda label: client.predict(clips[label]), wanted))
    assert [answer.label for answer in answers] == wanted
    assert len({answer.request_id for answer in answers}) == len(wanted)


@pytest.mark.parametrize(
    ("clip", "arguments", "kind", "named"),
    [
        ("red", {"model": "nosuch"}, NotFoundError, "nosuch"),
        ("red", {"version": 9}, NotFoundError, "9"),
        ("red", {"top_k": 4}, InvalidParameterError, "top_k"),
        ("red", {"top_k": 0}, InvalidParameterError, "top_k"),
        ("red", {"start_s": 0.5, "end_s": 0.2}, InvalidParameterError, "end_s"),
        ("red", {"end_s": 99.0}, InvalidParameterError, "end_s"),
        ("red", {"timeout_ms": -1.0}, InvalidParameterError, "timeout_ms"),
        ("red", {"audio_track": "first"}, InvalidParameterError, "audio_track"),
        ("red", {"video_track": "loudest"}, InvalidParameterError, "video_track"),
        ("voices", {"audio_track": "deu"}, UnusableMediaError, "there is 0 (eng), 1 (fra)"),
        ("red", {"explain": "shap"}, InvalidParameterError, "explain must be shapley or occlusion"),
        ("red", {"damage": "audio:cover:1"}, InvalidParameterError, "damage: 'audio' takes noise"),
        ("red", {"modalities": ["smell"]}, InvalidParameterError, "smell"),
        ("red", {"modalities": []}, InvalidParameterError, "modalities"),
        ("red", {"parts": {"smell": b"x"}}, InvalidParameterError, "smell"),
        ("red", {"parts": {"audio": b"x" * MAX_BODY_BYTES}}, TooLargeError, str(MAX_BODY_BYTES)),
        ("garbage", {}, UnusableMediaError, "undecodable"),
        ("nothing", {}, UnusableMediaError, "black"),
    ],
)
def test_the_servers_errors_come_back_typed(
    client: Client,
    clips: dict[str, Path],
    *,
    clip: str,
    arguments: dict[str, Any],
    kind: type[DimmlError],
    named: str,
) -> None:
    with pytest.raises(DimmlError) as caught:
        client.predict(clips[clip], **arguments)
    assert type(caught.value) is kind
    assert named in caught.value.message
    if isinstance(caught.value, UnusableMediaError):
        expected = {
            "garbage": {"audio": "unusable:undecodable", "visual": "unusable:undecodable"},
            "nothing": {"audio": "unusable:silent", "visual": "unusable:black"},
            "voices": {"audio": "absent:no_track", "visual": "absent:no_track"},
        }
        assert {name: str(status) for name, status in caught.value.statuses.items()} == expected[clip]


@pytest.mark.parametrize("size", [3 * MAX_BODY_BYTES, 40_000_000])
def test_what_the_transport_itself_refuses_is_too_large_and_not_repeated(client: Client, size: int) -> None:
    began = time.monotonic()
    with pytest.raises(TooLargeError):
        client.predict(bytes(size))
    # The server lingers for 5 s over a body that goes on and on; once.
    assert time.monotonic() - began < 10.0


def test_ready(client: Client) -> None:
    assert client.ready()


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_late_encoder_and_a_full_queue(tmp_path: Path, clips: dict[str, Path], transport: str) -> None:
    repository = tmp_path / "repository"
    make_tiny_bundle(repository, stall="audio")
    settings: dict[str, Any] = {"concurrency": 1, "queue_length": 0, "deadlines_ms": {"audio": 1500.0}}
    with (
        running_server(repository, **settings) as server,
        Client(url_of(server, transport), retries=0) as hasty,
        Client(url_of(server, transport), retries=9) as patient,
        ThreadPoolExecutor(1) as pool,
    ):
        first = pool.submit(hasty.predict, clips["red"])
        server.wait_for_metric("dimml_requests_in_flight", 1)
        with pytest.raises(QueueFullError):
            hasty.predict(clips["red"])
        second = patient.predict(clips["red"])
        for answer in (first.result(), second):
            assert answer.label == "red"
            assert fates(answer) == {"audio": "timeout:deadline", "visual": "ok"}
        with pytest.raises(DeadlineExceededError, match="late") as caught:
            hasty.predict(clips["red"], modalities=["audio"])
        assert str(caught.value.statuses["audio"]) == "timeout:deadline"


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_an_encoder_that_raises(tmp_path: Path, clips: dict[str, Path], transport: str) -> None:
    repository = tmp_path / "repository"
    make_tiny_bundle(repository, raises="audio")
    with running_server(repository) as server, Client(url_of(server, transport), retries=1) as client:
        answer = client.predict(clips["red"])
        assert (answer.label, fates(answer)["audio"]) == ("red", "failed:encoder_error")
        with pytest.raises(UnavailableError, match="no encoder answered") as caught:
            client.predict(parts={"audio": clips["red"]})
        assert str(caught.value.statuses["audio"]) == "failed:encoder_error"


def test_an_answer_to_a_cut_off_recording_says_how_much_is_there(client: Client) -> None:
    wave = io.BytesIO()
    soundfile.write(wave, 0.4 * np.sin(2 * np.pi * tone_hz(1) * np.arange(8000) / 8000), 8000, format="WAV")
    whole = client.predict(wave.getvalue())
    assert (whole.truncated, whole.truncations) == (False, {})
    answer = client.predict(wave.getvalue()[: 44 + 8000])
    assert answer.truncated
    assert answer.truncations == {"audio": TruncationAnswer(held_s=0.5, promised_s=1.0)}
