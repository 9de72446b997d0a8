"""Calls that share runs: who runs with whom, each with its own rows, deadline and failure, and what is counted."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from dimml import ensemble
from dimml.bundle import Bundle
from dimml.contract import LOGITS, model_specs
from dimml.engine import EngineError
from dimml.errors import ConfigurationError
from dimml.status import Reason
from dimml_server.engines.batcher import Batcher, BatchLimits
from dimml_server.engines.onnxruntime import MOST_WAIT, OnnxRuntimeEngine
from dimml_server.engines.ort_session import ModelSession, Outputs
from dimml_server.local.predictor import LocalPredictor
from dimml_server.observability.metrics import Metrics
from dimml_server.settings.settings import load_settings
from support.tiny_bundle import NAN_SAMPLE, make_tiny_bundle, tiny_row
from support.tiny_media import tiny_clip
from support.waiting import wait_until_async

#: A sample that makes the model raise, as an operator does that cannot take it.
POISON = 0.25


class Held:
    """An ONNX Runtime session whose runs begin, and end once they are let go or asked to stop."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.let_go = threading.Event()
        self.rows: list[int] = []

    def run(self, outputs: Sequence[str], feeds: dict[str, npt.NDArray[Any]], options: Any) -> Any:
        (tensor,) = feeds.values()
        self.rows.append(len(tensor))
        while not self.let_go.wait(0.005):
            if options.terminate:
                raise RuntimeError("asked to stop")
        if (tensor == POISON).any():
            raise RuntimeError("poison")
        return self._session.run(outputs, feeds, options)


class Bench:
    """A batcher over the sound encoder of a tiny bundle, whose runs are held."""

    def __init__(self, folder: Path, limits: BatchLimits, max_stray_runs: int = 4) -> None:
        self.bundle = make_tiny_bundle(folder)
        spec = next(spec for spec in model_specs(self.bundle) if spec.name == "tiny_audio")
        self.session = ModelSession(
            self.bundle.model_file(folder, "tiny_audio"),
            spec,
            providers=["CPUExecutionProvider"],
            threads=1,
            concurrency=8,
            max_stray_runs=max_stray_runs,
        )
        self._tensor = self.bundle.encoder("audio").modality.tensor
        self.alone = self.session._session
        self.held = self.session._session = Held(self.alone)
        self.observed: list[tuple[int, int]] = []
        self.batcher = Batcher(self.session, limits, lambda rows, waits: self.observed.append((rows, len(waits))))

    def tensor(self, *labels: int) -> npt.NDArray[Any]:
        return np.stack([tiny_row(self.bundle.encoder("audio").modality, label) for label in labels])

    def call(self, tensor: npt.NDArray[Any], limit_s: float | None = None) -> asyncio.Task[Outputs]:
        async def within() -> Outputs:
            async with asyncio.timeout(limit_s):
                return await self.batcher.run({self._tensor: tensor})

        return asyncio.create_task(within())

    async def begun(self, runs: int) -> None:
        await wait_until_async(lambda: len(self.held.rows) == runs, limit_s=30.0)

    async def queued(self, calls: int) -> None:
        await wait_until_async(lambda: self.batcher.waiting == calls, limit_s=30.0)

    def same_as_alone(self, outputs: Outputs, tensor: npt.NDArray[Any]) -> None:
        expected = self.alone.run([LOGITS], {self._tensor: tensor})[0]
        assert outputs[LOGITS].shape == expected.shape
        np.testing.assert_allclose(outputs[LOGITS], expected, rtol=1e-5, atol=1e-5)


@pytest.fixture
def bench(tmp_path: Path) -> Callable[..., Bench]:
    return lambda *arguments, **named: Bench(tmp_path, *arguments, **named)


