"""Whole recordings over KServe v2 (``<bundle>_media``): answers, the status table of docs/adr/0011, metrics."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import numpy.typing as npt
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from support.kserve_clients import FACES, TRANSPORTS, Face, as_dict, face
from support.media_maker import damage_packets, tone, write_clip
from support.server_process import ServerProcess
from support.tiny_bundle import VISUAL, colour, tone_hz
from support.tiny_media import two_voices

# tritonclient.http.aio does not release the answers of its health calls; aiohttp says so when they are collected.
pytestmark = pytest.mark.filterwarnings("ignore:Unclosed connection Connection<:ResourceWarning")

LABEL = 2


def coloured(label: int) -> Any:
    """Pictures of a class's colour, with a mark that moves."""

    def picture(number: int) -> npt.NDArray[np.uint8]:
        rgb = np.empty((64, 96, 3), np.uint8)
        rgb[:] = colour(label, 3)
        rgb[:8, 8 * (number % 12) : 8 * (number % 12) + 8] = 255
        return rgb

    return picture


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("clips")
    picture, sound = coloured(LABEL), tone(tone_hz(LABEL))
    whole = write_clip(folder / "whole.mp4", 2.0, picture=picture, sound=sound)
    return {
        "whole": whole.read_bytes(),
        "no_sound": write_clip(folder / "no_sound.mp4", picture=picture, sound=None).read_bytes(),
        "no_picture": write_clip(folder / "no_picture.m4a", picture=None, sound=sound).read_bytes(),
        "silent": write_clip(folder / "silent.mp4", picture=picture, sound="silence").read_bytes(),
        "nothing": write_clip(folder / "nothing.mp4", picture="black", sound="silence").read_bytes(),
        "broken_picture": damage_packets(whole, "video"),
        "garbage": b"this is no recording" * 50,
        "empty": b"",
    }


@pytest.fixture(params=TRANSPORTS)
def triton(request: pytest.FixtureRequest, server: ServerProcess) -> Iterator[Face]:
    with face(request.param, server.http, server.grpc) as client:
        yield client


def blob(data: bytes) -> npt.NDArray[np.object_]:
    return np.array([data], np.object_)


def inputs(triton: Face, **tensors: bytes | float) -> list[Any]:
    return [
        triton.tensor(name, blob(value) if isinstance(value, bytes) else np.array([value], np.float64))
        for name, value in tensors.items()
    ]


def statuses(result: Any) -> list[str]:
    return [text.decode() for text in result.as_numpy("STATUS")[0]]


@pytest.mark.parametrize("triton", FACES, indirect=True)
def test_a_recording_gives_one_row(triton: Face, clips: dict[str, bytes]) -> None:
    result = triton.infer("tiny_media", inputs(triton, MEDIA=clips["whole"]), request_id="r-1")
    assert statuses(result) == ["ok", "ok"]
    assert result.as_numpy("PROBABILITIES").shape == (1, 3)
    assert result.as_numpy("PROBABILITIES").argmax() == LABEL
    assert result.as_numpy("CERTAINTY").shape == result.as_numpy("WEIGHTS").shape == (1, 3)
    assert as_dict(result.get_response())["id"] == "r-1"


@pytest.mark.parametrize(
    ("clip", "expected"),
    [
        ("no_sound", ["absent:no_track", "ok"]),
        ("no_picture", ["ok", "absent:no_track"]),
        ("silent", ["unusable:silent", "ok"]),
        ("broken_picture", ["ok", "unusable:undecodable"]),
    ],
)
def test_one_modality_is_enough(triton: Face, clips: dict[str, bytes], clip: str, expected: list[str]) -> None:
    result = triton.infer("tiny_media", inputs(triton, MEDIA=clips[clip]))
    assert statuses(result) == expected
    assert result.as_numpy("PROBABILITIES").argmax() == LABEL


def test_a_file_per_modality(triton: Face, clips: dict[str, bytes]) -> None:
    result = triton.infer("tiny_media", inputs(triton, WAVEFORM_FILE=clips["no_picture"], FRAMES_FILE=clips["whole"]))
    assert statuses(result) == ["ok", "ok"]
    alone = triton.infer("tiny_media", inputs(triton, WAVEFORM_FILE=clips["no_picture"]))
    assert statuses(alone) == ["ok", "absent:not_sent"]
    mixed = triton.infer("tiny_media", inputs(triton, MEDIA=clips["whole"], WAVEFORM_FILE=clips["garbage"]))
    assert statuses(mixed) == ["unusable:undecodable", "ok"]


def test_a_stretch_of_a_recording(triton: Face, clips: dict[str, bytes]) -> None:
    result = triton.infer("tiny_media", inputs(triton, MEDIA=clips["whole"], START_S=0.5, END_S=1.5))
    assert statuses(result) == ["ok", "ok"]


