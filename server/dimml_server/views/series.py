"""A series for the eye: the outline of every channel."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

#: Pairs of an outline, and channels shown, at most.
MAX_PEAKS: Final = 400
MAX_CHANNELS: Final = 16


def outline(values_S: npt.NDArray[Any]) -> list[tuple[float, float] | None]:
    """Return the least and the largest value of at most ``MAX_PEAKS`` stretches of one channel ``[samples]``.

    None for a stretch in which every value is missing.
    """
    starts = np.unique(np.arange(MAX_PEAKS) * len(values_S) // MAX_PEAKS)
    there = np.isfinite(values_S)
    low = np.minimum.reduceat(np.where(there, values_S, np.inf), starts)
    high = np.maximum.reduceat(np.where(there, values_S, -np.inf), starts)
    pairs = zip(low.tolist(), high.tolist(), strict=True)
    return [(float(f"{least:.5g}"), float(f"{most:.5g}")) if least <= most else None for least, most in pairs]
