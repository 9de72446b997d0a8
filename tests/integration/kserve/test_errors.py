"""Refusals: Triton's words for requests that do not fit, and the status table of docs/adr/0011; both transports."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from support.kserve_clients import Face, face, frames, waveform
from support.server_process import ServerProcess, running_server
from support.tiny_bundle import make_tiny_bundle
from support.waiting import wait_until

Call = Callable[[Face], Any]


@pytest.fixture(params=["http", "grpc"])
def triton(request: pytest.FixtureRequest, server: ServerProcess) -> Iterator[Face]:
    with face(request.param, server.http, server.grpc) as client:
        yield client


def refused(triton: Face, call: Call) -> tuple[int | str, str]:
    """Status and message of a call that must fail."""
    with pytest.raises(InferenceServerException) as raised:
        call(triton)
    status = raised.value.status()
    return (int(status) if triton.http else status.removeprefix("StatusCode.")), raised.value.message()


def expect(triton: Face, call: Call, http_status: int, grpc_status: str, message: str) -> None:
    status, said = refused(triton, call)
    assert message in said
    assert status == (http_status if triton.http else grpc_status)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: t.infer("tiny", []), "expected number of inputs between 1 and 2 but got 0 inputs for model 'tiny'"),
        (lambda t: t.infer("tiny_audio", []), "expected 1 inputs but got 0 inputs for model 'tiny_audio'"),
        (
            lambda t: t.infer("tiny", [t.tensor("SOUND", waveform([0]))]),
            "unexpected inference input 'SOUND' for model 'tiny'",
        ),
        (
            lambda t: t.infer("tiny", [t.tensor("WAVEFORM", waveform([0]).astype(np.float64))]),
            "inference input 'WAVEFORM' data-type is 'FP64', but model 'tiny' expects 'FP32'",
        ),
        (
            lambda t: t.infer("tiny", [t.tensor("WAVEFORM", waveform([0])[:, :16])]),
            "unexpected shape for input 'WAVEFORM' for model 'tiny'. Expected [-1,4000], got [1,16]",
        ),
        (
            lambda t: t.infer("tiny", [t.tensor("WAVEFORM", waveform([0])[0])]),
            "unexpected shape for input 'WAVEFORM' for model 'tiny'. Expected [-1,4000], got [4000]",
        ),
        (
            lambda t: t.infer("tiny", [t.waveform([0]), t.frames([0, 1])]),
            "batch size does not match other inputs for 'tiny'",
        ),
        (lambda t: t.infer("tiny", [t.frames([0] * 5)]), "inference request batch-size must be <= 4 for 'tiny'"),
        (
            lambda t: t.infer("tiny", [t.frames([0])], outputs=[t.output("ODDS")]),
            "unexpected inference output 'ODDS' for model 'tiny'",
        ),
        (
            lambda t: t.infer("tiny", [t.frames([0])], outputs=[t.output("STATUS", class_count=1)]),
            "class result not available for output 'STATUS' due to unsupported type 'BYTES'",
        ),
        (
            lambda t: t.infer("tiny", [t.frames([0])], model_version="first"),
            "failed to get model version from specified version string 'first'",
        ),
        (lambda t: t.infer("tiny_media", []), "expected number of inputs between 1 and 5 but got 0 inputs"),
        (
            lambda t: t.infer("tiny_media", [t.tensor("START_S", np.array([0.1]))]),
            "model 'tiny_media' needs a recording: give one of ['MEDIA', 'WAVEFORM_FILE', 'FRAMES_FILE']",
        ),
        (
            lambda t: t.infer("tiny_media", [t.tensor("MEDIA", np.array([b"a", b"b"], np.object_))]),
            "unexpected shape for input 'MEDIA' for model 'tiny_media'. Expected [1], got [2]",
        ),
    ],
)
def test_requests_that_do_not_fit(triton: Face, call: Call, message: str) -> None:
    expect(triton, call, 400, "INVALID_ARGUMENT", message)


def test_sequences_are_not_offered(triton: Face) -> None:
    expect(
        triton,
        lambda t: t.infer("tiny", [t.frames([0])], sequence_id=5, sequence_start=True),
        501,
        "UNIMPLEMENTED",
        "sequence requests are not supported",
    )


# --- the status table of docs/adr/0011 --------------------------------------------------------------------------------


def test_unknown_models_and_versions(triton: Face) -> None:
    for call in (
        lambda t: t.infer("nothing", [t.frames([0])]),
        lambda t: t.client.get_model_metadata("nothing"),
        lambda t: t.client.get_model_config("nothing"),
        lambda t: t.client.get_inference_statistics("nothing"),
    ):
        expect(triton, call, 404, "NOT_FOUND", "Request for unknown model: 'nothing' is not found")
    for model in ("tiny", "tiny_media", "tiny_audio", "tiny_fusion"):
        expect(
            triton,
            lambda t, model=model: t.infer(model, [t.frames([0])], model_version="7"),
            404,
            "NOT_FOUND",
            f"Request for unknown model: '{model}' version 7 is not found",
        )


def test_nothing_but_silence(triton: Face) -> None:
    expect(
        triton,
        lambda t: t.infer("tiny", [t.waveform([-1]), t.frames([-1])]),
        422,
        "INVALID_ARGUMENT",
        "no requested modality is usable: audio unusable:silent, visual unusable:black",
    )


@pytest.mark.parametrize("parameters", [{"timeout_ms": 0}, {"timeout_ms": -3}, {"timeout_ms": 10**9}])
def test_bad_timeouts(triton: Face, parameters: dict[str, int]) -> None:
    expect(
        triton,
        lambda t: t.infer("tiny", [t.frames([0])], parameters=parameters),
        422,
        "INVALID_ARGUMENT",
        "timeout_ms",
    )


def test_too_large(triton: Face, max_body_bytes: int) -> None:
    blob = np.array([bytes(max_body_bytes + 1)], np.object_)
    expect(
        triton,
        lambda t: t.infer("tiny_media", [t.tensor("MEDIA", blob)]),
        413,
        "INVALID_ARGUMENT",
        f"exceeds max_body_bytes ({max_body_bytes})" if not triton.http else "max_body_bytes",
    )


def test_a_bomb_is_not_unfolded(triton: Face) -> None:
    blob = np.array([bytes(20_000_000)], np.object_)
    how = {"request_compression_algorithm": "gzip"} if triton.http else {"compression_algorithm": "gzip"}
    # gRPC refuses in its own words what is larger than twice the limit.
    message = "max_body_bytes" if triton.http else "larger than max"
    expect(
        triton,
        lambda t: t.infer("tiny_media", [t.tensor("MEDIA", blob)], **how),
        413,
        "RESOURCE_EXHAUSTED",
        message,
    )


def test_every_encoder_failed(triton: Face) -> None:
    expect(
        triton,
        lambda t: t.infer("raising", [t.waveform([0])]),
        503,
        "UNAVAILABLE",
        "no encoder answered: audio failed:encoder_error, visual absent:not_sent",
    )
    expect(triton, lambda t: t.infer("raising_audio", [t.waveform([0])]), 503, "UNAVAILABLE", "encoder_error")


def test_one_encoder_failed_is_an_answer(triton: Face) -> None:
    result = triton.infer("raising", [triton.waveform([2]), triton.frames([2])])
    assert [text.decode() for text in result.as_numpy("STATUS")[0]] == ["failed:encoder_error", "ok"]
    assert result.as_numpy("PROBABILITIES").argmax() == 2


def test_some_failed_and_the_rest_late(triton: Face) -> None:
    expect(
        triton,
        lambda t: t.infer("both", [t.waveform([0]), t.frames([0])]),
        503,
        "UNAVAILABLE",
        "no encoder answered: audio failed:encoder_error, visual timeout:deadline",
    )


@pytest.mark.parametrize("how", [{"parameters": {"timeout_ms": 300}}, {"timeout": 300_000}])
def test_every_encoder_late(triton: Face, how: dict[str, Any]) -> None:
    began = time.perf_counter()
    expect(
        triton,
        lambda t: t.infer("stalling", [t.frames([0])], **how),
        504,
        "DEADLINE_EXCEEDED",
        "every encoder was late: audio absent:not_sent, visual timeout:deadline",
    )
    assert time.perf_counter() - began < 2.0


def test_one_encoder_late_is_an_answer(triton: Face) -> None:
    result = triton.infer("late", [triton.waveform([1]), triton.frames([1])])
    assert [text.decode() for text in result.as_numpy("STATUS")[0]] == ["ok", "timeout:deadline"]
    assert result.as_numpy("PROBABILITIES").argmax() == 1


def test_a_late_model_alone(triton: Face) -> None:
    expect(
        triton,
        lambda t: t.infer("stalling_visual", [t.frames([0])], parameters={"timeout_ms": 300}),
        504,
        "DEADLINE_EXCEEDED",
        "the model was late",
    )


# --- places in the queue ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One request at a time, and none may wait."""
    repository = tmp_path_factory.mktemp("narrow")
    make_tiny_bundle(repository)
    make_tiny_bundle(repository, name="stalling", stall="visual", deadline_ms=60_000)
    with running_server(repository, concurrency=1, queue_length=0) as process:
        yield process


