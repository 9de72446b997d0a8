"""Explanation of one answer: Shapley values by one masked fusion, and an occlusion curve by more encoder runs.

It comes after the answer, which it never changes or makes fail: where a model is late or fails, the explanation says
that it is not whole. Nothing of it is counted as an answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from time import perf_counter
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from dimml.bundle import Bundle
from dimml.engine import Encoded, Engine, EngineError
from dimml.ensemble import EnsembleResult
from dimml.explanation.occlusion import blanked_rows, count_stretches, steps_of
from dimml.explanation.shapley import coalitions, log_probability, shapley_values
from dimml.fusion import BoolArray, FloatArray
from dimml.prediction import Explanation, ModalityExplanation, Occlusion, OcclusionCurve, Stretch, WithoutAnswer

logger = logging.getLogger(__name__)

#: Rows of one encoder run of an occlusion: a run that the deadline cuts off is lost as a whole.
_BATCH: Final = 8
#: Left of the request's time for the answer.
_RESERVE_S: Final = 0.02


@dataclass
class Explainer:
    """Explains the one row of ``result``, until ``end`` on ``perf_counter``'s clock."""

    engine: Engine
    bundle: Bundle
    result: EnsembleResult
    end: float
    stopped: Literal["deadline", "failed"] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._probabilities_C = self.result.fused.probabilities_BC[0]
        self._answer = int(self._probabilities_C.argmax())
        self._ok = [index for index, m in enumerate(self.bundle.modalities) if self.result.statuses[m.name][0].ok]

    async def explain(
        self, tensors: Mapping[str, npt.NDArray[Any]], span_s: tuple[float, float] | None = None
    ) -> Explanation:
        """Compute the Shapley values and, with ``span_s``, the occlusion curve of that range of the media.

        ``tensors`` are the row's inputs ``[1, *shape]`` by modality.
        """
        began = perf_counter()
        modalities = await self._contributions()
        occlusion = None if span_s is None else await self._occlusion(tensors, *span_s)
        return Explanation(
            label=self.bundle.labels[self._answer],
            log_probability=float(log_probability(self._probabilities_C[self._answer])),
            nothing_log_probability=float(-np.log(self.bundle.classes)),
            modalities=modalities,
            occlusion=occlusion,
            stopped=self.stopped,
            explain_ms=round((perf_counter() - began) * 1000.0, 3),
        )

    async def _contributions(self) -> dict[str, ModalityExplanation]:
        names = [self.bundle.modalities[index].name for index in self._ok]
        chosen_SK = coalitions(len(names))
        probabilities_SC = np.full((len(chosen_SK), self.bundle.classes), 1.0 / self.bundle.classes)
        probabilities_SC[-1] = self._probabilities_C
        present_SM = np.zeros((len(chosen_SK), len(self.bundle.modalities)), np.bool_)
        present_SM[:, self._ok] = chosen_SK
        # Of nothing at all the worth is known, and of everything it is the answer's own.
        between_SM = present_SM[1:-1]
        try:
            async with asyncio.timeout(self._left_s()):
                if len(between_SM):
                    probabilities_SC[1:-1] = await self._fuse(self.result.features, self.result.logits, between_SM)
        except TimeoutError:
            self.stopped = "deadline"
        except Exception as error:
            self._failed(self.bundle.fusion_model, error)
        if self.stopped is not None:
            return {name: ModalityExplanation(shapley=None, without=None) for name in names}
        values_K = shapley_values(log_probability(probabilities_SC[:, self._answer]))
        everybody = len(chosen_SK) - 1
        return {
            name: ModalityExplanation(
                shapley=float(values_K[place]),
                without=self._without(probabilities_SC[everybody ^ 1 << place]) if len(names) > 1 else None,
            )
            for place, name in enumerate(names)
        }

    def _without(self, probabilities_C: npt.NDArray[np.float64]) -> WithoutAnswer:
        best = int(probabilities_C.argmax())
        return WithoutAnswer(label=self.bundle.labels[best], probability=min(1.0, float(probabilities_C[best])))

    async def _occlusion(self, tensors: Mapping[str, npt.NDArray[Any]], start_s: float, end_s: float) -> Occlusion:
        seconds = end_s - start_s
        count = count_stretches(seconds)
        bounds = [round(start_s + i * seconds / count, 6) for i in range(count + 1)]
        curves = {
            modality.name: _Curve(count)
            for index, modality in enumerate(self.bundle.modalities)
            if index in self._ok and modality.covers_time
        }
        if self.stopped is None:
            try:
                async with asyncio.timeout(self._left_s()), asyncio.TaskGroup() as group:
                    for name, curve in curves.items():
                        group.create_task(self._occlude(name, tensors[name][0], seconds, curve))
            except TimeoutError:
                self.stopped = "deadline"
        return Occlusion(
            stretches=[Stretch(start_s=a, end_s=b) for a, b in pairwise(bounds)],
            modalities={name: curve.as_answer() for name, curve in curves.items()},
        )

    async def _occlude(self, name: str, row: npt.NDArray[Any], seconds: float, curve: _Curve) -> None:
        """Fill in the curve of one modality, whose input is ``row`` ``[*shape]``, a batch after the other."""
        modality = self.bundle.encoder(name).modality
        stretches: dict[tuple[int, int], list[int]] = {}
        for index, steps in enumerate(steps_of(modality, seconds, len(curve.log_probability))):
            stretches.setdefault(steps, []).append(index)
        different = list(stretches)
        size = min(_BATCH, self.bundle.max_batch_size)
        try:
            for first in range(0, len(different), size):
                batch = different[first : first + size]
                rows = await asyncio.to_thread(blanked_rows, modality, row, batch)
                encoded = await self.engine.encode(self.bundle, name, rows)
                probabilities_BC = await self._fuse_in_place_of(name, encoded)
                for steps, probabilities_C in zip(batch, probabilities_BC, strict=True):
                    if not np.isfinite(probabilities_C).all():
                        self.stopped = "failed"
                        continue
                    for index in stretches[steps]:
                        curve.log_probability[index] = float(log_probability(probabilities_C[self._answer]))
                        curve.label[index] = self.bundle.labels[int(probabilities_C.argmax())]
        except Exception as error:
            self._failed(self.bundle.encoder_model(name), error)

    async def _fuse_in_place_of(self, name: str, encoded: Encoded) -> FloatArray:
        """Fuse rows of one modality with the other modalities as they are in the answer, ``[B, C]``."""
        batch = len(encoded.logits)
        present_BM = np.zeros((batch, len(self.bundle.modalities)), np.bool_)
        present_BM[:, self._ok] = True
        return await self._fuse(
            {**self.result.features, name: encoded.features}, {**self.result.logits, name: encoded.logits}, present_BM
        )

    async def _fuse(
        self, features: Mapping[str, FloatArray], logits: Mapping[str, FloatArray], present_BM: BoolArray
    ) -> FloatArray:
        """Fuse as the answer was fused; arrays of one row stand for that row in every one. Probabilities ``[B, C]``."""
        parts = []
        size = self.bundle.max_batch_size
        for first in range(0, len(present_BM), size):
            present = present_BM[first : first + size]
            fused = await self.engine.fuse(
                self.bundle, _rows_of(features, first, len(present)), _rows_of(logits, first, len(present)), present
            )
            parts.append(fused.probabilities_BC)
        return np.concatenate(parts)

    def _left_s(self) -> float:
        return self.end - _RESERVE_S - perf_counter()

    def _failed(self, model: str, error: Exception) -> None:
        if isinstance(error, EngineError):
            logger.warning("explanation, %s: %s", model, error)
        else:
            logger.error("explanation, %s", model, exc_info=error)
        self.stopped = "failed"


class _Curve:
    """The curve of one modality while it is being filled in."""

    def __init__(self, count: int) -> None:
        self.log_probability: list[float | None] = [None] * count
        self.label: list[str | None] = [None] * count

    def as_answer(self) -> OcclusionCurve:
        return OcclusionCurve(log_probability=self.log_probability, label=self.label)


def _rows_of(arrays: Mapping[str, FloatArray], first: int, count: int) -> dict[str, FloatArray]:
    """Return ``count`` rows from ``first`` on of every array; one of a single row has it repeated."""
    return {
        name: np.repeat(array, count, axis=0) if len(array) == 1 else array[first : first + count]
        for name, array in arrays.items()
    }
