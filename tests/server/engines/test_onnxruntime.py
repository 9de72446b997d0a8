"""The local engine over real ONNX models: right answers, faults by reason, and stalls that stay bounded."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from dimml import ensemble, fusion
from dimml.bundle import Bundle, ReducedPrecision
from dimml.contract import ModelSpec, TensorSpec
from dimml.engine import EngineError
from dimml.errors import BundleError, ConfigurationError, DeadlineExceededError, UnavailableError
from dimml.status import Reason
from dimml_server.engines.onnxruntime import OnnxRuntimeEngine
from dimml_server.engines.ort_session import ModelSession, Outputs, providers
from dimml_server.shadow.process import ShadowProcess
from support.tiny_bundle import NAN_SAMPLE, make_tiny_bundle, tiny_row
from support.waiting import wait_until_async


def rows_of(bundle: Bundle, labels: list[int]) -> ensemble.Rows:
    tensors = {m.name: np.stack([tiny_row(m, label) for label in labels]) for m in bundle.modalities}
    return ensemble.judged(bundle, tensors, len(labels))


def run_once(repository: Path, bundle: Bundle, rows: ensemble.Rows) -> ensemble.EnsembleResult:
    async def scenario() -> ensemble.EnsembleResult:
        engine = OnnxRuntimeEngine(concurrency=2)
        await engine.load(bundle, repository)
        try:
            return await ensemble.run(engine, bundle, rows, timeout_s=10.0)
        finally:
            await engine.close()

    return asyncio.run(scenario())


def test_answers_equal_fusion_in_numpy(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path)
    result = run_once(tmp_path, bundle, rows_of(bundle, [0, 1, 2]))
    assert result.fused.probabilities_BC.argmax(axis=1).tolist() == [0, 1, 2]
    assert all(status.ok for column in result.statuses.values() for status in column)
    fused_logits = result.fused.logits_BC
    own = np.stack([result.logits["audio"], result.logits["visual"]], axis=1)
    # The tiny bundle's fused head is the mean of the two others.
    expected = fusion.fuse(
        np.concatenate([own, own.mean(axis=1, keepdims=True)], axis=1).astype(np.float32), np.ones((3, 3), np.bool_)
    )
    np.testing.assert_allclose(fused_logits, expected.logits_BC, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(result.fused.weights_BH, expected.weights_BH, rtol=1e-4, atol=1e-4)


def test_a_raising_encoder_and_a_nan_leave_the_others(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path, raises="visual")
    result = run_once(tmp_path, bundle, rows_of(bundle, [1]))
    assert str(result.statuses["visual"][0]) == "failed:encoder_error"
    assert result.fused.probabilities_BC[0].argmax() == 1
    bundle = make_tiny_bundle(tmp_path, nan="audio")
    rows = rows_of(bundle, [1, 2])
    rows.tensors["audio"][1, 5] = NAN_SAMPLE
    result = run_once(tmp_path, bundle, rows)
    assert [str(s) for s in result.statuses["audio"]] == ["ok", "failed:non_finite"]
    assert result.fused.probabilities_BC.argmax(axis=1).tolist() == [1, 2]
    assert np.isfinite(result.fused.logits_BC).all()


@pytest.mark.parametrize("missing", [(), ("audio",)])
def test_a_request_runs_as_one_as_its_calls_do_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: tuple[str, ...]
) -> None:
    bundle = make_tiny_bundle(tmp_path)
    rows = rows_of(bundle, [0, 2])
    for name in missing:
        del rows.tensors[name]  # type: ignore[attr-defined]
    rows = ensemble.judged(bundle, rows.tensors, 2)
    with monkeypatch.context() as alone:
        alone.setattr(OnnxRuntimeEngine, "fuse", None)  # Nothing calls it.
        alone.setattr(OnnxRuntimeEngine, "encode", None)
        at_once = run_once(tmp_path, bundle, rows)
    monkeypatch.setattr(OnnxRuntimeEngine, "together", None)
    one_by_one = run_once(tmp_path, bundle, rows)
    np.testing.assert_array_equal(at_once.fused.logits_BC, one_by_one.fused.logits_BC)
    np.testing.assert_array_equal(at_once.fused.weights_BH, one_by_one.fused.weights_BH)
    np.testing.assert_array_equal(at_once.own["visual"], one_by_one.own["visual"])
    assert at_once.statuses == one_by_one.statuses
    assert list(at_once.logits) == list(one_by_one.logits)
    for result in (at_once, one_by_one):
        assert [name for name, seconds in result.encode_s.items() if seconds == 0.0] == list(missing)
        assert result.fuse_s > 0.0


@pytest.mark.parametrize("where", ["fusion_tensors", "encoder"])
def test_an_error_in_a_thread_is_heard_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    bundle = make_tiny_bundle(tmp_path)

    def broken(*arguments: object, **named: object) -> None:
        raise MemoryError("no room")

    if where == "fusion_tensors":
        monkeypatch.setattr("dimml_server.engines.together.fused_from", broken)
        with pytest.raises(UnavailableError):
            run_once(tmp_path, bundle, rows_of(bundle, [1]))
    else:
        monkeypatch.setattr("dimml_server.engines.together.Encoded", broken)
        result = run_once(tmp_path, bundle, rows_of(bundle, [1]))
        assert {str(column[0]) for column in result.statuses.values()} == {"failed:encoder_error"}


def test_an_encoder_s_time_is_its_own_where_another_is_late(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path, stall="visual")
    result = run_once(tmp_path, bundle, rows_of(bundle, [2]))
    assert str(result.statuses["visual"][0]) == "timeout:deadline"
    assert result.encode_s["audio"] < 0.5 * result.encode_s["visual"]


def test_cancelling_a_request_stops_its_runs(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path, stall="visual")

    async def scenario() -> None:
        engine = OnnxRuntimeEngine(concurrency=1, intra_op_threads=1)
        await engine.load(bundle, tmp_path)
        request = asyncio.create_task(ensemble.run(engine, bundle, rows_of(bundle, [2]), timeout_s=60.0))
        await asyncio.sleep(0.05)  # For the runs to be under way, of which their threads give no sign.
        assert engine.stray_runs == 0
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        assert engine.stray_runs == 1
        await wait_until_async(lambda: engine.stray_runs == 0, limit_s=2.0)
        await engine.close()

    asyncio.run(scenario())


class FusionHeldUp(OnnxRuntimeEngine):
    """A local engine whose fusion begins and does not end until it is let go."""

    def __init__(self) -> None:
        super().__init__(concurrency=1, intra_op_threads=1)
        self.let_go = threading.Event()

    async def load(self, bundle: Bundle, repository: Path, *, must_run: bool = True) -> None:
        await super().load(bundle, repository)
        session = self._sessions[bundle.fusion_model, bundle.version]._session
        self._sessions[bundle.fusion_model, bundle.version]._session = SimpleNamespace(
            run=lambda *arguments: self.let_go.wait() and session.run(*arguments)
        )


def test_a_fusion_that_does_not_end_is_late_for_its_request_alone(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path)

    async def scenario() -> None:
        engine = FusionHeldUp()
        await engine.load(bundle, tmp_path)
        rows = rows_of(bundle, [1])
        with pytest.raises(DeadlineExceededError):
            await ensemble.run(engine, bundle, rows, timeout_s=0.2)
        assert engine.stray_runs == 1
        engine.let_go.set()
        await wait_until_async(lambda: engine.stray_runs == 0, limit_s=2.0)
        result = await ensemble.run(engine, bundle, rows, timeout_s=10.0)
        assert result.fused.probabilities_BC[0].argmax() == 1
        await engine.close()

    asyncio.run(scenario())


def test_stalled_runs_are_stopped_and_bounded_and_threads_stay_flat(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path, stall="visual", deadline_ms=100)
    # A busy machine may take longer for the one that does not stall.
    audio, visual = bundle.encoders
    bundle = bundle.model_copy(update={"encoders": (audio.model_copy(update={"deadline_ms": 2000.0}), visual)})
    concurrency, max_stray_runs, requests = 4, 4, 60
    before = threading.active_count()  # Other tests have run in this process.

    async def scenario() -> None:
        engine = OnnxRuntimeEngine(concurrency=concurrency, max_stray_runs=max_stray_runs, intra_op_threads=1)
        await engine.load(bundle, tmp_path)
        gate, rows = asyncio.Semaphore(concurrency), rows_of(bundle, [2])
        fates: Counter[str] = Counter()
        threads = []

        async def request() -> None:
            async with gate:
                result = await ensemble.run(engine, bundle, rows, timeout_s=5.0)
                assert result.statuses["audio"][0].ok
                assert result.fused.probabilities_BC[0].argmax() == 2
                fates[str(result.statuses["visual"][0])] += 1
                threads.append(threading.active_count())

        await asyncio.gather(*(request() for _ in range(requests)))
        assert sum(fates.values()) == requests
        assert set(fates) <= {"timeout:deadline", "failed:encoder_busy"}
        assert fates["timeout:deadline"] >= concurrency
        # The one that loaded the files, and for each model as many as can be of use.
        assert max(threads) <= before + 1 + 3 * concurrency + max_stray_runs
        await wait_until_async(lambda: engine.stray_runs == 0, limit_s=0.5)
        await engine.close()

    asyncio.run(scenario())


def test_past_the_bound_of_stray_runs_the_modality_fails_at_once(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path, stall="visual", deadline_ms=100)
    tensor = rows_of(bundle, [0]).tensors["visual"]

    async def scenario() -> None:
        engine = OnnxRuntimeEngine(concurrency=3, max_stray_runs=2, intra_op_threads=1)
        await engine.load(bundle, tmp_path)
        runs = [asyncio.create_task(engine.encode(bundle, "visual", tensor)) for _ in range(3)]
        await asyncio.sleep(0.05)  # For the runs to be under way, of which their threads give no sign.
        for run in runs:
            run.cancel()
        await asyncio.gather(*runs, return_exceptions=True)
        # The runs have been told to stop, but no thread has reported back to this loop yet.
        with pytest.raises(EngineError) as busy:
            await engine.encode(bundle, "visual", tensor)
        assert busy.value.reason is Reason.ENCODER_BUSY
        await engine.close()

    asyncio.run(scenario())


class EncoderHeldUp(OnnxRuntimeEngine):
    """A local engine whose picture encoder begins and does not end until it is let go, whatever it is asked."""

    def __init__(self) -> None:
        super().__init__(concurrency=2, max_stray_runs=9, intra_op_threads=1, deadlines_s={"visual": 0.1})
        self.let_go = threading.Event()
        self.runs = 0

    async def load(self, bundle: Bundle, repository: Path, *, must_run: bool = True) -> None:
        await super().load(bundle, repository)
        made = self._sessions[bundle.encoder_model("visual"), bundle.version]
        session = made._session

        def held(outputs: list[str], feeds: dict[str, Any], _: Any) -> Any:
            self.runs += 1
            self.let_go.wait()
            return session.run(outputs, feeds)

        made._session = SimpleNamespace(run=held)


def test_behind_a_run_that_is_late_and_still_going_nothing_waits(tmp_path: Path) -> None:
    """Otherwise each of ``max_stray_runs`` requests in turn would await a deadline in vain, and hold up others."""
    bundle = make_tiny_bundle(tmp_path)

    async def scenario() -> None:
        engine = EncoderHeldUp()
        await engine.load(bundle, tmp_path)

        async def status() -> str:
            result = await ensemble.run(engine, bundle, rows_of(bundle, [1]), timeout_s=30, deadlines_s={"visual": 0.1})
            assert result.fused.probabilities_BC[0].argmax() == 1, "by the sound"
            return str(result.statuses["visual"][0])

        assert await status() == "timeout:deadline"
        assert [await status() for _ in range(3)] == ["failed:encoder_busy"] * 3
        assert engine.runs == 1
        engine.let_go.set()
        await wait_until_async(lambda: engine.stray_runs == 0, limit_s=30.0)
        assert await status() == "ok"
        await engine.close()

    asyncio.run(scenario())


def test_a_bundle_that_is_not_loaded_is_gone(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path)

    async def scenario() -> None:
        engine = OnnxRuntimeEngine(concurrency=1)
        with pytest.raises(EngineError) as gone:
            await engine.encode(bundle, "audio", rows_of(bundle, [0]).tensors["audio"])
        assert gone.value.reason is Reason.ENCODER_GONE

    asyncio.run(scenario())


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path)
    bundle.model_file(tmp_path, "tiny_audio").write_bytes(b"not a model")
    with pytest.raises(BundleError, match="tiny_audio"):
        asyncio.run(OnnxRuntimeEngine(concurrency=1).load(bundle, tmp_path))


def test_a_device_that_is_not_there_is_named() -> None:
    assert providers("cpu") == ["CPUExecutionProvider"]
    for device in ("tensorrt", "cuda:1"):
        with pytest.raises(ConfigurationError, match="--device cpu"):
            providers(device)
    for device in ("gpu", "cuda:", "cuda:one", "cpu:0", "auto:1", "CUDA", "cuda:1 "):
        with pytest.raises(ConfigurationError, match=r"none of auto, cpu, cuda\[:N\]"):
            providers(device)


GPU_PROVIDERS = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]


def test_the_number_of_a_gpu_is_given_to_its_providers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = make_tiny_bundle(tmp_path)
    given: list[object] = []

    class Recorded(onnxruntime.InferenceSession):  # type: ignore[misc]  # untyped
        def __init__(self, path: object, options: object, providers: list[object]) -> None:
            given.append(providers)
            super().__init__(path, options, providers=["CPUExecutionProvider"])

        def get_providers(self) -> list[str]:
            return GPU_PROVIDERS

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: GPU_PROVIDERS)
    monkeypatch.setattr(onnxruntime, "InferenceSession", Recorded)
    gpu = {"device_id": "1"}
    for device, expected in {
        "cuda:1": [("CUDAExecutionProvider", gpu), "CPUExecutionProvider"],
        "tensorrt:1": [("TensorrtExecutionProvider", gpu), ("CUDAExecutionProvider", gpu), "CPUExecutionProvider"],
        "cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"],
        "auto": ["CUDAExecutionProvider", "CPUExecutionProvider"],
        "cpu": ["CPUExecutionProvider"],
    }.items():
        given.clear()
        engine = OnnxRuntimeEngine(concurrency=1, device=device)
        asyncio.run(engine.load(bundle, tmp_path))
        asyncio.run(engine.close())
        # Two encoders, and the fusion.
        assert sorted(given, key=str) == sorted([expected, expected, ["CPUExecutionProvider"]], key=str), device


@pytest.mark.filterwarnings("ignore:Specified provider 'CUDAExecutionProvider' is not in available provider names")
def test_a_gpu_that_onnx_runtime_cannot_use_is_an_error_where_it_was_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """ONNX Runtime itself falls back to the CPU: here for want of the provider, elsewhere for want of the GPU."""
    bundle = make_tiny_bundle(tmp_path)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: GPU_PROVIDERS)
    with pytest.raises(BundleError, match=r"cannot use CUDAExecutionProvider on GPU 7; .* CUDA_VISIBLE_DEVICES"):
        asyncio.run(OnnxRuntimeEngine(concurrency=1, device="cuda:7").load(bundle, tmp_path))
    engine = OnnxRuntimeEngine(concurrency=1, device="cuda")
    asyncio.run(engine.load(bundle, tmp_path))
    asyncio.run(engine.close())
    assert "tiny_audio runs with CPUExecutionProvider: ONNX Runtime cannot use CUDAExecutionProvider" in caplog.text


def test_a_shadow_s_process_takes_the_same_device(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path)
    process = ShadowProcess(bundle, tmp_path, device="cuda:1", intra_op_threads=1)
    try:
        with pytest.raises(ConfigurationError, match=r"device 'cuda:1': .* no CUDAExecutionProvider"):
            asyncio.run(process.start())
    finally:
        process.close()


@pytest.mark.parametrize(("instructions", "warned"), [((), True), (("AMX",), False), (None, False)])
def test_int8_on_a_processor_that_is_not_made_for_it_is_logged(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    instructions: tuple[str, ...] | None,
    warned: bool,
) -> None:
    monkeypatch.setattr("dimml_server.engines.onnxruntime.int8_instructions", lambda: instructions)
    bundle = make_tiny_bundle(tmp_path)
    reduced = ReducedPrecision(
        precision="int8",
        float_version=1,
        calibration_clips=8,
        layers={},
        left_in_float={},
        clips=8,
        before={},
        after={},
    )

    async def load(loaded: Bundle) -> None:
        engine = OnnxRuntimeEngine(concurrency=1, device="cpu")
        await engine.load(loaded, tmp_path)
        await engine.close()

    asyncio.run(load(bundle))
    assert "int8" not in caplog.text
    asyncio.run(load(bundle.model_copy(update={"reduced_precision": reduced})))
    assert ("has int8 encoders, and this processor has neither VNNI nor AMX" in caplog.text) is warned


def sums_of_products(path: Path, factors: int) -> ModelSpec:
    """A layer of unsigned activations and signed weights, all 127: a row of 255 gives 255 * 127 * ``factors``."""
    whole = np.float32(127 * factors)
    values = {
        "one": np.float32(1),
        "whole": whole,
        "zero": np.uint8(0),
        "weights": np.full((factors, 1), 127, np.int8),
        "signed_zero": np.int8(0),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["X", "one", "zero"], ["x"]),
        helper.make_node(
            "QLinearMatMul", ["x", "one", "zero", "weights", "one", "signed_zero", "whole", "zero"], ["y"]
        ),
        helper.make_node("DequantizeLinear", ["y", "whole", "zero"], ["Y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "sums",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["batch", factors])],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, ["batch", 1])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return ModelSpec("sums", "encoder", 8, (TensorSpec("X", "FP32", (factors,)),), (TensorSpec("Y", "FP32", (1,)),))


def test_sums_of_8_bit_products_are_right_on_every_processor(tmp_path: Path) -> None:
    """On x86 without VNNI they are only as ``exact_int8_sums`` is set; elsewhere this cannot fail."""
    spec = sums_of_products(tmp_path / "model.onnx", 64)

    async def scenario() -> Outputs:
        session = ModelSession(
            tmp_path / "model.onnx",
            spec,
            providers=["CPUExecutionProvider"],
            threads=1,
            concurrency=1,
            max_stray_runs=1,
        )
        return await session.run({"X": np.stack([np.full(64, 255, np.float32), np.full(64, 1, np.float32)])})

    np.testing.assert_array_equal(asyncio.run(scenario())["Y"], [[255 * 127 * 64], [127 * 64]])
