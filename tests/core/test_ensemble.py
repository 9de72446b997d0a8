"""One prediction over a small real engine: fusion in numpy, encoders that answer, raise, stall or give NaN."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from dimml.bundle import Bundle
from dimml.engine import Encoded, EngineError
from dimml.ensemble import FUSION_RESERVE_S, EnsembleResult, Rows, judged, no_answer, run
from dimml.errors import DeadlineExceededError, UnavailableError, UnusableMediaError
from dimml.fusion import BoolArray, FloatArray, Fused, fuse, heads_present
from dimml.status import OK, ModalityStatus, Reason

BUNDLE = Bundle.model_validate(
    {
        "name": "toy",
        "version": 1,
        "labels": ["a", "b", "c"],
        "clip_s": 1.0,
        "encoders": [
            {
                "modality": {"kind": "waveform", "name": "audio", "sample_rate_hz": 1000, "samples": 8},
                "features": 3,
                "deadline_ms": 200,
            },
            {
                "modality": {"kind": "frames", "name": "visual", "frames": 2, "height": 8, "width": 8},
                "features": 3,
                "deadline_ms": 200,
            },
        ],
        "fusion": {"fused_head": False},
        "created": "",
        "dimml_version": "0",
    }
)
Behaviour = Callable[[npt.NDArray[Any]], Encoded]


class Clock(selectors.DefaultSelector):
    """The time of a loop that waits for nothing: where it would sleep, its clock goes forward, on any machine alike."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now_s += timeout or 0.0
        return super().select(0)

    def loop(self) -> asyncio.SelectorEventLoop:
        loop = asyncio.SelectorEventLoop(self)
        loop.time = lambda: self.now_s  # type: ignore[method-assign]
        return loop


def mean_encoder(tensor: npt.NDArray[Any]) -> Encoded:
    mean = tensor.reshape(len(tensor), -1).astype(np.float32).mean(axis=1)
    values = np.stack([mean, np.zeros_like(mean), -mean], axis=1)
    return Encoded(features=values, logits=values)


def raising(tensor: npt.NDArray[Any]) -> Encoded:
    raise EngineError(Reason.ENCODER_GONE, "unloaded")


def broken(tensor: npt.NDArray[Any]) -> Encoded:
    raise RuntimeError("not an engine error")


def nan_in_last_row(tensor: npt.NDArray[Any]) -> Encoded:
    encoded = mean_encoder(tensor)
    encoded.logits[-1, 0] = np.nan
    return encoded


class ScriptedEngine:
    """A real engine whose encoders are plain functions; None means it never answers."""

    def __init__(self, audio: Behaviour | None = mean_encoder, visual: Behaviour | None = mean_encoder) -> None:
        self.encoders = {"audio": audio, "visual": visual}
        self.batches: dict[str, int] = {}
        self.cancelled: list[str] = []
        self.fuse_delay_s = 0.0
        self.clock = Clock()

    async def encode(self, bundle: Bundle, modality: str, tensor: npt.NDArray[Any]) -> Encoded:
        self.batches[modality] = len(tensor)
        encoder = self.encoders[modality]
        if encoder is not None:
            return encoder(tensor)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.cancelled.append(modality)
            raise
        raise AssertionError

    async def fuse(
        self,
        bundle: Bundle,
        features: Mapping[str, FloatArray],
        logits: Mapping[str, FloatArray],
        present_BM: BoolArray,
    ) -> Fused:
        await asyncio.sleep(self.fuse_delay_s)
        stacked = np.stack([logits[m.name] for m in bundle.modalities], axis=1)
        return fuse(stacked, heads_present(present_BM, bundle.fusion.fused_head))


def inputs(batch: int) -> dict[str, npt.NDArray[Any]]:
    generator = np.random.default_rng(0)
    return {
        "audio": generator.uniform(0.1, 1, (batch, 8)).astype(np.float32),
        "visual": generator.integers(50, 250, (batch, 2, 8, 8, 3), dtype=np.uint8),
    }


