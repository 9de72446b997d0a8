"""Blanking a stretch of time in one modality, to see what the answer owes to it.

Zeiler and Fergus, "Visualizing and understanding convolutional networks" (2014), along time instead of space.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dimml.modality import Kind, Modality

#: Most stretches of one answer, and the shortest one in seconds: a curve finer than that says nothing of speech or
#: movement, and costs an encoder's run for each point.
MOST_STRETCHES: Final = 32
LEAST_STRETCH_S: Final = 0.1
#: What is put in the place of a signal: silence, mid-grey, flow at rest, missing samples. The same as under a cover in
#: the corruption suite with which reliability is learned. Black would be a signal too: that of a camera that failed.
BLANKS: Final[Mapping[Kind, float]] = {"waveform": 0.0, "frames": 128, "flow": 128, "series": math.nan}


def count_stretches(seconds: float) -> int:
    """Into how many stretches of equal length a range is divided: of ``LEAST_STRETCH_S`` or more, 1 to 32.

    A range that is a thousandth of a stretch short, as rounded times are, counts as whole.
    """
    return max(1, min(MOST_STRETCHES, math.floor(seconds / LEAST_STRETCH_S + 1e-3)))


def steps_of(modality: Modality, seconds: float, count: int) -> list[tuple[int, int]]:
    """Which steps along a row's first axis each of ``count`` stretches of ``seconds`` covers, as (first, end).

    Samples are at their rate; the last stretch goes to the row's end. A frame stands for its share of the range, and is
    in every stretch that its share reaches into, so that neighbouring stretches may cover the same frame.
    """
    total = modality.shape[0]
    if modality.sampling is None:
        per_stretch = total / count
        return [(math.floor(i * per_stretch + 1e-6), math.ceil((i + 1) * per_stretch - 1e-6)) for i in range(count)]
    _, rate_hz = modality.sampling
    bounds = [min(total, round(i * seconds / count * rate_hz)) for i in range(count)]
    return list(zip(bounds, [*bounds[1:], total], strict=True))


def blanked_rows(modality: Modality, row: npt.NDArray[Any], steps: Sequence[tuple[int, int]]) -> npt.NDArray[Any]:
    """Copy ``row`` once for each of ``steps``, ``[len(steps), *shape]``, with those steps blanked."""
    rows = np.repeat(row[None], len(steps), axis=0)
    for copy, (first, end) in zip(rows, steps, strict=True):
        copy[first:end] = BLANKS[modality.kind]
    return rows