def in_flight(server: ServerProcess) -> float:
    text = httpx.get(f"http://{server.http}/metrics").text
    line = next(line for line in text.splitlines() if line.startswith("dimml_requests_in_flight "))
    return float(line.split()[1])


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_the_queue_is_full(narrow: ServerProcess, kind: str) -> None:
    def occupy() -> None:
        with face(kind, narrow.http, narrow.grpc) as other, pytest.raises(InferenceServerException):
            other.infer("stalling", [other.frames([0])], parameters={"timeout_ms": 1500})

    wait_until(lambda: in_flight(narrow) == 0)
    thread = threading.Thread(target=occupy)
    thread.start()
    try:
        wait_until(lambda: in_flight(narrow) == 1, 10.0)
        with face(kind, narrow.http, narrow.grpc) as triton:
            expect(triton, lambda t: t.infer("tiny", [t.frames([0])]), 429, "RESOURCE_EXHAUSTED", "queue is full")
        if kind == "http":
            body = {"inputs": [{"name": "FRAMES", "datatype": "UINT8", "shape": [1, 1], "data": [1]}]}
            body["inputs"][0].update(shape=[1, 4, 16, 16, 3], data=frames([0]).ravel().tolist())
            answer = httpx.post(f"http://{narrow.http}/v2/models/tiny/infer", json=body)
            assert answer.status_code == 429
            assert int(answer.headers["Retry-After"]) >= 1
    finally:
        thread.join()


