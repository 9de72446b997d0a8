"""Drift of the served traffic from the validation data: a distance between histograms, over a sliding window.

The statistic is the Jensen-Shannon distance in bits: the square root of the Jensen-Shannon divergence with base 2 (Lin
1991, IEEE Trans. Inf. Theory 37(1)), which is a metric in [0, 1] (Endres and Schindelin 2003, IEEE Trans. Inf. Theory
49(7)). It is preferred to the population stability index, which is infinite where a bin is empty on one side only: a
confident model leaves most bins of its certainty empty, and the constant that would have to be put into them would
decide the value. The distance needs no constant, is bounded, and means the same for every head.

Two samples of one distribution are never at distance 0: the fewer clips, the larger the distance. So the distance is
reported together with what chance alone gives: to second order, n and m draws of one distribution over k bins have a
divergence of ``chi²(k-1) · (1/n + 1/m) / (8 ln 2)`` (Menéndez et al. 1997, J. Franklin Inst. 334B(2), on tests by this
divergence); its quantile is that of chi² by Wilson and Hilferty (1931, PNAS 17(12)).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Final

import numpy as np
import numpy.typing as npt

#: How often rows without any drift stay below the noise distance.
NOISE_QUANTILE: Final = 0.999


@dataclass(frozen=True)
class Drift:
    """``distance`` of a window from its reference, and the ``noise`` distance that chance alone rarely exceeds."""

    distance: float
    noise: float


@dataclass(frozen=True, slots=True)
class DriftWindow:
    """Number of most recent rows over which drift is computed, and the minimum number of rows needed."""

    rows: int = 500
    minimum: int = 100


class SlidingCounts:
    """Counts of the last ``window`` observations in each of ``bins`` bins."""

    def __init__(self, bins: int, window: int) -> None:
        self._last: deque[int] = deque(maxlen=window)
        self._counts_K = np.zeros(bins, np.int64)

    def add(self, bin_index: int) -> None:
        """Add an observation; a full window drops its oldest one."""
        if len(self._last) == self._last.maxlen:
            self._counts_K[self._last[0]] -= 1
        self._last.append(bin_index)
        self._counts_K[bin_index] += 1

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """The counts, ``[K]``."""
        return self._counts_K.copy()

    def drift(self, reference_K: Sequence[int], *, minimum: int) -> Drift | None:
        """Compute the drift from a reference's counts; None below ``minimum`` observations."""
        return drift_of(self.counts, reference_K, minimum=minimum)


def drift_of(counts_K: npt.NDArray[Any], reference_K: Sequence[int], *, minimum: int) -> Drift | None:
    """Compute the drift of counts from a reference's; None below ``minimum`` observations."""
    if counts_K.sum() < minimum:
        return None
    expected_K = np.asarray(reference_K, np.int64)
    return Drift(jensen_shannon_distance(counts_K, expected_K), noise_distance(counts_K, expected_K))


def jensen_shannon_distance(counts_K: npt.NDArray[Any], others_K: npt.NDArray[Any]) -> float:
    """Compute the square root of the Jensen-Shannon divergence, base 2, of two histograms with the same bins.

    It is 0 if their shares are equal, 1 if they have no bin in common. Neither may be empty.
    """
    p_K, q_K = counts_K / counts_K.sum(), others_K / others_K.sum()
    mean_K = (p_K + q_K) / 2.0
    divergence = (_relative_entropy(p_K, mean_K) + _relative_entropy(q_K, mean_K)) / 2.0
    return math.sqrt(min(1.0, max(0.0, divergence)))


def noise_distance(counts_K: npt.NDArray[Any], others_K: npt.NDArray[Any]) -> float:
    """Compute the distance that two such samples of one distribution exceed about once in a thousand, at most 1."""
    freedom = int(((counts_K + others_K) > 0).sum()) - 1
    if freedom == 0:
        return 0.0
    spread = 2.0 / (9.0 * freedom)
    chi_squared = freedom * (1.0 - spread + NormalDist().inv_cdf(NOISE_QUANTILE) * math.sqrt(spread)) ** 3
    divergence = chi_squared * (1.0 / counts_K.sum() + 1.0 / others_K.sum()) / (8.0 * math.log(2.0))
    return math.sqrt(min(1.0, float(divergence)))


def _relative_entropy(p_K: npt.NDArray[np.float64], q_K: npt.NDArray[np.float64]) -> float:
    here = p_K > 0.0
    return float((p_K[here] * np.log2(p_K[here] / q_K[here])).sum())
