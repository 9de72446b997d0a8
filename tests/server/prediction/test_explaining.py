"""Explanations over a real engine: against predictions made one by one, within their time, and counted nowhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from itertools import permutations
from math import log
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from dimml import ensemble
from dimml.bundle import Bundle
from dimml.engine import Encoded, EngineError
from dimml.ensemble import EnsembleResult, Rows
from dimml.errors import InvalidParameterError
from dimml.fusion import BoolArray, FloatArray, Fused
from dimml.media.types import Decoded, DecodedTrack, DecodeRequest
from dimml.modality import Frames, Modality
from dimml.prediction import Explanation, Prediction
from dimml.status import OK, ModalityStatus, Reason
from dimml_server.engines.onnxruntime import OnnxRuntimeEngine
from dimml_server.observability.metrics import Metrics
from dimml_server.prediction.explaining import Explainer
from dimml_server.prediction.request import MediaPrediction
from dimml_server.prediction.service import PredictionService
from dimml_server.settings.settings import load_settings
from dimml_server.shadow.shadow import EngineRunner
from support.tiny_bundle import AUDIO, REAR, VISUAL, make_tiny_bundle, tiny_row

Tensors = dict[str, npt.NDArray[Any]]
THREE = (AUDIO, VISUAL, REAR)
SPAN_S = (1.0, 1.5)


class CountingEngine(OnnxRuntimeEngine):
    """A local engine that counts runs of single models; audio's encoder has its ``fault`` after ``good_runs`` of it."""

    def __init__(self) -> None:
        super().__init__(concurrency=1, intra_op_threads=1)
        self.encoded: list[str] = []
        self.fused: list[int] = []
        self.fault, self.good_runs = "", 0
        self.late_fusion = False

    async def encode(self, bundle: Bundle, modality: str, tensor: npt.NDArray[Any]) -> Encoded:
        self.encoded.append(modality)
        if self.fault and modality == "audio" and self.encoded.count("audio") > self.good_runs:
            if self.fault == "late":
                await asyncio.sleep(60.0)
            raise EngineError(Reason.ENCODER_ERROR, "broken for this test")
        return await super().encode(bundle, modality, tensor)

    async def fuse(
        self,
        bundle: Bundle,
        features: Mapping[str, FloatArray],
        logits: Mapping[str, FloatArray],
        present_BM: BoolArray,
    ) -> Fused:
        self.fused.append(len(present_BM))
        if self.late_fusion:
            await asyncio.sleep(60.0)
        return await super().fuse(bundle, features, logits, present_BM)


@asynccontextmanager
async def loaded(folder: Path, **options: Any) -> AsyncIterator[tuple[Bundle, CountingEngine]]:
    bundle, engine = make_tiny_bundle(folder, **options), CountingEngine()
    await engine.load(bundle, folder)
    engine.encoded.clear()
    try:
        yield bundle, engine
    finally:
        await engine.close()


def disagreeing(modalities: tuple[Modality, ...]) -> Tensors:
    """Rows of which each is a mix of two classes, so that no modality is certain and they do not agree."""
    rows = {}
    for index, modality in enumerate(modalities):
        one, other = (tiny_row(modality, label).astype(np.float32) for label in (index % 3, (index + 1) % 3))
        mix = 0.6 * one + 0.4 * other
        rows[modality.name] = (mix if modality.kind == "waveform" else np.rint(mix)).astype(modality.dtype)[None]
    return rows


async def served(engine: CountingEngine, bundle: Bundle, tensors: Tensors, present: frozenset[str]) -> EnsembleResult:
    """What is answered where only these modalities are there."""
    absent = ModalityStatus.because(Reason.NOT_SENT)
    statuses = {m.name: [OK if m.name in present else absent] for m in bundle.modalities}
    return await ensemble.run(engine, bundle, Rows(tensors, statuses), timeout_s=30.0)


async def explained(
    engine: CountingEngine, bundle: Bundle, tensors: Tensors, present: frozenset[str], **options: Any
) -> tuple[EnsembleResult, Explanation]:
    result = await served(engine, bundle, tensors, present)
    engine.encoded.clear()
    engine.fused.clear()
    engine.late_fusion = options.pop("late_fusion", False)
    end = perf_counter() + options.pop("timeout_s", 30.0)
    return result, await Explainer(engine, bundle, result, end).explain(tensors, **options)