def test_a_grpc_deadline_frees_the_place(narrow: ServerProcess) -> None:
    wait_until(lambda: in_flight(narrow) == 0)
    with face("grpc", narrow.http, narrow.grpc) as triton:
        expect(
            triton,
            lambda t: t.infer("stalling", [t.frames([0])], client_timeout=0.4),
            504,
            "DEADLINE_EXCEEDED",
            "",
        )
        wait_until(lambda: in_flight(narrow) == 0)
        assert triton.infer("tiny", [triton.frames([1])]).as_numpy("PROBABILITIES").argmax() == 1


def test_a_grpc_deadline_cuts_the_late_encoder_and_not_the_answer(server: ServerProcess) -> None:
    with face("grpc", server.http, server.grpc) as triton:
        result = triton.infer("stalling", [triton.waveform([2]), triton.frames([2])], client_timeout=2.0)
    assert [text.decode() for text in result.as_numpy("STATUS")[0]] == ["ok", "timeout:deadline"]
    assert result.as_numpy("PROBABILITIES").argmax() == 2


def test_a_busy_server_says_over_grpc_when_to_come_back(narrow: ServerProcess) -> None:
    wait_until(lambda: in_flight(narrow) == 0)
    with face("grpc", narrow.http, narrow.grpc) as triton, grpc.insecure_channel(narrow.grpc) as channel:
        call = triton.client.async_infer(
            "stalling", [triton.frames([0])], callback=lambda result, error: None, parameters={"timeout_ms": 9000}
        )
        wait_until(lambda: in_flight(narrow) == 1, 10.0)
        request = service_pb2.ModelInferRequest(model_name="tiny", raw_input_contents=[frames([0]).tobytes()])
        request.inputs.add(name="FRAMES", datatype="UINT8", shape=[1, 4, 16, 16, 3])
        with pytest.raises(grpc.RpcError) as raised:
            service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)
        call.cancel()
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert int(dict(raised.value.trailing_metadata())["retry-after"]) >= 1
    wait_until(lambda: in_flight(narrow) == 0)


