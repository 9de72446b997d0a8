"""Accuracy estimated without labels: the mean chance that the last answers have of being right.

An answer that is right with chance p adds p to the share that is right. The chance is the bundle's own estimate
(``accuracy_estimate``), or the answer's calibrated probability where it has none (Guo et al. 2017, ICML, on
calibration; Garg et al. 2022, ICLR, call its mean average confidence and show where it fails): as good on data like the
validation clips, and too high under damage, where heads are too sure (docs/evidence/labels.md).

Answers are kept apart by which modalities were present, since an answer without one is another classifier's.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

from dimml.modality import patterns_of

#: Between the names of modalities present, in the bundle's order; no name can hold it.
JOINT: Final = "+"


def pattern_of(present: Iterable[str]) -> str:
    """Name a pattern of modalities present, given in the bundle's order."""
    return JOINT.join(present)


def patterns(modalities: Sequence[str]) -> tuple[str, ...]:
    """List all patterns of at least one modality: ``2^M - 1``, the whole first."""
    return tuple(pattern_of(present) for present in patterns_of(modalities))


class SlidingMean:
    """Mean of the last ``window`` values."""

    __slots__ = ("_last",)

    def __init__(self, window: int) -> None:
        self._last: deque[float] = deque(maxlen=window)

    def add(self, value: float) -> None:
        """Add a value; a full window drops its oldest one."""
        self._last.append(value)

    def sum_and_count(self) -> tuple[float, int]:
        """Return the sum of the values kept, and how many they are: what several windows are merged by."""
        # Added up anew, which no rounding outlives: a running sum of additions and subtractions wanders off.
        return math.fsum(self._last), len(self._last)