def play(scenario: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(60.0):
            await scenario()

    asyncio.run(limited())


def test_what_comes_during_a_run_is_the_next_one_and_each_gets_its_own_rows(bench: Callable[..., Bench]) -> None:
    async def scenario() -> None:
        it = bench(BatchLimits(rows=8))
        tensors = [it.tensor(0), it.tensor(1), it.tensor(2, 0), it.tensor(1, 1, 2)]
        first = it.call(tensors[0])
        await it.begun(1)
        later = [it.call(tensor) for tensor in tensors[1:]]
        await it.queued(3)
        it.held.let_go.set()
        for outputs, tensor in zip(await asyncio.gather(first, *later), tensors, strict=True):
            it.same_as_alone(outputs, tensor)
        assert it.held.rows == [1, 6]
        assert it.observed == [(1, 1), (6, 3)]

    play(scenario)


@pytest.mark.parametrize(
    ("calls", "runs"),
    [
        ([2, 2, 1], [4, 1]),
        # The third would fit beside the first and does not overtake the second.
        ([3, 2, 1], [3, 3]),
        # More rows than a run may have, as a caller sent them.
        ([1, 9, 1], [1, 9, 1]),
        ([1] * 9, [4, 4, 1]),
    ],
)
def test_runs_are_in_the_order_of_the_calls_and_bounded(
    bench: Callable[..., Bench], calls: list[int], runs: list[int]
) -> None:
    async def scenario() -> None:
        it = bench(BatchLimits(rows=4))
        ended: list[int] = []
        first = it.call(it.tensor(0))
        await it.begun(1)
        later = [it.call(it.tensor(*[1] * rows)) for rows in calls]
        for number, call in enumerate(later):
            call.add_done_callback(lambda _, number=number: ended.append(number))
        await it.queued(len(calls))
        it.held.let_go.set()
        await asyncio.gather(first, *later)
        assert it.held.rows == [1, *runs]
        assert ended == sorted(ended)

    play(scenario)


def test_an_idle_model_waits_for_others_only_as_long_as_it_is_told(bench: Callable[..., Bench]) -> None:
    async def scenario() -> None:
        it = bench(BatchLimits(rows=2, wait_s=3600.0))
        it.held.let_go.set()
        first = it.call(it.tensor(0))
        await it.queued(1)
        await asyncio.gather(first, it.call(it.tensor(1)))
        assert it.held.rows == [2]  # Full, so that nothing more was waited for.
        it = bench(BatchLimits(rows=2, wait_s=0.01))
        it.held.let_go.set()
        await it.call(it.tensor(0))
        assert it.held.rows == [1]
        it = bench(BatchLimits(rows=2))
        call = it.call(it.tensor(0))
        await it.begun(1)
        it.held.let_go.set()
        await call

    play(scenario)


def test_a_call_whose_time_is_up_leaves_the_queue_and_the_others_run(bench: Callable[..., Bench]) -> None:
    async def scenario() -> None:
        it = bench(BatchLimits(rows=8))
        first = it.call(it.tensor(0))
        await it.begun(1)
        late, patient = it.call(it.tensor(1), limit_s=0.02), it.call(it.tensor(2))
        with pytest.raises(TimeoutError):
            await late
        assert it.batcher.waiting == 1
        assert it.session.stray_runs == 0
        it.held.let_go.set()
        await first
        it.same_as_alone(await patient, it.tensor(2))
        assert it.held.rows == [1, 1]

    play(scenario)


def test_a_call_that_leaves_a_shared_run_costs_the_others_nothing(bench: Callable[..., Bench]) -> None:
    async def scenario() -> None:
        it = bench(BatchLimits(rows=3, wait_s=3600.0))
        calls = [it.call(it.tensor(label)) for label in range(3)]
        await it.begun(1)
        calls[1].cancel()
        with pytest.raises(asyncio.CancelledError):
            await calls[1]
        assert it.session.stray_runs == 0  # Told nothing: two still want it.
        it.held.let_go.set()
        it.same_as_alone(await calls[0], it.tensor(0))
        it.same_as_alone(await calls[2], it.tensor(2))
        assert it.held.rows == [3]

    play(scenario)


def test_a_run_that_all_have_left_is_stopped_and_holds_nobody_up(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        it = bench(BatchLimits(rows=2, wait_s=3600.0), max_stray_runs=1)
        stopped: list[bool] = []
        original = it.held.run

        def deaf(outputs: Sequence[str], feeds: dict[str, Any], options: Any) -> Any:
            """The first run does not listen."""
            if not it.held.rows:
                it.held.rows.append(2)
                it.held.let_go.wait()
                stopped.append(options.terminate)
                raise RuntimeError("at last")
            return original(outputs, feeds, options)

        monkeypatch.setattr(it.held, "run", deaf)
        stuck = [it.call(it.tensor(0), limit_s=0.02), it.call(it.tensor(1), limit_s=0.02)]
        waiting = [it.call(it.tensor(2)), it.call(it.tensor(2))]
        for call in stuck:
            with pytest.raises(TimeoutError):
                await call
        # As many stray runs as there may be: those behind it are not left waiting for their deadlines.
        assert it.session.stray_runs == 1
        for call in waiting:
            with pytest.raises(EngineError) as busy:
                await call
            assert busy.value.reason is Reason.ENCODER_BUSY
        with pytest.raises(EngineError):
            await it.call(it.tensor(0))
        it.held.let_go.set()
        await wait_until_async(lambda: it.session.stray_runs == 0, limit_s=30.0)
        assert stopped == [True]
        await asyncio.gather(it.call(it.tensor(0)), it.call(it.tensor(1)))

    play(scenario)


def test_the_next_run_begins_while_a_stopped_one_is_still_going(bench: Callable[..., Bench]) -> None:
    async def scenario() -> None:
        it = bench(BatchLimits(rows=8), max_stray_runs=4)
        stuck = it.call(it.tensor(0))
        await it.begun(1)
        behind = it.call(it.tensor(1))
        await it.queued(1)
        stuck.cancel()
        await it.begun(2)
        it.held.let_go.set()
        it.same_as_alone(await behind, it.tensor(1))

    play(scenario)


def test_a_call_that_makes_the_run_fail_fails_alone(bench: Callable[..., Bench]) -> None:
    async def scenario() -> None:
        it = bench(BatchLimits(rows=4, wait_s=3600.0))
        it.held.let_go.set()
        poisoned = it.tensor(1)
        poisoned[0, 7] = POISON
        calls = [it.call(it.tensor(0)), it.call(poisoned), it.call(it.tensor(2, 1))]
        it.same_as_alone(await calls[0], it.tensor(0))
        with pytest.raises(EngineError) as failed:
            await calls[1]
        assert failed.value.reason is Reason.ENCODER_ERROR
        it.same_as_alone(await calls[2], it.tensor(2, 1))
        assert it.held.rows == [4, 1, 1, 2]

    play(scenario)


def test_calls_that_wait_as_a_model_is_unloaded_are_told(bench: Callable[..., Bench]) -> None:
    async def scenario() -> None:
        it = bench(BatchLimits(rows=8, wait_s=3600.0))
        call = it.call(it.tensor(0))
        await it.queued(1)
        it.batcher.close()
        with pytest.raises(EngineError) as gone:
            await call
        assert gone.value.reason is Reason.ENCODER_GONE

    play(scenario)


def requests_of(bundle: Bundle) -> list[ensemble.Rows]:
    """Requests of every kind: whole, without sound, silent in one row of two, with a NaN, without anything usable."""

    def request(*labels: int, without: str = "") -> dict[str, npt.NDArray[Any]]:
        return {
            m.name: np.stack([tiny_row(m, label) for label in labels]) for m in bundle.modalities if m.name != without
        }

    silent = request(1, 2)
    silent["audio"][1] = 0.0
    not_finite = request(0, 1)
    not_finite["audio"][0, 5] = NAN_SAMPLE
    dark = request(2)
    dark["audio"][:], dark["visual"][:] = 0.0, 0
    made = [request(0), request(1, without="audio"), silent, not_finite, dark, request(2, 0, 1), request(2)]
    return [ensemble.judged(bundle, tensors, len(next(iter(tensors.values())))) for tensors in made]


def run_all(
    folder: Path, bundle: Bundle, limits: BatchLimits | None, seen: list[tuple[str, int, int]]
) -> list[ensemble.EnsembleResult]:
    def observe(of: Bundle, modality: str, rows: int, waits_s: Sequence[float]) -> None:
        assert of == bundle
        assert all(wait_s >= 0.0 for wait_s in waits_s)
        seen.append((modality, rows, len(waits_s)))

    async def scenario() -> list[ensemble.EnsembleResult]:
        engine = OnnxRuntimeEngine(
            concurrency=16, device="cpu", intra_op_threads=1, batches=limits, on_batch=observe, keep_rows=4
        )
        await engine.load(bundle, folder)
        try:
            calls = (ensemble.run(engine, bundle, rows, timeout_s=30.0) for rows in requests_of(bundle))
            return list(await asyncio.gather(*calls))
        finally:
            await engine.close()

    return asyncio.run(scenario())


def test_requests_that_share_runs_have_the_answers_statuses_and_masks_they_have_alone(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path, nan="audio", deadline_ms=20_000)
    seen: list[tuple[str, int, int]] = []
    alone = run_all(tmp_path, bundle, None, seen)
    assert seen == []
    # Usable rows: of sound 1+0+1+2+0+3+1, of pictures 1+1+2+2+0+3+1. Full at 8, 10 only after the wait.
    shared = run_all(tmp_path, bundle, BatchLimits(rows=10, wait_s=0.05), seen)
    assert ("audio", 8, 5) in seen
    assert ("visual", 10, 6) in seen
    for one, other in zip(shared, alone, strict=True):
        assert one.statuses == other.statuses
        np.testing.assert_allclose(one.fused.logits_BC, other.fused.logits_BC, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(one.fused.weights_BH, other.fused.weights_BH, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(one.logits["audio"], other.logits["audio"], rtol=1e-5, atol=1e-5)
    assert [str(status) for status in shared[3].statuses["audio"]] == ["failed:non_finite", "ok"]
    assert [str(status) for status in shared[2].statuses["audio"]] == ["ok", "unusable:silent"]
    assert not shared[4].fused.weights_BH.any()


def test_each_request_keeps_its_own_deadline(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path, stall="visual", deadline_ms=20_000)
    tensors = {m.name: np.stack([tiny_row(m, 2)]) for m in bundle.modalities}

    async def scenario() -> None:
        engine = OnnxRuntimeEngine(
            concurrency=4, device="cpu", intra_op_threads=1, batches=BatchLimits(rows=2, wait_s=5.0)
        )
        await engine.load(bundle, tmp_path)
        # Both are in one run of the stalled encoder; the first has 50 ms for it.
        rows = ensemble.judged(bundle, tensors, 1)
        hasty, patient = (
            asyncio.create_task(ensemble.run(engine, bundle, rows, timeout_s=60.0, deadlines_s=deadlines_s))
            for deadlines_s in ({"visual": 0.05}, {"visual": 50.0})
        )
        result = await hasty
        assert str(result.statuses["visual"][0]) == "timeout:deadline"
        assert result.statuses["audio"][0].ok
        assert result.fused.probabilities_BC[0].argmax() == 2
        assert engine.stray_runs == 0
        assert not patient.done()
        patient.cancel()
        with pytest.raises(asyncio.CancelledError):
            await patient
        await wait_until_async(lambda: engine.stray_runs == 0, limit_s=30.0)
        await engine.close()

    asyncio.run(scenario())


def test_limits_are_those_of_the_bundle_too(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path, deadline_ms=400, max_batch_size=3)

    async def limits_of(limits: BatchLimits) -> list[BatchLimits]:
        engine = OnnxRuntimeEngine(concurrency=1, device="cpu", intra_op_threads=1, batches=limits)
        await engine.load(bundle, tmp_path)
        await engine.close()
        return [batcher._limits for batcher in engine._batchers.values()]

    assert asyncio.run(limits_of(BatchLimits(rows=64, wait_s=0.9))) == [BatchLimits(3, MOST_WAIT * 0.4)] * 2
    assert asyncio.run(limits_of(BatchLimits(rows=2, wait_s=0.01))) == [BatchLimits(2, 0.01)] * 2
    assert asyncio.run(limits_of(BatchLimits(rows=1, wait_s=0.9))) == []


def test_batches_and_waits_are_counted_and_add_up_to_the_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A local predictor, which is wired as a server is: eight threads, sixteen recordings."""
    make_tiny_bundle(tmp_path / "models")
    clips = [tiny_clip(tmp_path, label) for label in range(2)]
    made: list[Metrics] = []
    original = Metrics.__init__

    def kept(self: Metrics, *arguments: Any) -> None:
        original(self, *arguments)
        made.append(self)

    monkeypatch.setattr(Metrics, "__init__", kept)
    settings = {"decode_workers": 1, "concurrency": 8, "batch_rows": 4, "batch_wait_ms": 20.0}
    with LocalPredictor(tmp_path / "models", **settings) as predictor, ThreadPoolExecutor(8) as threads:
        labels = list(threads.map(lambda number: predictor.predict(clips[number % 2]).label, range(16)))
        (metrics,) = made
        text = metrics.exposition().decode()
    assert labels == ["red", "green"] * 8
    value = metrics.registry.get_sample_value
    for modality in ("audio", "visual"):
        mine = {"model": "tiny", "version": "1", "modality": modality}
        assert value("dimml_batch_rows_sum", mine) == 16.0
        assert value("dimml_batch_wait_seconds_count", mine) == 16.0
        assert 4.0 <= (value("dimml_batch_rows_count", mine) or 0.0) <= 16.0
        assert value("dimml_batch_rows_bucket", {**mine, "le": "4.0"}) == value("dimml_batch_rows_count", mine)
    assert 'dimml_batch_rows_bucket{le="1.0",modality="audio"' in text


def test_settings_are_checked() -> None:
    assert load_settings().batch_rows == 1
    for wrong in ({"batch_rows": 0}, {"batch_rows": 1025}, {"batch_wait_ms": -1.0}, {"batch_wait_ms": 1001.0}):
        with pytest.raises(ConfigurationError, match=next(iter(wrong))):
            load_settings(**wrong)