def test_grpc_calls_that_are_being_sent_are_bounded(narrow: ServerProcess) -> None:
    wait_until(lambda: in_flight(narrow) == 0)
    sent = threading.Event()
    with grpc.insecure_channel(narrow.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        assert stub.ServerLive(service_pb2.ServerLiveRequest()).live
        upload = channel.stream_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=service_pb2.ModelInferRequest.SerializeToString,
        )
        # Calls whose message never comes: as many as the queue takes, and as many again.
        stalled = [upload.future(iter(sent.wait, True)) for _ in range(2)]

        def full() -> bool:
            # One that came before the server had let go of the call above was itself refused.
            stalled[:] = [upload.future(iter(sent.wait, True)) if call.done() else call for call in stalled]
            return refused()

        def refused() -> bool:
            try:
                stub.ServerLive(service_pb2.ServerLiveRequest())
            except grpc.RpcError as error:
                return error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            return False

        try:
            wait_until(full, 10.0)
        finally:
            for call in stalled:
                call.cancel()
            sent.set()
        wait_until(lambda: not refused())


def test_a_cancelled_grpc_call_frees_the_place(narrow: ServerProcess) -> None:
    done = threading.Event()
    wait_until(lambda: in_flight(narrow) == 0)
    with face("grpc", narrow.http, narrow.grpc) as triton:
        began = time.perf_counter()
        call = triton.client.async_infer(
            "stalling", [triton.frames([0])], callback=lambda result, error: done.set(), parameters={"timeout_ms": 9000}
        )
        wait_until(lambda: in_flight(narrow) == 1, 10.0)
        call.cancel()
        assert done.wait(5)
        wait_until(lambda: in_flight(narrow) == 0)
        assert time.perf_counter() - began < 5
        assert triton.infer("tiny", [triton.frames([1])]).as_numpy("PROBABILITIES").argmax() == 1


def test_an_http_caller_that_hangs_up_frees_the_place(narrow: ServerProcess) -> None:
    wait_until(lambda: in_flight(narrow) == 0)
    body = {
        "inputs": [
            {"name": "FRAMES", "datatype": "UINT8", "shape": [1, 4, 16, 16, 3], "data": frames([0]).ravel().tolist()}
        ],
        "parameters": {"timeout_ms": 9000},
    }
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"http://{narrow.http}/v2/models/stalling/infer", json=body, timeout=0.5)
    began = time.perf_counter()
    wait_until(lambda: in_flight(narrow) == 0)
    assert time.perf_counter() - began < 3


