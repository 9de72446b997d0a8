"""Ratio of measurements made side by side, with its bootstrap interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES, SEED, LEVEL = 10_000, 20_240_719, 0.95
#: How much dearer the second may be.
LIMIT = 1.02


@dataclass(frozen=True)
class Ratio:
    """The median over pairs of second to first, with its bootstrap interval."""

    value: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """Of the limit: kept or passed where the whole interval says so."""
        if self.high <= LIMIT:
            return f"no worse than {LIMIT:g}"
        return f"WORSE than {LIMIT:g}" if self.low > LIMIT else f"undecided about {LIMIT:g}: measure more"

    def __str__(self) -> str:
        return f"ratio {self.value:.4f} ({self.low:.4f} to {self.high:.4f})"


def ratio(pairs: Sequence[tuple[float, float]]) -> Ratio:
    """Of measurements that were made side by side: second to first."""
    ratios = np.array([second / first for first, second in pairs])
    drawn = np.random.default_rng(SEED).integers(0, len(ratios), (RESAMPLES, len(ratios)))
    tail = (1.0 - LEVEL) / 2.0
    low, high = np.quantile(np.median(ratios[drawn], axis=1), [tail, 1.0 - tail])
    return Ratio(float(np.median(ratios)), float(low), float(high))