@pytest.mark.parametrize("certainty", ["max_prob", "reliability"])
@pytest.mark.parametrize("present", [("audio",), ("audio", "rear"), ("audio", "visual", "rear")])
@pytest.mark.parametrize("max_batch_size", [2, 32])
def test_values_are_those_of_predictions_made_one_by_one(
    tmp_path: Path, present: tuple[str, ...], certainty: Any, max_batch_size: int
) -> None:
    async def scenario() -> None:
        options = {"modalities": THREE, "certainty": certainty, "max_batch_size": max_batch_size}
        async with loaded(tmp_path, **options) as (bundle, engine):
            tensors = disagreeing(THREE)
            result, explanation = await explained(engine, bundle, tensors, frozenset(present))
            assert engine.encoded == []
            rows = 2 ** len(present) - 2
            assert sum(engine.fused) == rows
            assert len(engine.fused) == -(-rows // max_batch_size)

            answer = int(result.fused.probabilities_BC[0].argmax())
            worth = {frozenset[str](): -log(3)}
            alone: dict[frozenset[str], npt.NDArray[np.float32]] = {}

            async def worth_of(names: tuple[str, ...]) -> float:
                key = frozenset(names)
                if key not in worth:
                    alone[key] = (await served(engine, bundle, tensors, key)).fused.probabilities_BC[0]
                    worth[key] = log(max(float(alone[key][answer]), 1e-12))
                return worth[key]

            added = dict.fromkeys(present, 0.0)
            orders = list(permutations(present))
            for order in orders:
                for place, name in enumerate(order):
                    added[name] += await worth_of(order[: place + 1]) - await worth_of(order[:place])
            assert list(explanation.modalities) == list(present)
            for name, one in explanation.modalities.items():
                assert one.shapley == pytest.approx(added[name] / len(orders), abs=2e-5)
                rest = frozenset(present) - {name}
                if rest:
                    assert one.without is not None
                    assert one.without.label == bundle.labels[int(alone[rest].argmax())]
                    assert one.without.probability == pytest.approx(float(alone[rest].max()), abs=1e-6)
                else:
                    assert one.without is None
            total = sum(one.shapley or 0.0 for one in explanation.modalities.values())
            assert total == pytest.approx(explanation.log_probability - explanation.nothing_log_probability, abs=1e-9)
            assert explanation.label == bundle.labels[answer]
            assert explanation.log_probability == pytest.approx(worth[frozenset(present)], abs=1e-6)
            assert (explanation.occlusion, explanation.stopped) == (None, None)

    asyncio.run(scenario())


def test_the_curve_is_that_of_predictions_with_a_stretch_blanked(tmp_path: Path) -> None:
    async def scenario() -> None:
        wide = Frames(name="visual", frames=3, height=16, width=16)
        async with loaded(tmp_path, modalities=(AUDIO, wide, REAR)) as (bundle, engine):
            tensors = disagreeing((AUDIO, wide, REAR))
            # One class is heard and seen first, then another.
            tensors["audio"][0, :1500] = tiny_row(AUDIO, 0)[:1500]
            tensors["audio"][0, 1500:] = tiny_row(AUDIO, 1)[1500:]
            tensors["visual"][0, 0] = tiny_row(wide, 2)[0]
            everybody = frozenset(tensors)
            result, explanation = await explained(engine, bundle, tensors, everybody, span_s=SPAN_S)
            # A single picture has no curve.
            assert engine.encoded.count("audio") == engine.encoded.count("visual") == 1
            assert "rear" not in engine.encoded
            occlusion = explanation.occlusion
            assert occlusion is not None
            assert [(s.start_s, s.end_s) for s in occlusion.stretches] == [
                (1.0, 1.1), (1.1, 1.2), (1.2, 1.3), (1.3, 1.4), (1.4, 1.5)
            ]  # fmt: skip
            assert list(occlusion.modalities) == ["audio", "visual"]
            answer = int(result.fused.probabilities_BC[0].argmax())
            blanks = {"audio": [slice(800 * k, 800 * (k + 1)) for k in range(5)]}
            blanks["visual"] = [slice(0, 1), slice(0, 2), slice(1, 2), slice(1, 3), slice(2, 3)]
            for name, curve in occlusion.modalities.items():
                for index, steps in enumerate(blanks[name]):
                    blanked = {n: tensor.copy() for n, tensor in tensors.items()}
                    blanked[name][0, steps] = 0 if name == "audio" else 128
                    there = (await served(engine, bundle, blanked, everybody)).fused.probabilities_BC[0]
                    assert curve.log_probability[index] == pytest.approx(log(float(there[answer])), abs=2e-5)
                    assert curve.label[index] == bundle.labels[int(there.argmax())]
                assert len({round(point or 0.0, 4) for point in curve.log_probability}) > 1

    asyncio.run(scenario())


@pytest.mark.parametrize(("fault", "stopped"), [("late", "deadline"), ("broken", "failed")])
def test_an_encoder_that_is_late_or_fails_costs_the_rest_of_its_curve_alone(
    tmp_path: Path, fault: str, stopped: str
) -> None:
    async def scenario() -> None:
        async with loaded(tmp_path, max_batch_size=2) as (bundle, engine):
            tensors = disagreeing((AUDIO, VISUAL))
            result = await served(engine, bundle, tensors, frozenset(tensors))
            engine.encoded.clear()
            engine.fault, engine.good_runs = fault, 1
            began = perf_counter()
            explanation = await Explainer(engine, bundle, result, began + 1.0).explain(tensors, SPAN_S)
            assert perf_counter() - began < 5.0
            assert explanation.stopped == stopped
            assert all(one.shapley is not None for one in explanation.modalities.values())
            assert explanation.occlusion is not None
            curves = explanation.occlusion.modalities
            assert [point is None for point in curves["audio"].log_probability] == [False, False, True, True, True]
            assert curves["audio"].label[2:] == [None] * 3
            assert fault == "late" or None not in curves["visual"].log_probability

    asyncio.run(scenario())


def test_a_fusion_that_is_late_leaves_no_values_and_no_curve_and_an_answer(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with loaded(tmp_path) as (bundle, engine):
            tensors = disagreeing((AUDIO, VISUAL))
            began = perf_counter()
            _, explanation = await explained(
                engine, bundle, tensors, frozenset(tensors), span_s=SPAN_S, timeout_s=0.2, late_fusion=True
            )
            assert perf_counter() - began < 5.0
            assert explanation.stopped == "deadline"
            assert [one.shapley for one in explanation.modalities.values()] == [None, None]
            assert explanation.occlusion is not None
            assert set(explanation.occlusion.modalities["audio"].log_probability) == {None}
            assert explanation.log_probability < 0.0

    asyncio.run(scenario())


class RowsDecoder:
    """Decodes every recording to the same rows, of half a second or, for an image, of no time."""

    workers_lost = 0
    workers_running = 0

    def __init__(self) -> None:
        self.span: tuple[float | None, float | None] = SPAN_S

    async def decode(self, request: DecodeRequest, *, timeout_s: float) -> Decoded:
        rows = disagreeing((AUDIO, VISUAL))
        tracks = {m.name: DecodedTrack(OK, rows[m.name][0]) for m in request.modalities}
        return Decoded(tracks, *self.span)

    def warm_up(self) -> None:
        pass

    def close(self) -> None:
        pass


class OneByOneEngine(CountingEngine):
    """An engine that is called for every model, also for the answer."""

    together = None  # type: ignore[assignment]


class Serving:
    """A service whose predictions can be asked for, and what its shadow was offered."""

    def __init__(self, repository: Path, **settings: Any) -> None:
        self.engine, self.decoder, self.metrics = OneByOneEngine(), RowsDecoder(), Metrics()
        self.service = PredictionService(
            self.engine,
            self.decoder,
            self.metrics,
            load_settings(repository=repository, **settings),
            shadow_runner=lambda bundle: EngineRunner(self.engine, bundle),
        )
        self.offered: list[Rows] = []
        self.service.traffic.shadows.offer = lambda bundle, rows, result: self.offered.append(rows)  # type: ignore[method-assign]

    async def predict(self, **fields: Any) -> Prediction:
        with self.service.hold(None, None, "key") as call:
            return await call.predict(MediaPrediction("id", {"media": b"a recording"}, **fields))

    def counted(self) -> dict[str, str]:
        """Every series of answers that is above 0; stages are of requests."""
        lines = self.metrics.exposition().decode().splitlines()
        names = ("dimml_modality", "dimml_predictions", "dimml_degraded", "dimml_disagreement", "dimml_label")
        series = [line.rsplit(" ", 1) for line in lines if line.startswith(names)]
        return {name: value for name, value in series if float(value)}

    def stages(self, stage: str) -> float:
        labels = {"model": "tiny", "version": "1", "stage": stage, "modality": ""}
        return self.metrics.registry.get_sample_value("dimml_stage_seconds_count", labels) or 0.0


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    make_tiny_bundle(folder)
    return folder


@asynccontextmanager
async def serving(repository: Path, **settings: Any) -> AsyncIterator[Serving]:
    it = Serving(repository, **settings)
    await it.service.start()
    it.engine.encoded.clear()
    try:
        yield it
    finally:
        await it.service.close()


def test_an_explanation_counts_as_one_answer_and_changes_nothing_of_it(repository: Path) -> None:
    async def scenario() -> None:
        async with serving(repository, explain="occlusion") as plain, serving(repository, explain="occlusion") as asked:
            without = await plain.predict()
            answer = await asked.predict(explain="occlusion")
            assert answer.explanation is not None
            assert without.explanation is None
            of_sets = {"set", "abstained", "abstained_reason"}
            assert without.not_asked_for == {"explanation", "damage"} | of_sets, "the bundle has no prediction sets"
            apart = {"timings_ms", "explanation"}
            assert answer.model_dump(exclude=apart) == without.model_dump(exclude=apart)
            assert (len(asked.engine.encoded), len(plain.engine.encoded)) == (4, 2)
            assert asked.counted() == plain.counted()
            assert len(asked.offered) == len(plain.offered) == 1
            assert (asked.stages("explain"), plain.stages("explain")) == (1.0, 0.0)
            assert (asked.stages("fuse"), plain.stages("fuse")) == (1.0, 1.0)

    asyncio.run(scenario())


def test_a_damaged_request_is_answered_and_counted_nowhere(repository: Path) -> None:
    async def scenario() -> None:
        async with serving(repository) as it:
            before = it.counted()
            clean = tiny_row(AUDIO, 0)
            damaged = await it.predict(damage="audio:noise:-20,visual:cover:1", explain="shapley", top_k=3)
            assert damaged.damage == {"audio": "noise:-20", "visual": "cover:1"}
            assert it.counted() == before
            assert it.offered == []
            again = await it.predict(damage="audio:noise:-20,visual:cover:1", explain="shapley", top_k=3)
            assert again.predictions == damaged.predictions
            plain = await it.predict(top_k=3)
            assert plain.predictions != damaged.predictions
            assert plain.damage is None
            assert it.counted() != before
            assert len(it.offered) == 1
            assert not np.array_equal(it.offered[0].tensors["audio"][0], clean)
            # Only what is there is damaged.
            one = await it.predict(damage="audio:noise:-20,visual:cover:1", modalities=["visual"])
            assert one.damage == {"visual": "cover:1"}

    asyncio.run(scenario())


def test_media_without_time_has_no_curve(repository: Path) -> None:
    async def scenario() -> None:
        async with serving(repository, explain="occlusion") as it:
            it.decoder.span = (None, None)
            answer = await it.predict(explain="occlusion")
            assert answer.explanation is not None
            assert answer.explanation.occlusion is None
            assert len(answer.explanation.modalities) == 2

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("settings", "fields", "field", "message"),
    [
        (
            {"explain": "off"},
            {"explain": "shapley"},
            "explain",
            "gives no shapley (its setting is explain=off); leave it",
        ),
        ({"explain": "off"}, {"explain": "occlusion"}, "explain", "leave it out, or have its operator set"),
        (
            {},
            {"explain": "occlusion"},
            "explain",
            "gives no occlusion (its setting is explain=shapley); ask for shapley",
        ),
        ({"what_if": False}, {"damage": "audio:noise:3"}, "damage", "what_if=false"),
        ({}, {"damage": "audio:blur:3"}, "damage", "'audio' takes noise"),
    ],
)
def test_what_the_settings_do_not_allow_is_refused_with_the_way_out(
    repository: Path, settings: dict[str, Any], fields: dict[str, Any], field: str, message: str
) -> None:
    async def scenario() -> None:
        async with serving(repository, **settings) as it:
            with pytest.raises(InvalidParameterError) as caught:
                await it.predict(**fields)
            assert message in caught.value.message
            assert caught.value.field == field
            with it.service.hold(None, None, "key") as call, pytest.raises(InvalidParameterError):
                call.check(MediaPrediction("id", {"media": b""}, **fields))
            assert it.engine.encoded == []
            assert (await it.predict()).label

    asyncio.run(scenario())


def test_more_modalities_than_can_be_explained_are_refused_and_a_choice_of_them_is_not(tmp_path: Path) -> None:
    names = [f"view{k}" for k in range(9)]
    views = tuple(Frames(name=name, tensor=name.upper(), frames=1, height=16, width=16) for name in names)
    bundle = make_tiny_bundle(tmp_path, modalities=views)
    asked = MediaPrediction("id", {"media": b""}, explain="shapley")
    with pytest.raises(
        InvalidParameterError, match="at most 8 modalities, and 9 are sent; choose some by 'modalities'"
    ):
        asked.check_explain(bundle, "shapley")
    MediaPrediction("id", {"media": b""}, explain="shapley", modalities=names[:8]).check_explain(bundle, "shapley")
    MediaPrediction("id", dict.fromkeys(names[:8], b""), explain="shapley").check_explain(bundle, "occlusion")