def test_one_of_several_tracks(triton: Face, tmp_path: Path) -> None:
    """By a parameter of the request: a number, or text."""
    voices = two_voices(tmp_path)
    for track, label in ((0, 0), (1, 1), ("1", 1), ("fra", 1)):
        result = triton.infer("tiny_media", inputs(triton, MEDIA=voices), parameters={"audio_track": track})
        assert statuses(result) == ["ok", "absent:no_track"]
        assert result.as_numpy("PROBABILITIES").argmax() == label
    for name, value, message in (
        ("audio_track", "deu", "there is 0 (eng), 1 (fra)"),
        ("audio_track", "first", "audio_track must be a number from 0"),
        ("video_track", True, "video_track must be a number from 0"),
    ):
        with pytest.raises(InferenceServerException) as raised:
            triton.infer("tiny_media", inputs(triton, MEDIA=voices), parameters={name: value})
        assert message in raised.value.message()


def test_why_is_a_parameter_of_recordings_alone(triton: Face, clips: dict[str, bytes]) -> None:
    asked: dict[str, Any] = {"explain": "shapley", "damage": "audio:noise:20"}
    result = triton.infer("tiny_media", inputs(triton, MEDIA=clips["no_picture"]), parameters=asked)
    parameters = as_dict(result.get_response())["parameters"]
    given = {name: value["string_param"] if isinstance(value, dict) else value for name, value in parameters.items()}
    assert given["damage_audio"] == "noise:20"
    explanation = json.loads(given["explanation"])
    assert list(explanation["modalities"]) == ["audio"]
    assert explanation["modalities"]["audio"]["shapley"] == pytest.approx(
        np.log(result.as_numpy("PROBABILITIES").max()) + np.log(3), abs=1e-5
    )
    row = triton.tensor("WAVEFORM", np.full((1, 4000), 0.1, np.float32))
    for name, value in asked.items():
        with pytest.raises(InferenceServerException, match="send them to 'tiny_media'"):
            triton.infer("tiny", [row], parameters={name: value})
    with pytest.raises(InferenceServerException, match="this server gives no occlusion"):
        triton.infer("tiny_media", inputs(triton, MEDIA=clips["whole"]), parameters={"explain": "occlusion"})


def test_classification_of_a_recording_has_no_batch(triton: Face, clips: dict[str, bytes]) -> None:
    output = triton.output("PROBABILITIES", class_count=1)
    top = triton.infer("tiny_media", inputs(triton, MEDIA=clips["whole"]), outputs=[output]).as_numpy("PROBABILITIES")
    assert top.shape == (1,)
    assert top[0].decode().endswith(":2:blue")


def test_http_and_grpc_give_the_same_numbers(server: ServerProcess, clips: dict[str, bytes]) -> None:
    answers = []
    for name in FACES:
        with face(name, server.http, server.grpc) as triton:
            result = triton.infer("tiny_media", inputs(triton, MEDIA=clips["whole"]))
            answers.append(result.as_numpy("LOGITS"))
    for other in answers[1:]:
        np.testing.assert_array_equal(other, answers[0])
    form = {"model": "tiny"}
    answer = httpx.post(f"http://{server.http}/v1/predict", data=form, files={"media": clips["whole"]}, timeout=30)
    assert answer.json()["label"] == "blue"
    assert answer.json()["probability"] == pytest.approx(_softmax(answers[0])[0, 2], abs=1e-5)


def _softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    exp = np.exp(logits - logits.max())
    return exp / exp.sum()


@pytest.mark.parametrize(
    ("tensors", "status", "message"),
    [
        ({"MEDIA": "garbage"}, 422, "no requested modality is usable: audio unusable:undecodable"),
        ({"MEDIA": "empty"}, 422, "no requested modality is usable: audio unusable:empty"),
        ({"MEDIA": "nothing"}, 422, "audio unusable:silent, visual unusable:black"),
        ({"WAVEFORM_FILE": "no_sound"}, 422, "audio absent:no_track, visual absent:not_sent"),
        ({"MEDIA": "whole", "START_S": 1.0, "END_S": 1.0}, 422, "end_s"),
        ({"MEDIA": "whole", "START_S": -1.0}, 422, "start_s"),
        ({"MEDIA": "whole", "START_S": float("nan")}, 422, "start_s"),
        ({"MEDIA": "whole", "END_S": 3.0}, 422, "end_s"),
        ({"MEDIA": "whole", "START_S": 4.0}, 422, "start_s"),
        ({"MEDIA": "whole", "START_S": 0.0, "END_S": 99.0}, 413, "lasts 99.0 s"),
    ],
)
def test_recordings_that_have_no_answer(
    triton: Face, clips: dict[str, bytes], tensors: dict[str, Any], status: int, message: str
) -> None:
    given = {name: clips[value] if isinstance(value, str) else value for name, value in tensors.items()}
    with pytest.raises(InferenceServerException) as raised:
        triton.infer("tiny_media", inputs(triton, **given))
    assert raised.value.status() == (str(status) if triton.http else "StatusCode.INVALID_ARGUMENT")
    assert message in raised.value.message()


def test_too_long_a_recording(triton: Face, max_body_bytes: int, tmp_path: Path) -> None:
    long = write_clip(tmp_path / "long.m4a", 8.0, picture=None).read_bytes()
    assert len(long) < max_body_bytes
    with pytest.raises(InferenceServerException) as raised:
        triton.infer("tiny_media", inputs(triton, MEDIA=long))
    assert raised.value.status() == ("413" if triton.http else "StatusCode.INVALID_ARGUMENT")