def predict(engine: ScriptedEngine, rows: Rows, timeout_s: float = 5.0, **kwargs: Any) -> EnsembleResult:
    with asyncio.Runner(loop_factory=engine.clock.loop) as runner:
        return runner.run(run(engine, BUNDLE, rows, timeout_s=timeout_s, **kwargs))


@pytest.mark.parametrize(
    ("encoder", "reason"),
    [(raising, Reason.ENCODER_GONE), (broken, Reason.ENCODER_ERROR), (None, Reason.DEADLINE)],
)
def test_a_lost_encoder_costs_only_its_own_vote(encoder: Behaviour | None, reason: Reason) -> None:
    rows = judged(BUNDLE, inputs(2), 2)
    engine = ScriptedEngine(visual=encoder)
    result = predict(engine, rows)
    assert list(result.statuses["visual"]) == [ModalityStatus.because(reason)] * 2
    assert list(result.statuses["audio"]) == [OK, OK]
    np.testing.assert_array_equal(result.fused.weights_BH, [[1, 0], [1, 0]])
    np.testing.assert_allclose(result.fused.logits_BC, mean_encoder(rows.tensors["audio"]).logits, rtol=1e-6)
    assert engine.cancelled == (["visual"] if encoder is None else [])


def test_a_non_finite_row_fails_alone() -> None:
    result = predict(ScriptedEngine(audio=nan_in_last_row), judged(BUNDLE, inputs(3), 3))
    assert [str(s) for s in result.statuses["audio"]] == ["ok", "ok", "failed:non_finite"]
    assert result.fused.weights_BH[2].tolist() == [0.0, 1.0]
    assert np.isfinite(result.fused.probabilities_BC).all()


def test_mixed_presence_encodes_only_what_is_there() -> None:
    tensors = inputs(4)
    tensors["audio"][1] = 0.0
    tensors["visual"][2] = 0
    tensors["visual"][3, 1] = tensors["visual"][3, 0]
    engine = ScriptedEngine()
    result = predict(engine, judged(BUNDLE, tensors, 4))
    assert [str(s) for s in result.statuses["audio"]] == ["ok", "unusable:silent", "ok", "ok"]
    assert [str(s) for s in result.statuses["visual"]] == ["ok", "ok", "unusable:black", "unusable:frozen"]
    assert engine.batches == {"audio": 3, "visual": 2}
    alone = mean_encoder(tensors["visual"][1:2]).logits[0]
    np.testing.assert_allclose(result.fused.logits_BC[1], alone, rtol=1e-6)
    np.testing.assert_array_equal(result.logits["audio"][1], 0)


def test_a_modality_that_was_not_sent_is_absent() -> None:
    tensors = inputs(1)
    del tensors["visual"]
    result = predict(ScriptedEngine(), judged(BUNDLE, tensors, 1))
    assert str(result.statuses["visual"][0]) == "absent:not_sent"
    assert no_answer({name: column[0] for name, column in result.statuses.items()}) is None


def test_own_deadlines_override_the_bundles() -> None:
    engine = ScriptedEngine(audio=None)
    result = predict(engine, judged(BUNDLE, inputs(1), 1), deadlines_s={"audio": 0.02})
    assert engine.clock.now_s == pytest.approx(0.02, abs=1e-3)
    assert str(result.statuses["audio"][0]) == "timeout:deadline"


def test_the_requests_own_time_bounds_every_encoder() -> None:
    engine = ScriptedEngine(audio=None, visual=None)
    result = predict(engine, judged(BUNDLE, inputs(1), 1), timeout_s=0.1)
    statuses = {name: column[0] for name, column in result.statuses.items()}
    assert isinstance(no_answer(statuses), DeadlineExceededError)
    assert engine.clock.now_s == pytest.approx(0.1 - FUSION_RESERVE_S, abs=1e-3)
    assert sorted(engine.cancelled) == ["audio", "visual"]


def test_fusion_keeps_its_time_where_an_encoder_used_up_the_requests() -> None:
    def blocking(tensor: npt.NDArray[Any]) -> Encoded:
        engine.clock.now_s += 0.2
        return mean_encoder(tensor)

    engine = ScriptedEngine(visual=blocking)
    engine.fuse_delay_s = 0.01
    result = predict(engine, judged(BUNDLE, inputs(1), 1), timeout_s=0.15)
    assert str(result.statuses["audio"][0]) == "ok"


