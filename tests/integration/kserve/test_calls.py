"""tritonclient, unmodified, against a real server: every call that is offered.

Each call once by all four kinds of client; what is answered to what, by one client a transport.
"""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import tritonclient.grpc.aio
import tritonclient.http.aio

import dimml
from dimml.bundle import Bundle
from dimml.contract import ModelSpec, model_specs
from dimml.fusion import softmax
from support.kserve_clients import FACES, TRANSPORTS, Face, as_dict, face, frames, waveform
from support.server_process import ServerProcess
from support.tiny_bundle import VISUAL

# tritonclient.http.aio does not release the answers of its health calls; aiohttp says so when they are collected.
pytestmark = pytest.mark.filterwarnings("ignore:Unclosed connection Connection<:ResourceWarning")


by_every_client = pytest.mark.parametrize("triton", FACES, indirect=True)


@pytest.fixture(params=TRANSPORTS)
def triton(request: pytest.FixtureRequest, server: ServerProcess) -> Iterator[Face]:
    with face(request.param, server.http, server.grpc) as client:
        yield client


# --- what is served ---------------------------------------------------------------------------------------------


@by_every_client
def test_health(triton: Face) -> None:
    assert triton.client.is_server_live()
    assert triton.client.is_server_ready()
    assert triton.client.is_model_ready("tiny")
    assert triton.client.is_model_ready("tiny", "1")
    assert not triton.client.is_model_ready("tiny", "2")
    assert not triton.client.is_model_ready("nothing")


@by_every_client
def test_server_metadata(triton: Face) -> None:
    metadata = as_dict(triton.client.get_server_metadata())
    assert (metadata["name"], metadata["version"]) == ("dimml", dimml.__version__)
    assert {"binary_tensor_data", "classification", "statistics"} <= set(metadata["extensions"])


@by_every_client
def test_metadata_and_configuration_are_the_contract(triton: Face, bundle: Bundle) -> None:
    for spec in model_specs(bundle):
        metadata = as_dict(triton.client.get_model_metadata(spec.name))
        batch = [-1] if spec.max_batch_size else []
        assert metadata["versions"] == ["1"]
        for there, here in ((metadata["inputs"], spec.inputs), (metadata["outputs"], spec.outputs)):
            assert [(t["name"], t["datatype"], t["shape"]) for t in there] == [
                (t.name, t.datatype, [*batch, *t.dims]) for t in here
            ]
        config = as_dict(triton.client.get_model_config(spec.name, "1"))
        config = config.get("config", config)
        assert config.get("max_batch_size", 0) == spec.max_batch_size
        assert [(t["name"], t["dims"], t.get("optional", False)) for t in config["input"]] == [
            (t.name, list(t.dims), t.optional) for t in spec.inputs
        ]


@by_every_client
def test_repository_index(triton: Face, bundles: dict[str, Bundle]) -> None:
    index = as_dict(triton.client.get_model_repository_index())
    models = index["models"] if isinstance(index, dict) else index
    assert {(m["name"], m["version"], m["state"]) for m in models} == {
        (spec.name, "1", "READY") for bundle in bundles.values() for spec in model_specs(bundle)
    }


# --- inference --------------------------------------------------------------------------------------------------


def fed(spec: ModelSpec, rng: np.random.Generator, batch: int) -> dict[str, np.ndarray]:
    """Something for every input of an encoder or a fusion."""
    arrays = {}
    for tensor in spec.inputs:
        shape = (batch, *tensor.dims)
        if tensor.name == "WAVEFORM":
            arrays[tensor.name] = waveform([i % 3 for i in range(batch)])
        elif tensor.name == "FRAMES":
            arrays[tensor.name] = frames([i % 3 for i in range(batch)])
        elif tensor.datatype == "BOOL":
            arrays[tensor.name] = rng.random(shape) < 0.7
        else:
            arrays[tensor.name] = rng.normal(size=shape).astype(np.float32)
    return arrays