def samples(server: ServerProcess) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    text = httpx.get(f"http://{server.http}/metrics").text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_predictions_count_in_the_metrics(triton: Face, server: ServerProcess, clips: dict[str, bytes]) -> None:
    before = samples(server)
    for clip in ("whole", "no_sound"):
        triton.infer("tiny_media", inputs(triton, MEDIA=clips[clip]))
    frames = np.zeros((1, *VISUAL.shape), np.uint8)
    frames[:, ::2] = 200
    triton.infer("tiny", [triton.tensor("FRAMES", frames)])
    with pytest.raises(InferenceServerException):
        triton.infer("tiny_media", inputs(triton, MEDIA=clips["garbage"]))
    after = samples(server)

    def risen(name: str, **labels: str) -> float:
        key = (name, frozenset(labels.items()))
        return after.get(key, 0) - before.get(key, 0)

    transport = "kserve_http" if triton.http else "grpc"
    common = {"model": "tiny", "version": "1"}
    assert risen("dimml_requests_total", **common, transport=transport, outcome="ok") == 1
    assert risen("dimml_requests_total", **common, transport=transport, outcome="degraded") == 2
    assert risen("dimml_requests_total", **common, transport=transport, outcome="unusable_media") == 1
    assert risen("dimml_modality_status_total", **common, modality="visual", status="ok", reason="") == 3
    assert risen("dimml_modality_status_total", **common, modality="audio", status="ok", reason="") == 1
    assert risen("dimml_modality_status_total", **common, modality="audio", status="absent", reason="no_track") == 1
    assert risen("dimml_modality_status_total", **common, modality="audio", status="absent", reason="not_sent") == 1
    assert risen("dimml_modality_certainty_ratio_count", **common, modality="visual") == 3
    assert risen("dimml_modality_weight_ratio_count", **common, modality="audio") == 1


def _base64_input(recording: bytes, content_type: str | None = "base64", *, wrapped: bool = False) -> dict[str, Any]:
    text = (base64.encodebytes(recording) if wrapped else base64.b64encode(recording)).decode()
    parameters = {} if content_type is None else {"content_type": content_type}
    return {"name": "MEDIA", "datatype": "BYTES", "shape": [1], "parameters": parameters, "data": [text]}


@pytest.mark.parametrize("wrapped", [False, True], ids=["one_line", "mime"])
def test_a_recording_in_json_may_be_base64(http: httpx.Client, clips: dict[str, bytes], wrapped: bool) -> None:
    """MLServer's convention: https://mlserver.readthedocs.io/en/latest/user-guide/content-type.html."""
    answer = http.post("/v2/models/tiny_media/infer", json={"inputs": [_base64_input(clips["whole"], wrapped=wrapped)]})
    assert answer.status_code == 200, answer.text
    outputs = {output["name"]: output["data"] for output in answer.json()["outputs"]}
    assert int(np.argmax(outputs["PROBABILITIES"])) == LABEL
    assert outputs["STATUS"] == ["ok", "ok"]


def test_base64_over_grpc(server: ServerProcess, clips: dict[str, bytes]) -> None:
    request = service_pb2.ModelInferRequest(model_name="tiny_media")
    entry = request.inputs.add(name="MEDIA", datatype="BYTES", shape=[1])
    entry.parameters["content_type"].string_param = "base64"
    entry.contents.bytes_contents.append(base64.b64encode(clips["whole"]))
    with grpc.insecure_channel(server.grpc) as channel:
        answer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=20)
    names = [output.name for output in answer.outputs]
    probabilities = np.frombuffer(answer.raw_output_contents[names.index("PROBABILITIES")], np.float32)
    assert int(probabilities.argmax()) == LABEL


def test_base64_that_does_not_say_so_is_pointed_out(http: httpx.Client, clips: dict[str, bytes]) -> None:
    for content_type in (None, "str"):
        answer = http.post(
            "/v2/models/tiny_media/infer", json={"inputs": [_base64_input(clips["whole"], content_type)]}
        )
        assert answer.status_code == 422
        assert "MEDIA looks like base64: give that input the parameter content_type 'base64'" in answer.json()["error"]
    garbage = {**_base64_input(b""), "parameters": {}, "data": ["this is no recording"]}
    assert "base64" not in http.post("/v2/models/tiny_media/infer", json={"inputs": [garbage]}).json()["error"]


def test_what_is_no_base64_is_refused(http: httpx.Client) -> None:
    for entry in (
        {**_base64_input(b""), "data": ["AAA"]},
        {**_base64_input(b""), "data": ["AA*A"]},
        {**_base64_input(b""), "name": "START_S", "datatype": "FP64", "data": [0.0]},
    ):
        answer = http.post("/v2/models/tiny_media/infer", json={"inputs": [entry]})
        assert answer.status_code == 400, answer.text
        assert "base64" in answer.json()["error"]