def test_a_grpc_message_that_never_comes_ends_with_its_connection(tmp_path: Path) -> None:
    make_tiny_bundle(tmp_path)
    bounds = {"grpc_connection_age_s": 1, "upload_timeout_s": 1, "max_timeout_s": 2, "timeout_s": 2}
    ended = threading.Event()
    with running_server(tmp_path, **bounds) as server, grpc.insecure_channel(server.grpc) as channel:
        upload = channel.stream_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=service_pb2.ModelInferRequest.SerializeToString,
        )
        stalled = upload.future(iter(ended.wait, True))
        try:
            with pytest.raises(grpc.RpcError) as raised:
                stalled.result(timeout=30)
            assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
            # The channel comes back by itself: an honest caller sees nothing of it.
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            for _ in range(20):
                assert stub.ServerLive(service_pb2.ServerLiveRequest(), timeout=20, wait_for_ready=True).live
                time.sleep(0.1)  # Over two ages of a connection.
        finally:
            ended.set()


@pytest.mark.parametrize("method", ["ServerLive", "ModelInfer", "RepositoryModelLoad"])
def test_a_grpc_message_that_is_none_is_the_callers_fault(narrow: ServerProcess, method: str) -> None:
    with grpc.insecure_channel(narrow.grpc) as channel:
        call = channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
        with pytest.raises(grpc.RpcError) as raised:
            call(b"\xff\xff\xff", timeout=20)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "Traceback" not in narrow.log


def test_a_grpc_message_has_a_limit_of_its_own(tmp_path: Path) -> None:
    make_tiny_bundle(tmp_path)
    with running_server(tmp_path, max_grpc_bytes=100_000) as server, grpc.insecure_channel(server.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        request = service_pb2.ModelInferRequest(model_name="tiny_media", raw_input_contents=[bytes(150_000)])
        with pytest.raises(grpc.RpcError) as raised:
            stub.ModelInfer(request, timeout=20)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "max_grpc_bytes (100000)" in str(raised.value.details())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("binary", [True, False], ids=["binary", "plain"])
def test_numbers_that_are_not_finite_are_the_callers_fault(triton: Face, value: float, binary: bool) -> None:
    sound = waveform([0, 1])
    sound[:, 1] = value

    def call(triton: Face) -> Any:
        return triton.infer("tiny", [triton.tensor("WAVEFORM", sound, binary=binary)])

    expect(triton, call, 422, "INVALID_ARGUMENT", "audio: the input holds NaN or infinity")


@pytest.mark.parametrize("model", ["late", "both"], ids=["late", "failed-and-late"])
def test_so_they_are_beside_an_encoder_that_is_late_or_failed(triton: Face, model: str) -> None:
    sound = np.full_like(waveform([0]), np.nan)

    def call(triton: Face) -> Any:
        return triton.infer(model, [triton.tensor("WAVEFORM", sound), triton.frames([0])])

    expect(triton, call, 422, "INVALID_ARGUMENT", "audio: the input holds NaN or infinity")


def test_a_number_past_single_precision_is_the_callers_fault(http: httpx.Client) -> None:
    tensor = {
        "name": "WAVEFORM",
        "datatype": "FP32",
        "shape": list(waveform([0]).shape),
        "data": [1e39] * waveform([0]).size,
    }
    answer = http.post("/v2/models/tiny/infer", json={"inputs": [tensor]})
    assert answer.status_code == 422, answer.text
    assert "holds NaN or infinity" in answer.json()["error"]


@pytest.mark.parametrize("value", [np.nan, np.inf], ids=str)
@pytest.mark.parametrize("name", ["START_S", "END_S"])
def test_a_range_that_is_not_finite_is_the_callers_fault(triton: Face, name: str, value: float) -> None:
    recording = np.array([b"whatever"], np.object_)

    def call(triton: Face) -> Any:
        inputs = [triton.tensor("MEDIA", recording, datatype="BYTES"), triton.tensor(name, np.array([value]))]
        return triton.infer("tiny_media", inputs)

    expect(triton, call, 422, "INVALID_ARGUMENT", f"{name.lower()} must be 0 or more seconds")
