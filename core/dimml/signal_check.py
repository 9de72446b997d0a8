"""Signal check of a decoded modality: silence, black and frozen pictures, dead sensors are ``unusable``.

The thresholds are part of a bundle's manifest; export checks them for false alarms on all training clips.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from dimml.modality import Flow, Frames, Kind, Modality, Series, Waveform
from dimml.status import Reason


class QualityThresholds(BaseModel):
    """Thresholds below which a modality carries no signal."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    #: Values of fields that came later, as was judged before (see ``dimml.digests``): with decoder version 2, and with
    #: series, which nothing before them judged.
    HISTORIC_DEFAULTS: ClassVar[Mapping[str, Any]] = {
        "frozen_change": 0.0,
        "flat_change": 1e-6,
        "gap_share": 0.5,
        "saturated_share": 0.5,
    }

    silence_dbfs: float = Field(
        default=-80.0, le=0.0, description="Peak below this is silence; AAC never gives exact zeros."
    )
    black_mean: float = Field(default=8.0, ge=0.0, le=255.0, description="A black picture's mean is below this…")
    black_spread: float = Field(default=2.0, ge=0.0, description="…and its standard deviation below this.")
    frozen_change: float = Field(
        default=0.6,
        ge=0.0,
        le=255.0,
        description="Pictures are frozen where no cell of an 8 by 8 grid changes by more on average; 0: by equal bits.",
    )
    flat_change: float = Field(
        default=1e-6,
        ge=0.0,
        le=1.0,
        description="A channel of a series is flat if its values differ by no more than this share of the largest; "
        "the series, if all its channels are.",
    )
    gap_share: float = Field(
        default=0.5, ge=0.0, le=1.0, description="A series of which more than this share is missing has gaps."
    )
    saturated_share: float = Field(
        default=0.5,
        ge=0.0,
        le=1.0,
        description="A series is saturated if more than this share of its values lies at its limits or beyond.",
    )


Row = npt.NDArray[np.float32] | npt.NDArray[np.uint8]
#: Takes a modality of its kind, and the rest as ``no_signal``.
Check = Callable[[Any, Row, QualityThresholds, Sequence[float] | None, int | None], Reason | None]

#: Cells of the grid, along each side, in which the change of pictures is measured.
_CELLS: Final = 8
#: Pictures that a window must have to be called frozen: a canvas or a screen at rest is written as one or two, a camera
#: that hangs goes on.
_MIN_PICTURES: Final = 3


def no_signal(
    modality: Modality,
    row: Row,
    thresholds: QualityThresholds,
    times_s: Sequence[float] | None = None,
    pictures: int | None = None,
) -> Reason | None:
    """Return why one row of ``modality`` carries no signal, or None if it does.

    ``times_s`` are the presentation times of the frames; without them every frame is assumed to be from a different
    time. ``pictures`` is how many the recording has in the row's window, None if that is not known. Video is frozen if
    the frames of at least two times are alike, and the recording went on giving pictures. Non-finite rows are not
    checked here: the encoder's output shows them.
    """
    return CHECKS[modality.kind](modality, row, thresholds, times_s, pictures)


def largest_change(frame: Row, first: Row) -> float:
    """Mean absolute difference of two pictures ``[height, width, 3]`` in the cell of the grid where it is largest."""
    change_HW = np.abs(frame.astype(np.int16) - first).sum(axis=-1, dtype=np.int32)
    height, width = change_HW.shape
    rows, columns = np.arange(_CELLS) * height // _CELLS, np.arange(_CELLS) * width // _CELLS
    sums = np.add.reduceat(np.add.reduceat(change_HW, rows, axis=0), columns, axis=1)
    pixels = np.outer(np.diff(rows, append=height), np.diff(columns, append=width))
    return float((sums / pixels).max() / frame.shape[-1])


def _sound(
    modality: Waveform,
    row: Row,
    thresholds: QualityThresholds,
    times_s: Sequence[float] | None,
    pictures: int | None,
) -> Reason | None:
    peak = float(np.abs(row).max(initial=0.0))
    return Reason.SILENT if peak < 10.0 ** (thresholds.silence_dbfs / 20.0) else None


def _pictures(
    modality: Frames,
    row: Row,
    thresholds: QualityThresholds,
    times_s: Sequence[float] | None,
    pictures: int | None,
) -> Reason | None:
    if float(row.mean()) < thresholds.black_mean and float(row.std()) < thresholds.black_spread:
        return Reason.BLACK
    # A frame repeated because there was no other one does not make the video frozen.
    times_differ = times_s is None or len(set(times_s)) > 1
    if not (modality.covers_time and times_differ) or modality.may_rest:
        return None
    if thresholds.frozen_change == 0.0:
        return Reason.FROZEN if bool((row == row[:1]).all()) else None
    if pictures is not None and pictures < _MIN_PICTURES:
        return None
    changes = (largest_change(frame, row[0]) for frame in row[1:])
    return None if any(change > thresholds.frozen_change for change in changes) else Reason.FROZEN


def _flow(
    modality: Flow,
    row: Row,
    thresholds: QualityThresholds,
    times_s: Sequence[float] | None,
    pictures: int | None,
) -> Reason | None:
    # Flow at rest is 128 everywhere: a still picture, which the frames modality judges; here it is a signal.
    return None


def _series(
    modality: Series,
    row: Row,
    thresholds: QualityThresholds,
    times_s: Sequence[float] | None,
    pictures: int | None,
) -> Reason | None:
    there_SC = np.isfinite(row)
    # What lies past the end of a short recording is not a gap in it.
    length = int(np.flatnonzero(there_SC.any(axis=1)).max(initial=-1)) + 1
    if length == 0 or float(there_SC[:length].mean()) < 1.0 - thresholds.gap_share:
        return Reason.GAPS
    least_C = np.where(there_SC, row, np.inf).min(axis=0)
    most_C = np.where(there_SC, row, -np.inf).max(axis=0)
    held_C = there_SC.any(axis=0)
    largest_C = np.maximum(np.abs(least_C), np.abs(most_C))
    if bool((most_C - least_C <= thresholds.flat_change * largest_C)[held_C].all()):
        return Reason.FLAT
    if modality.limits is not None:
        low_C, high_C = np.array(modality.limits, np.float32).T
        if float(((row <= low_C) | (row >= high_C)).sum() / there_SC.sum()) > thresholds.saturated_share:
            return Reason.SATURATED
    return None


CHECKS: Final[Mapping[Kind, Check]] = {
    "waveform": _sound,
    "frames": _pictures,
    "flow": _flow,
    "series": _series,
}
