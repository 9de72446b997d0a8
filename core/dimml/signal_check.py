"""Signal check of a decoded modality: silence, black and frozen pictures are ``unusable``.

The thresholds are part of a bundle's manifest; export checks them for false alarms on all training clips.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from dimml.modality import Flow, Frames, Kind, Modality, Waveform
from dimml.status import Reason


class QualityThresholds(BaseModel):
    """Thresholds below which a modality carries no signal."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    #: Values of fields that came with decoder version 2, as version 1 judged (see ``dimml.digests``).
    HISTORIC_DEFAULTS: ClassVar[Mapping[str, Any]] = {}

    silence_dbfs: float = Field(
        default=-80.0, le=0.0, description="Peak below this is silence; AAC never gives exact zeros."
    )
    black_mean: float = Field(default=8.0, ge=0.0, le=255.0, description="A black picture's mean is below this…")
    black_spread: float = Field(default=2.0, ge=0.0, description="…and its standard deviation below this.")


Row = npt.NDArray[np.float32] | npt.NDArray[np.uint8]
#: Takes a modality of its kind, and the rest as ``no_signal``.
Check = Callable[[Any, Row, QualityThresholds, Sequence[float] | None], Reason | None]


def no_signal(
    modality: Modality, row: Row, thresholds: QualityThresholds, times_s: Sequence[float] | None = None
) -> Reason | None:
    """Return why one row of ``modality`` carries no signal, or None if it does.

    ``times_s`` are the presentation times of the frames; without them every frame is assumed to be from a different
    time. Video is frozen if the frames of at least two times are all the same. Non-finite rows are not checked here:
    the encoder's output shows them.
    """
    return CHECKS[modality.kind](modality, row, thresholds, times_s)


def _sound(
    modality: Waveform, row: Row, thresholds: QualityThresholds, times_s: Sequence[float] | None
) -> Reason | None:
    peak = float(np.abs(row).max(initial=0.0))
    return Reason.SILENT if peak < 10.0 ** (thresholds.silence_dbfs / 20.0) else None


def _pictures(
    modality: Frames, row: Row, thresholds: QualityThresholds, times_s: Sequence[float] | None
) -> Reason | None:
    if float(row.mean()) < thresholds.black_mean and float(row.std()) < thresholds.black_spread:
        return Reason.BLACK
    # A frame repeated because there was no other one does not make the video frozen.
    times_differ = times_s is None or len(set(times_s)) > 1
    if modality.covers_time and times_differ and bool((row == row[:1]).all()):
        return Reason.FROZEN
    return None


def _flow(modality: Flow, row: Row, thresholds: QualityThresholds, times_s: Sequence[float] | None) -> Reason | None:
    # Flow at rest is 128 everywhere: a still picture, which the frames modality judges; here it is a signal.
    return None


CHECKS: Final[Mapping[Kind, Check]] = {"waveform": _sound, "frames": _pictures, "flow": _flow}
