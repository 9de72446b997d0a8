"""HTTP and gRPC messages against tritonclient's own writers and readers; validation in Triton's words."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import model_config_pb2, service_pb2

from dimml.bundle import Bundle
from dimml.contract import ModelSpec, model_specs
from dimml.errors import (
    BundleError,
    InvalidParameterError,
    InvalidTensorError,
    RequestError,
    TooLargeError,
    UnsupportedError,
)
from dimml.request_parameters import timeout_of
from dimml_server.kserve.classification import top_classes
from dimml_server.kserve.grpc import codec as grpc_codec
from dimml_server.kserve.http import codec as http_codec
from dimml_server.kserve.messages import InferRequest, InferResponse, RequestedOutput
from dimml_server.kserve.tensors import InputTensor, OutputTensor, decode
from dimml_server.kserve.validation import checked_inputs, checked_outputs
from dimml_server.observability.kserve_statistics import Durations, Statistics
from dimml_server.versions.model_config import config_json, platform_of, read_config
from support.tiny_bundle import AUDIO, VISUAL, make_tiny_bundle


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("repository")


@pytest.fixture(scope="module")
def bundle(repository: Path) -> Bundle:
    return make_tiny_bundle(repository, max_batch_size=4)


def spec_of(bundle: Bundle, role: str) -> ModelSpec:
    return next(spec for spec in model_specs(bundle) if spec.role == role)


def waveform(batch: int = 1, *, datatype: str = "FP32", shape: tuple[int, ...] | None = None) -> InputTensor:
    payload = np.zeros((batch, AUDIO.samples), np.float32).tobytes()
    return InputTensor("WAVEFORM", datatype, (batch, AUDIO.samples) if shape is None else shape, payload)


def frames(batch: int = 1) -> InputTensor:
    return InputTensor("FRAMES", "UINT8", (batch, *VISUAL.shape), np.zeros((batch, *VISUAL.shape), np.uint8).tobytes())


def request(*inputs: InputTensor, outputs: tuple[RequestedOutput, ...] = ()) -> InferRequest:
    return InferRequest("tiny", "", "", inputs, outputs)


# --- validation -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((), "expected number of inputs between 1 and 2 but got 0 inputs for model 'tiny'"),
        ((InputTensor("SOUND", "FP32", (1, 1), b""),), "unexpected inference input 'SOUND' for model 'tiny'"),
        ((waveform(), waveform()), "input 'WAVEFORM' already exists in request"),
        (
            (waveform(datatype="FP64"),),
            "inference input 'WAVEFORM' data-type is 'FP64', but model 'tiny' expects 'FP32'",
        ),
        (
            (waveform(shape=(1, 17)),),
            r"unexpected shape for input 'WAVEFORM' for model 'tiny'. Expected \[-1,4000\], got \[1,17\]",
        ),
        ((waveform(shape=(1,)),), r"Expected \[-1,4000\], got \[1\]"),
        ((waveform(shape=()),), "input 'WAVEFORM' has no shape but model requires batch dimension for 'tiny'"),
        ((waveform(2), frames(3)), "input 'FRAMES' batch size does not match other inputs for 'tiny'"),
        ((waveform(5),), "inference request batch-size must be <= 4 for 'tiny'"),
        ((waveform(0),), "inference request batch-size must be at least 1"),
        ((waveform(2, shape=(1, 4000)),), "input byte size mismatch for input 'WAVEFORM' for model 'tiny'"),
    ],
)
def test_inputs_are_refused_in_triton_s_words(bundle: Bundle, inputs: tuple[InputTensor, ...], message: str) -> None:
    with pytest.raises(InvalidTensorError, match=message):
        checked_inputs(request(*inputs), spec_of(bundle, "entry"))


def test_required_inputs_are_named(bundle: Bundle) -> None:
    with pytest.raises(InvalidTensorError, match="expected 1 inputs but got 0 inputs for model 'tiny_audio'"):
        checked_inputs(request(), spec_of(bundle, "encoder"))
    fusion = spec_of(bundle, "fusion")
    present = InputTensor("PRESENT", "BOOL", (1, 2), b"\1\1")
    with pytest.raises(InvalidTensorError, match=r"expected 5 inputs but got 1.*missing.*'AUDIO_FEATURES'"):
        checked_inputs(request(present), fusion)


def test_what_fits_is_decoded(bundle: Bundle) -> None:
    got = checked_inputs(request(waveform(3), frames(3)), spec_of(bundle, "entry"))
    assert got.batch == 3
    assert {name: (a.shape, a.dtype.name) for name, a in got.tensors.items()} == {
        "WAVEFORM": ((3, 4000), "float32"),
        "FRAMES": ((3, *VISUAL.shape), "uint8"),
    }


def test_outputs_are_all_or_those_requested_in_order(bundle: Bundle) -> None:
    spec = spec_of(bundle, "entry")
    assert [o.name for o in checked_outputs(request(), spec)] == [t.name for t in spec.outputs]
    wanted = (RequestedOutput("STATUS"), RequestedOutput("LOGITS"))
    assert checked_outputs(request(outputs=wanted), spec) == wanted
    with pytest.raises(InvalidTensorError, match="unexpected inference output 'NOPE' for model 'tiny'"):
        checked_outputs(request(outputs=(RequestedOutput("NOPE"),)), spec)
    with pytest.raises(InvalidTensorError, match="requested twice"):
        checked_outputs(request(outputs=(wanted[0], wanted[0])), spec)


# --- parameters -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "seconds"),
    [
        ({}, None),
        ({"timeout_ms": 250}, 0.25),
        ({"timeout_ms": 0.5}, 0.0005),
        ({"timeout": 2_000_000}, 2.0),
        ({"timeout": 0}, None),
        ({"timeout": 2_000_000, "timeout_ms": 100}, 0.1),
    ],
)
def test_timeouts(parameters: dict[str, object], seconds: float | None) -> None:
    assert timeout_of(parameters) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize("value", [0, -1, "5", True, False, float("nan"), float("inf"), [1]])
def test_a_timeout_that_is_none_is_refused(value: object) -> None:
    with pytest.raises(InvalidParameterError, match="timeout_ms"):
        timeout_of({"timeout_ms": value})


# --- HTTP -------------------------------------------------------------------------------------------------------


def parse(document: object, tail: bytes = b"", header: str | None = "") -> http_codec.HttpInfer:
    text = json.dumps(document).encode()
    return http_codec.parse_infer(text + tail, str(len(text)) if header == "" else header, "tiny", "")


def binary_input(size: object, shape: object = (2,), **more: object) -> dict[str, object]:
    return {"name": "X", "datatype": "FP32", "shape": shape, "parameters": {"binary_data_size": size}, **more}


def test_binary_inputs_are_cut_from_the_tail_in_order() -> None:
    first, second = np.float32([1, 2]).tobytes(), np.float32([3, 4]).tobytes()
    other = {**binary_input(8), "name": "Y"}
    got = parse({"id": "7", "inputs": [binary_input(8), other]}, first + second).request
    assert (got.request_id, [bytes(i.payload) for i in got.inputs]) == ("7", [first, second])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("document", "tail", "header", "message"),
    [
        ({}, b"", "", "Unable to parse 'inputs'"),
        ([], b"", "", "must be a JSON object"),
        ({"inputs": [1]}, b"", "", "Unable to parse 'inputs'"),
        ({"inputs": [{}]}, b"", "", "Unable to parse 'name'"),
        ({"inputs": [binary_input(8, shape="2")]}, bytes(8), "", "Unable to parse 'shape'"),
        ({"inputs": [binary_input(8, shape=[-1])]}, bytes(8), "", "Unable to parse 'shape'"),
        ({"inputs": [binary_input(8, shape=[True])]}, bytes(8), "", "Unable to parse 'shape'"),
        ({"inputs": [binary_input(8, shape=[1] * 99)]}, bytes(8), "", "Unable to parse 'shape'"),
        ({"inputs": [binary_input("8")]}, bytes(8), "", "Unable to parse 'binary_data_size'"),
        ({"inputs": [binary_input(-8)]}, bytes(8), "", "Unable to parse 'binary_data_size'"),
        ({"inputs": [binary_input(9)]}, bytes(8), "", "unexpected size for input 'X', expecting 1 additional bytes"),
        ({"inputs": [binary_input(4)]}, bytes(8), "", "unexpected additional input data for model 'tiny'"),
        ({"inputs": [binary_input(8, data=[1, 2])]}, bytes(8), "", "both 'data' and 'binary_data_size'"),
        ({"inputs": [binary_input(8)]}, b"", None, "unexpected size for input 'X'"),
        ({"inputs": []}, b"", "-1", "Unable to parse Inference-Header-Content-Length"),
        ({"inputs": []}, b"", "999", r"inference header size should be in range \(0, 14\), got: 999"),
        ({"inputs": [], "id": 5}, b"", "", "Unable to parse 'id'"),
        ({"inputs": [], "id": "x" * 5000}, b"", "", "at most 1024"),
        ({"inputs": [], "parameters": []}, b"", "", "Unable to parse 'parameters'"),
        ({"inputs": [], "parameters": {"triton_x": 1}}, b"", "", "reserved for Triton usage"),
        ({"inputs": [], "outputs": [{"name": "A", "parameters": {"classification": "x"}}]}, b"", "", "classification"),
        ({"inputs": [], "outputs": [{"name": "A", "parameters": {"binary_data": 1}}]}, b"", "", "binary_data"),
    ],
)
def test_malformed_http_requests_are_explained(document: object, tail: bytes, header: str | None, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        parse(document, tail, header)


def test_json_that_would_hold_everybody_up_is_refused_and_binary_is_the_way_out() -> None:
    count = 2**20  # as JSON more than the bound, in binary more bytes than it
    pixels = {"name": "X", "datatype": "UINT8", "shape": [3 * count], "data": [0] * count}
    with pytest.raises(TooLargeError, match="at most 2097152 are taken: send large tensors as binary data") as caught:
        http_codec.parse_infer(json.dumps({"inputs": [pixels]}).encode(), None, "tiny", "")
    assert "binary_data_size" in caught.value.message
    raw = bytes(3 * count)
    binary = {**pixels, "data": None, "parameters": {"binary_data_size": len(raw)}}
    (tensor,) = parse({"inputs": [binary]}, raw).request.inputs
    assert len(tensor.payload) == len(raw)


def test_shared_memory_and_sequences_are_unsupported() -> None:
    shared = {"name": "X", "datatype": "FP32", "shape": [1], "parameters": {"shared_memory_region": "r"}}
    for document in ({"inputs": [shared]}, {"inputs": [], "outputs": [shared]}):
        with pytest.raises(UnsupportedError, match="shared memory"):
            parse(document)
    with pytest.raises(UnsupportedError, match="sequence"):
        parse({"inputs": [], "parameters": {"sequence_id": 3}})


def test_outputs_are_json_or_binary_each_as_asked() -> None:
    status = np.array([[b"ok"]], np.object_)
    response = InferResponse(
        "tiny",
        "3",
        "id-1",
        (OutputTensor("LOGITS", "FP32", np.float32([[1, 2]])), OutputTensor("STATUS", "BYTES", status)),
    )
    asked = parse({"inputs": [], "outputs": [{"name": "LOGITS", "parameters": {"binary_data": True}}]})
    body, header_length = http_codec.format_infer(response, asked)
    assert json.loads(body[:header_length]) == {
        "model_name": "tiny",
        "model_version": "3",
        "id": "id-1",
        "outputs": [
            {"name": "LOGITS", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}},
            {"name": "STATUS", "datatype": "BYTES", "shape": [1, 1], "data": ["ok"]},
        ],
    }
    assert body[header_length:] == np.float32([1, 2]).tobytes()
    body, header_length = http_codec.format_infer(response, parse({"inputs": []}))
    assert header_length is None
    assert json.loads(body)["outputs"][0]["data"] == [1.0, 2.0]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "datatype", "shape", "data", "parameters", "inputs", "outputs", "id"]), inner
        )
    ),
    max_leaves=12,
)


@given(_JSON, st.binary(max_size=16), st.none() | st.integers(-2, 400).map(str) | st.text(max_size=5))
@settings(max_examples=300, deadline=None)
def test_no_http_body_is_more_than_a_request_error(document: object, tail: bytes, header: str | None) -> None:
    body = json.dumps(document).encode() + tail
    with suppress(RequestError):
        http_codec.parse_infer(body, header, "tiny", "")


# --- gRPC -------------------------------------------------------------------------------------------------------


def grpc_request(**fields: object) -> service_pb2.ModelInferRequest:
    return json_format.ParseDict({"model_name": "tiny", **fields}, service_pb2.ModelInferRequest())


@pytest.mark.parametrize(
    ("datatype", "contents", "array"),
    [
        ("FP32", {"fp32_contents": [1.5, 2]}, np.float32([1.5, 2])),
        ("FP64", {"fp64_contents": [1.5, 2]}, np.float64([1.5, 2])),
        ("UINT8", {"uint_contents": [7, 255]}, np.uint8([7, 255])),
        ("BOOL", {"bool_contents": [True, False]}, np.array([True, False])),
        ("BYTES", {"bytes_contents": ["aGk=", ""]}, np.array([b"hi", b""], np.object_)),
    ],
)
def test_typed_contents(datatype: str, contents: dict[str, object], array: np.ndarray[tuple[int], np.dtype]) -> None:
    entry = {"name": "X", "datatype": datatype, "shape": ["2"], "contents": contents}
    (tensor,) = grpc_codec.parse_infer(grpc_request(inputs=[entry])).inputs
    got = decode(tensor, datatype, "tiny")  # type: ignore[arg-type]
    assert got.dtype == array.dtype
    assert got.tolist() == array.tolist()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"inputs": [{"name": "X", "datatype": "FP32", "shape": ["1"]}]}, "unable to find data for input tensor 'X'"),
        ({"raw_input_contents": ["AAAA"]}, "unexpected additional input data"),
        (
            {
                "inputs": [{"name": "X", "datatype": "FP32", "shape": ["1"], "contents": {"fp32_contents": [1]}}],
                "raw_input_contents": ["AAAA"],
            },
            "contents field must not be specified when using raw_input_contents for 'X'",
        ),
        (
            {"inputs": [{"name": "X", "datatype": "FP32", "shape": ["1"], "contents": {"fp64_contents": [1]}}]},
            "FP32 is given in fp32_contents, not in fp64_contents",
        ),
        (
            {"inputs": [{"name": "X", "datatype": "FP16", "shape": ["1"], "contents": {"fp32_contents": [1]}}]},
            "must be given in raw_input_contents",
        ),
        ({"inputs": [{"name": "X", "datatype": "FP32", "shape": ["-1"], "contents": {}}]}, "'shape'"),
        ({"parameters": {"timeout": {"string_param": "x"}}}, "'timeout' must be a number"),
    ],
)
def test_malformed_grpc_requests_are_explained(fields: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        grpc_codec.parse_infer(grpc_request(**fields))


# --- classification, configuration, statistics ------------------------------------------------------------------


def test_classification_is_written_as_triton_does() -> None:
    output = OutputTensor("PROBABILITIES", "FP32", np.float32([[0.1, 0.7, 0.2], [0.5, 0.25, 0.25]]))
    top = top_classes(output, 2, ["red", "green", "blue"], batched=True)
    assert (top.datatype, top.array.shape) == ("BYTES", (2, 2))
    assert top.array.tolist() == [
        [b"0.700000:1:green", b"0.200000:2:blue"],
        [b"0.500000:0:red", b"0.250000:1:green"],
    ]
    alone = top_classes(OutputTensor("WEIGHTS", "FP32", np.float32([[0.4, 0.6]])), 9, ["a", "b"], batched=False)
    assert alone.array.tolist() == [b"0.600000:1", b"0.400000:0"]
    with pytest.raises(InvalidTensorError, match="unsupported type 'BYTES'"):
        top_classes(OutputTensor("STATUS", "BYTES", np.array([[b"ok"]], np.object_)), 1, [], batched=True)


def test_the_repository_s_configuration_is_given_as_it_stands(repository: Path, bundle: Bundle) -> None:
    for spec in model_specs(bundle):
        config = read_config(repository, spec.name)
        document = config_json(config)
        assert document["name"] == spec.name
        assert document["max_batch_size"] == spec.max_batch_size
        assert [entry["dims"] for entry in document["input"]] == [list(tensor.dims) for tensor in spec.inputs]
        assert platform_of(config) == ("python" if spec.role in ("entry", "media") else "onnxruntime")
        # What protobuf reads back from the JSON is the same message.
        assert json_format.ParseDict(document, model_config_pb2.ModelConfig()) == config


def test_a_bad_configuration_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"cannot read m/config\.pbtxt"):
        read_config(tmp_path, "m")
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.pbtxt").write_text("inputs: nonsense")
    with pytest.raises(BundleError, match=r"m/config\.pbtxt is not a model configuration"):
        read_config(tmp_path, "m")


def test_statistics_count_per_model_and_version() -> None:
    statistics = Statistics()
    durations = Durations(queue=1, compute_input=2, compute_infer=3, compute_output=4)
    statistics.succeeded("m", 1, batch=3, durations=durations, total_ns=20)
    statistics.succeeded("m", 1, batch=1, durations=durations, total_ns=30)
    statistics.failed("m", 2, total_ns=7)
    first, second = statistics.model_stats("m", 1), statistics.model_stats("m", 2)
    assert (first["inference_count"], first["execution_count"]) == (4, 2)
    assert first["inference_stats"]["success"] == {"count": 2, "ns": 50}
    assert first["inference_stats"]["compute_infer"] == {"count": 2, "ns": 6}
    assert [batch["batch_size"] for batch in first["batch_stats"]] == [1, 3]
    assert second["inference_stats"]["fail"] == {"count": 1, "ns": 7}
    message = json_format.ParseDict({"model_stats": [first]}, service_pb2.ModelStatisticsResponse())
    assert message.model_stats[0].inference_stats.success.ns == 50
