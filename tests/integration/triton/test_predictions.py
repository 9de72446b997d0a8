"""tritonclient against a real Triton server, held to the embedded engine on the same repository."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from dimml.errors import UnusableMediaError
from dimml.media import DecodeRequest, decode
from dimml.prediction import Prediction
from dimml_server.local import LocalPredictor
from support.data import REPOSITORY_ROOT
from support.tiny_bundle import AUDIO, VISUAL, tiny_row
from support.triton_faults import Faults, tiny_inputs
from support.waiting import wait_until

pytestmark = pytest.mark.timeout(600)

SAMPLES = sorted(path for path in (REPOSITORY_ROOT / "samples").iterdir() if path.suffix != ".csv")
CLOSE = 1e-3


@pytest.fixture(scope="module")
def embedded() -> Iterator[LocalPredictor]:
    """The local engine on the demo bundle."""
    with LocalPredictor(REPOSITORY_ROOT / "model_repository") as predictor:
        yield predictor


@pytest.fixture(params=["http", "grpc"])
def face(request: pytest.FixtureRequest, faults: Faults) -> Iterator[tuple[Any, Any]]:
    """A client, and the module of its tensor classes."""
    if request.param == "http":
        module, client = tritonclient.http, tritonclient.http.InferenceServerClient(faults.server.http)
    else:
        module, client = tritonclient.grpc, tritonclient.grpc.InferenceServerClient(faults.server.grpc)
    yield client, module
    client.close()


def media_inputs(module: Any, *, start_s: float | None = None, **files: bytes) -> list[Any]:
    inputs = []
    for name, data in files.items():
        tensor = module.InferInput(name, [1], "BYTES")
        tensor.set_data_from_numpy(np.array([data], np.object_))
        inputs.append(tensor)
    if start_s is not None:
        tensor = module.InferInput("START_S", [1], "FP64")
        tensor.set_data_from_numpy(np.array([start_s]))
        inputs.append(tensor)
    return inputs


def check_same(answer: Any, wanted: Prediction, labels: tuple[str, ...]) -> None:
    probabilities_C = answer.as_numpy("PROBABILITIES")[0]
    assert labels[int(probabilities_C.argmax())] == wanted.label
    by_label = {entry.label: entry.probability for entry in wanted.predictions}
    given = {label: float(probabilities_C[labels.index(label)]) for label in by_label}
    assert given == pytest.approx(by_label, abs=CLOSE)
    statuses = [str(modality.modality_status).encode() for modality in wanted.modalities.values()]
    assert answer.as_numpy("STATUS")[0].tolist() == statuses
    weights = [modality.weight for modality in wanted.modalities.values()]
    assert answer.as_numpy("WEIGHTS")[0][: len(weights)] == pytest.approx(weights, abs=CLOSE)


@pytest.mark.parametrize("clip", SAMPLES, ids=lambda path: path.name)
def test_a_recording_gets_the_embedded_engine_s_answer(
    embedded: LocalPredictor, face: tuple[Any, Any], clip: Path
) -> None:
    client, module = face
    labels = embedded.bundles[0].labels
    inputs = media_inputs(module, MEDIA=clip.read_bytes())
    if clip.name != "broken.mp4":
        wanted = embedded.predict(clip, top_k=len(labels))
        check_same(client.infer("avdigits_media", inputs), wanted, labels)
        return
    with pytest.raises(UnusableMediaError) as error:
        embedded.predict(clip)
    with pytest.raises(InferenceServerException) as refused:
        client.infer("avdigits_media", inputs)
    assert error.value.message in str(refused.value)
    assert refused.value.status() in ("400", "StatusCode.INVALID_ARGUMENT")


def test_a_part_of_a_recording_and_a_file_for_each_modality(embedded: LocalPredictor, face: tuple[Any, Any]) -> None:
    client, module = face
    labels = embedded.bundles[0].labels
    long = (REPOSITORY_ROOT / "samples" / "long.mp4").read_bytes()
    wanted = embedded.predict(long, start_s=2.0, top_k=len(labels))
    check_same(client.infer("avdigits_media", media_inputs(module, MEDIA=long, start_s=2.0)), wanted, labels)
    spoken = (REPOSITORY_ROOT / "samples" / "spoken_nine.wav").read_bytes()
    written = (REPOSITORY_ROOT / "samples" / "written_nine.png").read_bytes()
    wanted = embedded.predict({"audio": spoken, "visual": written}, top_k=len(labels))
    answer = client.infer("avdigits_media", media_inputs(module, WAVEFORM_FILE=spoken, FRAMES_FILE=written))
    check_same(answer, wanted, labels)


@pytest.mark.parametrize("sent", [("audio", "visual"), ("audio",), ("visual",)], ids="+".join)
def test_tensors_get_the_embedded_engine_s_answer(
    embedded: LocalPredictor, face: tuple[Any, Any], sent: tuple[str, ...]
) -> None:
    client, module = face
    bundle = embedded.bundles[0]
    clip = REPOSITORY_ROOT / "samples" / "clean_three.mp4"
    # Without a modality, the embedded engine answers alike where the caller leaves it out.
    wanted = embedded.predict(clip, modalities=sent, top_k=bundle.classes)
    tracks = decode(DecodeRequest(bundle.modalities, dict.fromkeys(sent, clip), bundle.clip_s)).tracks
    inputs = []
    for modality in bundle.modalities:
        if modality.name in sent:
            row = tracks[modality.name].row
            assert row is not None
            tensor = module.InferInput(modality.tensor, [1, *row.shape], "FP32" if row.dtype == np.float32 else "UINT8")
            tensor.set_data_from_numpy(row[None])
            inputs.append(tensor)
    answer = client.infer("avdigits", inputs)
    probabilities_C = answer.as_numpy("PROBABILITIES")[0]
    assert bundle.labels[int(probabilities_C.argmax())] == wanted.label == "three"
    assert float(probabilities_C.max()) == pytest.approx(wanted.probability, abs=CLOSE)
    statuses = [b"ok" if modality.name in sent else b"absent:not_sent" for modality in bundle.modalities]
    assert answer.as_numpy("STATUS")[0].tolist() == statuses


def test_concurrent_clients_with_different_inputs_each_get_their_own_answer(faults: Faults) -> None:
    kinds = (("audio", "visual"), ("audio",), ("visual",))

    def ask(number: int) -> tuple[int, int, list[bytes], tuple[str, ...]]:
        client = tritonclient.grpc.InferenceServerClient(faults.server.grpc)
        sent, label = kinds[number % 3], number % faults.bundle.classes
        # Different time limits too: these cannot share a run.
        parameters = {"timeout_ms": 20_000 + number % 2}
        answer = client.infer("faulty", tiny_inputs(tritonclient.grpc, label, sent), parameters=parameters)
        client.close()
        return label, int(answer.as_numpy("PROBABILITIES")[0].argmax()), answer.as_numpy("STATUS")[0].tolist(), sent

    with ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(ask, range(120)))
    for label, got, statuses, sent in answers:
        assert got == label
        assert statuses == [b"ok" if name in sent else b"absent:not_sent" for name in ("audio", "visual")]


def test_in_a_batch_every_row_has_its_own_statuses(face: tuple[Any, Any]) -> None:
    client, module = face
    sound = np.stack([tiny_row(AUDIO, label) for label in (0, 1, 2)])
    picture = np.stack([tiny_row(VISUAL, label) for label in (0, 1, 2)])
    sound[1] = 0.0
    picture[2] = 0
    sound[0, 7] = np.nan
    inputs = [
        module.InferInput("WAVEFORM", [*sound.shape], "FP32"),
        module.InferInput("FRAMES", [*picture.shape], "UINT8"),
    ]
    inputs[0].set_data_from_numpy(sound)
    inputs[1].set_data_from_numpy(picture)
    answer = client.infer("faulty", inputs)
    assert answer.as_numpy("PROBABILITIES").argmax(axis=1).tolist() == [0, 1, 2]
    assert answer.as_numpy("STATUS").tolist() == [
        [b"failed:non_finite", b"ok"],
        [b"unusable:silent", b"ok"],
        [b"ok", b"unusable:black"],
    ]


def test_one_bad_request_of_a_batch_fails_no_other(faults: Faults) -> None:
    def ask(number: int) -> str:
        client = tritonclient.grpc.InferenceServerClient(faults.server.grpc)
        parameters = {"timeout_ms": -5} if number % 3 == 0 else None
        try:
            answer = client.infer("faulty", tiny_inputs(tritonclient.grpc, 1), parameters=parameters)
        except InferenceServerException as error:
            return str(error)
        finally:
            client.close()
        return str(answer.as_numpy("PROBABILITIES")[0].argmax())

    with ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(ask, range(48)))
    for number, answer in enumerate(answers):
        if number % 3 == 0:
            assert "INVALID_ARGUMENT" in answer
            assert "parameter 'timeout_ms' must be above 0, got -5" in answer
        else:
            assert answer == "1"


def test_requests_that_have_no_answer(face: tuple[Any, Any]) -> None:
    client, module = face
    refused = ("400", "StatusCode.INVALID_ARGUMENT")
    silence = module.InferInput("WAVEFORM", [1, AUDIO.samples], "FP32")
    silence.set_data_from_numpy(np.zeros((1, AUDIO.samples), np.float32))
    for inputs, parameters, message in (
        ([silence], None, "no requested modality is usable: audio unusable:silent, visual absent:not_sent"),
        (tiny_inputs(module, 0), {"timeout_ms": 3_600_000}, "timeout_ms must be above 0 and at most 60000"),
        (tiny_inputs(module, 0), {"timeout_ms": "soon"}, "parameter 'timeout_ms' must be a number"),
    ):
        with pytest.raises(InferenceServerException) as error:
            client.infer("faulty", inputs, parameters=parameters)
        assert message in str(error.value)
        assert error.value.status() in refused
    with pytest.raises(InferenceServerException) as error:
        client.infer("avdigits_media", media_inputs(module, start_s=1.0))
    assert "needs a recording: give one of ['MEDIA', 'WAVEFORM_FILE', 'FRAMES_FILE']" in str(error.value)
    with pytest.raises(InferenceServerException, match="start_s"):
        client.infer("avdigits_media", media_inputs(module, MEDIA=SAMPLES[0].read_bytes(), start_s=-1.0))


def test_decoders_that_die_are_replaced(faults: Faults) -> None:
    clip = (REPOSITORY_ROOT / "samples" / "clean_seven.mp4").read_bytes()
    stubs = faults.server.stubs("avdigits_media")
    workers = [
        int(stat.parent.name)
        for stat in Path("/proc").glob("[0-9]*/stat")
        if int(stat.read_text().rpartition(")")[2].split()[1]) in stubs
    ]
    assert len(workers) == 2 * len(stubs), "one decoder and a spare for each instance"
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    with faults.client() as client:
        answers = [client.infer("avdigits_media", media_inputs(tritonclient.grpc, MEDIA=clip)) for _ in range(6)]
    assert [int(answer.as_numpy("PROBABILITIES")[0].argmax()) for answer in answers] == [7] * 6
    wait_until(lambda: faults.server.metric("dimml_decode_workers_lost_total") >= len(workers), 30.0)
    assert faults.server.stubs("avdigits_media") == stubs, "Triton's own process was left alone"


def test_metrics_stand_on_triton_s_page(faults: Faults) -> None:
    def read() -> dict[str, float]:
        metric = faults.server.metric
        mine = {"model": "faulty"}
        status = mine | {"version": "1", "modality": "audio"}
        return {
            "degraded": metric("dimml_requests_total", **mine, outcome="degraded", transport="triton"),
            "refused": metric("dimml_requests_total", **mine, outcome="unusable_media"),
            "ok rows": metric("dimml_modality_status_total", **status, status="ok", reason=""),
            "silent rows": metric("dimml_modality_status_total", **status, status="unusable", reason="silent"),
            "answers": metric("dimml_predictions_total", **mine, version="1"),
            "degraded answers": metric("dimml_degraded_total", **mine, version="1"),
            "disagreements": metric("dimml_disagreement_ratio_count", **mine, version="1"),
            "certainties": metric("dimml_modality_certainty_ratio_count", **status),
            "certainties at most 1": metric("dimml_modality_certainty_ratio_bucket", **status, le="+Inf"),
            "fusions": metric("dimml_stage_seconds_count", **mine, stage="fuse"),
            "durations": metric("dimml_request_seconds_count", **mine),
        }

    time.sleep(2.0)  # What was observed before is handed over every second.
    before = read()
    with faults.client() as client:
        for label in (0, 1, 2):
            client.infer("faulty", tiny_inputs(tritonclient.grpc, label, ("audio",)))
        client.infer("faulty", tiny_inputs(tritonclient.grpc, 0, ("audio", "visual")))
        silence = tritonclient.grpc.InferInput("WAVEFORM", [1, AUDIO.samples], "FP32")
        silence.set_data_from_numpy(np.zeros((1, AUDIO.samples), np.float32))
        with pytest.raises(InferenceServerException):
            client.infer("faulty", [silence])
    wanted = {
        "degraded": 3.0,
        "refused": 1.0,
        "ok rows": 4.0,
        "silent rows": 1.0,
        "answers": 4.0,
        "degraded answers": 3.0,
        "disagreements": 1.0,
        "certainties": 4.0,
        "certainties at most 1": 4.0,
        "fusions": 4.0,
        "durations": 5.0,
    }

    def risen() -> dict[str, float]:
        return {name: value - before[name] for name, value in read().items()}

    wait_until(lambda: risen() == wanted, 20.0, risen, every_s=0.2)
    assert faults.server.metric("dimml_bundle_info", model="faulty", version="1") == 1.0