@pytest.mark.parametrize("batch", [1, 3])
def test_encoders_and_fusion_are_onnx_runtime_s_answers(
    triton: Face, bundle: Bundle, repository: Path, batch: int
) -> None:
    rng = np.random.default_rng(5)
    for spec in model_specs(bundle):
        if spec.role not in ("encoder", "fusion"):
            continue
        arrays = fed(spec, rng, batch)
        session = onnxruntime.InferenceSession(bundle.model_file(repository, spec.name))
        names = [output.name for output in spec.outputs]
        wanted = dict(zip(names, session.run(names, arrays), strict=True))
        result = triton.infer(spec.name, [triton.tensor(name, array) for name, array in arrays.items()])
        for name in names:
            np.testing.assert_allclose(result.as_numpy(name), wanted[name], rtol=1e-5, atol=1e-6)


@by_every_client
@pytest.mark.parametrize("binary", [True, False])
def test_the_entry_model_with_both_inputs_and_a_batch(triton: Face, binary: bool) -> None:
    labels = [2, 0, 1]
    wanted = ("PROBABILITIES", "LOGITS", "CERTAINTY", "WEIGHTS", "STATUS")
    result = triton.infer(
        "tiny",
        [triton.waveform(labels, binary=binary), triton.frames(labels, binary=binary)],
        outputs=[triton.output(name, binary=binary) for name in wanted],
    )
    probabilities = result.as_numpy("PROBABILITIES")
    assert probabilities.dtype == np.float32
    assert probabilities.argmax(axis=1).tolist() == labels
    np.testing.assert_allclose(probabilities, softmax(result.as_numpy("LOGITS")), atol=1e-6)
    np.testing.assert_allclose(result.as_numpy("WEIGHTS").sum(axis=1), 1.0, atol=1e-6)
    assert result.as_numpy("CERTAINTY").shape == (3, 3)
    assert texts(result.as_numpy("STATUS")) == [["ok", "ok"]] * 3


@pytest.mark.parametrize("given", ["WAVEFORM", "FRAMES"])
def test_one_input_is_enough(triton: Face, given: str) -> None:
    tensor = triton.waveform([1]) if given == "WAVEFORM" else triton.frames([1])
    result = triton.infer("tiny", [tensor])
    assert result.as_numpy("PROBABILITIES").argmax() == 1
    present = given == "WAVEFORM", given == "FRAMES"
    assert texts(result.as_numpy("STATUS")) == [["ok" if p else "absent:not_sent" for p in present]]
    np.testing.assert_array_equal(result.as_numpy("WEIGHTS"), [[*(np.float32(p) for p in present), 0]])


def test_a_batch_of_mixed_presence_is_answered_row_by_row(triton: Face) -> None:
    result = triton.infer("tiny", [triton.waveform([0, -1, 2, -1]), triton.frames([0, 1, -1, -1])])
    assert texts(result.as_numpy("STATUS")) == [
        ["ok", "ok"],
        ["unusable:silent", "ok"],
        ["ok", "unusable:black"],
        ["unusable:silent", "unusable:black"],
    ]
    probabilities, weights = result.as_numpy("PROBABILITIES"), result.as_numpy("WEIGHTS")
    assert probabilities[:3].argmax(axis=1).tolist() == [0, 1, 2]
    assert weights[1].tolist() == [0, 1, 0]
    assert weights[2].tolist() == [1, 0, 0]
    # Nothing is there: no weights, and a distribution that says nothing.
    assert weights[3].tolist() == [0, 0, 0]
    np.testing.assert_allclose(probabilities[3], 1 / 3)
    alone = triton.infer("tiny", [triton.waveform([0]), triton.frames([0])])
    np.testing.assert_allclose(probabilities[:1], alone.as_numpy("PROBABILITIES"), rtol=1e-5)


def test_nan_in_a_row_takes_its_modality_out_of_that_row_alone(triton: Face) -> None:
    sound = waveform([0, 1])
    sound[1] = np.nan
    result = triton.infer("tiny", [triton.tensor("WAVEFORM", sound), triton.frames([0, 1])])
    assert texts(result.as_numpy("STATUS")) == [["ok", "ok"], ["failed:non_finite", "ok"]]
    assert result.as_numpy("PROBABILITIES").argmax(axis=1).tolist() == [0, 1]
    assert np.isfinite(result.as_numpy("LOGITS")).all()