def test_late_fusion_is_the_requests_deadline() -> None:
    engine = ScriptedEngine()
    engine.fuse_delay_s = 5.0
    with pytest.raises(DeadlineExceededError, match="before fusion"):
        predict(engine, judged(BUNDLE, inputs(1), 1), timeout_s=0.2)


def test_where_nobody_answered_there_is_nothing_to_fuse_and_the_rows_are_the_fusions() -> None:
    engine = ScriptedEngine(audio=raising, visual=raising)
    engine.fuse_delay_s = 5.0
    result = predict(engine, judged(BUNDLE, inputs(2), 2), timeout_s=0.5)
    assert {str(status) for column in result.statuses.values() for status in column} == {"failed:encoder_gone"}
    nothing = fuse(np.zeros((2, 2, 3), np.float32), np.zeros((2, 2), np.bool_))
    for name in ("probabilities_BC", "logits_BC", "certainty_BH", "weights_BH"):
        np.testing.assert_array_equal(getattr(result.fused, name), getattr(nothing, name))


@pytest.mark.parametrize(
    ("audio", "visual", "error"),
    [
        (Reason.ENCODER_ERROR, Reason.NON_FINITE, UnavailableError),
        (Reason.ENCODER_ERROR, Reason.DEADLINE, UnavailableError),
        (Reason.DEADLINE, Reason.DEADLINE, DeadlineExceededError),
        (Reason.DEADLINE, Reason.NOT_SENT, DeadlineExceededError),
        (Reason.SILENT, Reason.ENCODER_BUSY, UnavailableError),
        (Reason.SILENT, Reason.NO_TRACK, UnusableMediaError),
        (Reason.NOT_SENT, Reason.NOT_REQUESTED, UnusableMediaError),
    ],
)
def test_what_to_say_when_nobody_answered(audio: Reason, visual: Reason, error: type[Exception]) -> None:
    statuses = {"audio": ModalityStatus.because(audio), "visual": ModalityStatus.because(visual)}
    raised = no_answer(statuses)
    assert isinstance(raised, error)
    assert audio.value in raised.message
    assert no_answer({**statuses, "audio": OK}) is None


def test_an_error_quotes_what_is_known_of_the_file() -> None:
    raised = no_answer(
        {"audio": ModalityStatus.because(Reason.UNSUPPORTED, "MIDI is not read: render it to WAV")}
        | {"visual": ModalityStatus.because(Reason.NO_TRACK)}
    )
    assert raised is not None
    assert raised.message.endswith(
        "audio unusable:unsupported, visual absent:no_track (MIDI is not read: render it to WAV)"
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
def test_what_a_caller_sent_that_is_not_finite_is_the_callers_fault(value: float) -> None:
    statuses = {"audio": ModalityStatus.because(Reason.NON_FINITE), "visual": ModalityStatus.because(Reason.NOT_SENT)}
    sound = np.zeros(8, np.float32)
    sound[3] = value
    raised = no_answer(statuses, {"audio": sound})
    assert isinstance(raised, UnusableMediaError)
    assert raised.field == "audio"
    assert raised.statuses == statuses
    # An encoder that makes NaN of finite numbers may answer next time.
    assert isinstance(no_answer(statuses, {"audio": np.zeros(8, np.float32)}), UnavailableError)
    finite = np.zeros(4, np.uint8)
    beside = [ModalityStatus.because(reason) for reason in (Reason.DEADLINE, Reason.ENCODER_GONE, Reason.BLACK)]
    own = [ModalityStatus.because(reason) for reason in (Reason.NON_FINITE, Reason.DEADLINE, Reason.ENCODER_ERROR)]
    for audio, visual in product(own, beside):
        raised = no_answer({"audio": audio, "visual": visual}, {"audio": sound, "visual": finite})
        assert isinstance(raised, UnusableMediaError), (audio, visual)
        assert raised.field == "audio"
    assert no_answer({"audio": own[0], "visual": OK}, {"audio": sound, "visual": finite}) is None
