"""Metrics of one data set from its cells: accuracies, regrets and differences, each with its interval.

Regret of a method under a condition is its accuracy minus that of the better single modality, trained alone; better
means better on the *validation* clips of the same condition and repeat. Shape suffixes as in ``bootstrap``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dimml_training.compare.bootstrap import (
    Estimate,
    FloatArray,
    ece_estimate,
    estimates,
    mean_estimate,
    resample_weights,
    sampled_estimate,
)
from dimml_training.compare.cells import Cell, ConditionRecord
from dimml_training.compare.methods import table_place
from dimml_training.config.corruption_suite import families_of

CLEAN = "clean"
SINGLE = "single:"
#: Stands in the names of trials, whose cells choose a setting and are no method's (``trials``).
TRIAL = "@"


@dataclass(frozen=True)
class Worst:
    """The condition with the lowest value, and that value."""

    condition: str
    estimate: Estimate


class Summary:
    """Metrics for the tables and plots of one data set.

    The cells of a method are pooled over its repeats; two methods are compared on the repeats that both have. Cells of
    another suite of conditions than that of the newest cell are left out and counted in ``outdated``. Families in
    ``contained`` are already in the clips, and count in no mean.
    """

    def __init__(self, cells: Sequence[Cell], contained: Collection[str] = ()) -> None:
        self.contained = frozenset(contained)
        #: Cells of trials, by name and repeat; they are no methods.
        self.trials: dict[str, dict[int, Cell]] = {}
        for cell in cells:
            if TRIAL in cell.method:
                self.trials.setdefault(cell.method, {})[cell.repeat] = cell
        cells = [cell for cell in cells if TRIAL not in cell.method] or cells
        newest = max(cells, key=lambda cell: cell.date)
        self.data = newest.data
        self.cells: dict[str, dict[int, Cell]] = {}
        for cell in sorted(cells, key=lambda cell: (table_place(cell.method), cell.repeat)):
            if cell.suite == newest.suite:
                self.cells.setdefault(cell.method, {})[cell.repeat] = cell
        self.outdated = sum(cell.suite != newest.suite for cell in cells)
        self._drawn: dict[tuple[str, ...], FloatArray] = {}

    @property
    def methods(self) -> list[str]:
        """Names of the methods that have a cell."""
        return list(self.cells)

    @cached_property
    def singles(self) -> list[str]:
        """The single modalities among the methods."""
        return [method for method in self.cells if method.startswith(SINGLE)]

    def conditions(self, *, seen: bool | None = None, in_means: bool | None = None) -> list[str]:
        """Names of the corrupted conditions that every cell has, without clean."""
        every = [cell.conditions for of_method in self.cells.values() for cell in of_method.values()]
        return [
            name
            for name, record in every[0].items()
            if name != CLEAN
            and (seen is None or record.seen == seen)
            and (in_means is None or self.counts(name, record) == in_means)
            and all(name in conditions for conditions in every)
        ]

    def counts(self, condition: str, record: ConditionRecord) -> bool:
        """Whether a condition is in the means."""
        return record.in_means and not self.contained & families_of(condition)

    def accuracy(self, method: str, conditions: Sequence[str]) -> Estimate:
        """Mean accuracy over conditions."""
        cells = list(self.cells[method].values())
        return mean_estimate(self._right(cells, conditions), self._weights(cells))

    def accuracies(self, method: str, conditions: Sequence[str]) -> dict[str, Estimate]:
        """Accuracy under each condition."""
        cells = list(self.cells[method].values())
        return dict(zip(conditions, estimates(self._right(cells, conditions), self._weights(cells)), strict=True))

    def record(self, condition: str) -> ConditionRecord:
        """Record of a condition from any cell, for its group and whether it is seen."""
        return next(iter(next(iter(self.cells.values())).values())).conditions[condition]

    def spread(self, method: str, condition: str = CLEAN) -> float:
        """Standard deviation of the accuracy over repeats; 0 with one repeat."""
        accuracies = [cell.conditions[condition].accuracy for cell in self.cells[method].values()]
        return float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else 0.0

    def mean(self, method: str, metric: Callable[[Cell], float]) -> float:
        """Mean over repeats of a metric of the cell."""
        return float(np.mean([metric(cell) for cell in self.cells[method].values()]))

    def sampled(self, method: str, value: float, metric: str) -> Estimate:
        """Estimate with mean ``value`` over repeats and the interval of their replicates of ``metric``.

        The bounds are NaN if a repeat has no replicates of it.
        """
        found = [cell.samples(metric) for cell in self.cells[method].values()]
        there = [samples_S for samples_S in found if samples_S is not None]
        return sampled_estimate(value, np.stack(there) if len(there) == len(found) else np.full((1, 1), np.nan))

    def ece(self, method: str) -> Estimate:
        """Calibration error of the clean answers, all repeats pooled."""
        cells = list(self.cells[method].values())
        confidence_P = np.concatenate([cell.confidences() for cell in cells])
        return ece_estimate(confidence_P, self._right(cells, [CLEAN])[0] > 0.0, self._weights(cells))

    def difference(self, method: str, other: str, conditions: Sequence[str]) -> Estimate | None:
        """Accuracy of a method minus another's, paired by clip; None if they share no repeat."""
        found = self.gap(method, other, conditions)
        return None if found is None else mean_estimate(*found)

    def gap(self, method: str, other: str, conditions: Sequence[str]) -> tuple[FloatArray, FloatArray] | None:
        """Differences averaged by ``difference``, by clip, ``[K, P]``, and the resampling of the clips, ``[S, P]``."""
        shared = self._shared(method, other)
        if not shared:
            return None
        ours, theirs = ([self.cells[name][repeat] for repeat in shared] for name in (method, other))
        return self._right(ours, conditions) - self._right(theirs, conditions), self._weights(ours)

    def both_right(
        self, method: str, other: str, conditions: Sequence[str]
    ) -> tuple[FloatArray, FloatArray, FloatArray] | None:
        """Right answers of two methods on their shared repeats, ``[K, P]`` each, and the resampling, ``[S, P]``."""
        shared = self._shared(method, other)
        if not shared:
            return None
        ours, theirs = ([self.cells[name][repeat] for repeat in shared] for name in (method, other))
        return self._right(ours, conditions), self._right(theirs, conditions), self._weights(ours)

    def regrets(self, method: str, conditions: Sequence[str]) -> dict[str, Estimate]:
        """Regret under each condition; empty if single modalities have not been run on the same repeats."""
        found = self.regret_gap(method, conditions)
        if found is None or not conditions:
            return {}
        return dict(zip(conditions, estimates(*found), strict=True))

    def mean_regret(self, method: str, conditions: Sequence[str]) -> Estimate | None:
        """Mean regret over conditions."""
        found = self.regret_gap(method, conditions)
        return None if found is None or not conditions else mean_estimate(*found)

    def worst_regret(self, method: str, conditions: Sequence[str]) -> Worst | None:
        """Condition with the lowest regret."""
        found = self.regrets(method, conditions)
        if not found:
            return None
        name = min(found, key=lambda condition: found[condition].value)
        return Worst(name, found[name])

    def better_single(self, repeat: int, condition: str) -> str:
        """Single modality that is better on the validation clips; a tie goes to the one better on clean clips."""

        def judged(single: str) -> tuple[float, float]:
            validation = self.cells[single][repeat].validation or {}
            return validation.get(condition, 0.0), validation.get(CLEAN, 0.0)

        return max(self.singles, key=judged)

    def regret_gap(self, method: str, conditions: Sequence[str]) -> tuple[FloatArray, FloatArray] | None:
        """Regrets by condition and clip, ``[K, P]``, and the resampling of the clips, ``[S, P]``.

        None if single modalities have not been run on the same repeats.
        """
        first = next(iter(self.cells[method].values()))
        if {f"{SINGLE}{name}" for name in first.modalities} - set(self.singles):
            return None  # compared with the only modality that was run, every method would look good
        shared = self._shared(method, *self.singles)
        if not shared:
            return None
        cells = [self.cells[method][repeat] for repeat in shared]
        better_KP = np.stack(
            [
                np.concatenate([_right(self.cells[self.better_single(repeat, c)][repeat], [c])[0] for repeat in shared])
                for c in conditions
            ]
        )
        return self._right(cells, conditions) - better_KP, self._weights(cells)

    def _right(self, cells: Sequence[Cell], conditions: Sequence[str]) -> FloatArray:
        """Share of draws that were answered correctly, ``[K, P]``."""
        return np.concatenate([_right(cell, conditions) for cell in cells], axis=1)

    def _weights(self, cells: Sequence[Cell]) -> FloatArray:
        key = tuple(cell.clip_lines for cell in cells)
        if key not in self._drawn:
            self._drawn[key] = resample_weights([cell.lines() for cell in cells])
        return self._drawn[key]

    def _shared(self, *methods: str) -> list[int]:
        """Repeats that all these methods have, with the same clips."""
        first = self.cells[methods[0]]
        return [
            repeat
            for repeat, cell in first.items()
            if all(repeat in self.cells[m] and self.cells[m][repeat].clip_lines == cell.clip_lines for m in methods[1:])
        ]


def _right(cell: Cell, conditions: Sequence[str]) -> FloatArray:
    return np.stack(
        [np.asarray(cell.conditions[c].right_by_draw(cell.clips).mean(axis=0), np.float64) for c in conditions]
    )