def test_nan_in_a_masked_slot_of_the_fusion_has_no_influence(triton: Face, bundle: Bundle) -> None:
    spec = next(s for s in model_specs(bundle) if s.role == "fusion")
    arrays = fed(spec, np.random.default_rng(1), 2)
    arrays["PRESENT"] = np.array([[True, False], [False, False]])
    results = []
    for masked in (0.0, np.nan):
        arrays["VISUAL_FEATURES"][:] = masked
        arrays["VISUAL_LOGITS"][:] = masked
        result = triton.infer(spec.name, [triton.tensor(name, array) for name, array in arrays.items()])
        results.append([result.as_numpy(output.name) for output in spec.outputs])
    for clean, poisoned in zip(*results, strict=True):
        np.testing.assert_array_equal(clean, poisoned)
    # All absent: no weights, a uniform distribution.
    assert results[0][3][1].tolist() == [0, 0, 0]
    np.testing.assert_allclose(results[0][0][1], 1 / 3)


def test_only_the_requested_outputs_in_the_order_requested(triton: Face) -> None:
    wanted = ["STATUS", "LOGITS"]
    result = triton.infer("tiny", [triton.frames([0])], outputs=[triton.output(name) for name in wanted])
    outputs = as_dict(result.get_response())["outputs"]
    assert [output["name"] for output in outputs] == wanted
    assert result.as_numpy("PROBABILITIES") is None


def test_outputs_are_in_the_model_s_order_where_none_is_requested(triton: Face, bundle: Bundle) -> None:
    outputs = as_dict(triton.infer("tiny", [triton.frames([0])]).get_response())["outputs"]
    spec = next(s for s in model_specs(bundle) if s.role == "entry")
    assert [output["name"] for output in outputs] == [output.name for output in spec.outputs]


def test_the_request_id_comes_back(triton: Face) -> None:
    answer = as_dict(triton.infer("tiny", [triton.frames([0])], request_id="clip-7", model_version="1").get_response())
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("clip-7", "tiny", 1)
    assert not as_dict(triton.infer("tiny", [triton.frames([0])]).get_response()).get("id")


@pytest.mark.parametrize("triton", ["http", "http.aio"], indirect=True)
def test_binary_and_json_outputs_in_one_answer(triton: Face) -> None:
    outputs = [triton.output("STATUS", binary=False), triton.output("LOGITS", binary=True)]
    result = triton.infer("tiny", [triton.waveform([2], binary=False), triton.frames([2])], outputs=outputs)
    assert result.get_output("STATUS")["data"] == ["ok", "ok"]
    assert result.get_output("LOGITS")["parameters"] == {"binary_data_size": 12}
    assert result.as_numpy("LOGITS").argmax() == 2


@by_every_client
@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compression(triton: Face, algorithm: str) -> None:
    inputs = [triton.waveform([1]), triton.frames([1])]
    if triton.http:
        how = {"request_compression_algorithm": algorithm, "response_compression_algorithm": algorithm}
    else:
        how = {"compression_algorithm": algorithm}
    compressed, plain = triton.infer("tiny", inputs, **how), triton.infer("tiny", inputs)
    for name in ("PROBABILITIES", "STATUS"):
        np.testing.assert_array_equal(compressed.as_numpy(name), plain.as_numpy(name))


@by_every_client
def test_classification(triton: Face) -> None:
    result = triton.infer(
        "tiny",
        [triton.waveform([1, 2]), triton.frames([1, 2])],
        outputs=[triton.output("PROBABILITIES", class_count=2), triton.output("LOGITS")],
    )
    top = texts(result.as_numpy("PROBABILITIES"))
    assert [len(row) for row in top] == [2, 2]
    assert [row[0].split(":")[1:] for row in top] == [["1", "green"], ["2", "blue"]]
    assert float(top[0][0].split(":")[0]) == pytest.approx(softmax(result.as_numpy("LOGITS"))[0, 1], abs=1e-6)


def test_a_timeout_that_is_ample_changes_nothing(triton: Face) -> None:
    for how in ({"timeout": 5_000_000}, {"parameters": {"timeout_ms": 5000}}):
        assert triton.infer("tiny", [triton.frames([2])], **how).as_numpy("PROBABILITIES").argmax() == 2


# --- counting ---------------------------------------------------------------------------------------------------


@by_every_client
def test_statistics_rise_with_each_call(triton: Face, bundles: dict[str, Bundle]) -> None:
    def stats(**which: str) -> dict[str, dict]:
        answer = as_dict(triton.client.get_inference_statistics(**which))
        return {model["name"]: model for model in answer["model_stats"]}

    parts = ("audio", "fusion", "media", "visual")
    assert set(stats()) == {*bundles, *(f"{name}_{part}" for name in bundles for part in parts)}
    before = stats(model_name="tiny", model_version="1")["tiny"]
    triton.infer("tiny", [triton.frames([0, 1, 2])])
    triton.infer("tiny", [triton.frames([0])])
    with pytest.raises(Exception, match="unexpected inference input 'NOPE'"):
        triton.infer("tiny", [triton.tensor("NOPE", np.zeros((1, 1), np.float32))])
    after = stats(model_name="tiny")["tiny"]

    def risen(kind: str, what: str = "count") -> int:
        return int(after["inference_stats"][kind].get(what, 0)) - int(before["inference_stats"][kind].get(what, 0))

    assert after["inference_count"] - before.get("inference_count", 0) == 4
    assert after["execution_count"] - before.get("execution_count", 0) == 2
    assert risen("success") == risen("queue") == risen("compute_infer") == 2
    assert risen("fail") == 1
    stages = sum(risen(stage, "ns") for stage in ("queue", "compute_input", "compute_infer", "compute_output"))
    assert 0 < stages <= risen("success", "ns")
    assert 3 in [batch["batch_size"] for batch in after["batch_stats"]]


def test_hundreds_of_concurrent_calls_are_all_answered_by_their_own_rows(server: ServerProcess) -> None:
    async def run() -> None:
        async with (
            tritonclient.http.aio.InferenceServerClient(server.http) as over_http,
            tritonclient.grpc.aio.InferenceServerClient(server.grpc) as over_grpc,
        ):

            async def call(number: int) -> None:
                client, module = (
                    (over_http, tritonclient.http.aio) if number % 2 else (over_grpc, tritonclient.grpc.aio)
                )
                labels = [number % 3, (number // 3) % 3]
                tensor = module.InferInput("FRAMES", [2, *VISUAL.shape], "UINT8")
                tensor.set_data_from_numpy(frames(labels))
                result = await client.infer("tiny", [tensor], request_id=str(number))
                answer = result.get_response()
                assert (answer["id"] if number % 2 else answer.id) == str(number)
                assert result.as_numpy("PROBABILITIES").argmax(axis=1).tolist() == labels

            # As many at once as may wait; more would rightly be refused.
            for start in range(0, 300, 60):
                await asyncio.gather(*(call(number) for number in range(start, start + 60)))

    asyncio.run(run())


# --- calls that are not offered ---------------------------------------------------------------------------------


@by_every_client
@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ("get_trace_settings", ()),
        ("update_trace_settings", ("tiny",)),
        ("get_log_settings", ()),
        ("get_system_shared_memory_status", ()),
        ("register_system_shared_memory", ("region", "/key", 64)),
        ("unregister_system_shared_memory", ("region",)),
        ("get_cuda_shared_memory_status", ()),
        ("register_cuda_shared_memory", ("region", b"aGFuZGxl", 0, 64)),
        ("unregister_cuda_shared_memory", ()),
    ],
)
def test_calls_that_are_not_offered_say_so(triton: Face, call: str, arguments: tuple[object, ...]) -> None:
    with pytest.raises(Exception, match="not supported") as raised:
        getattr(triton.client, call)(*arguments)
    assert raised.value.status() == ("501" if triton.http else "StatusCode.UNIMPLEMENTED")


def test_a_stream_is_refused(server: ServerProcess) -> None:
    answers: queue.Queue[Exception | None] = queue.Queue()
    with face("grpc", server.http, server.grpc) as triton:
        triton.client.start_stream(callback=lambda result, error: answers.put(error))
        error = answers.get(timeout=10)
        triton.client.stop_stream()
    assert error is not None
    assert error.status() == "StatusCode.UNIMPLEMENTED"


def texts(array: np.ndarray) -> list:
    """Elements as text: over HTTP, JSON gives text where binary gives bytes."""
    return [[item.decode() if isinstance(item, bytes) else item for item in row] for row in array.tolist()]
