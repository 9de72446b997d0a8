"""What decoding takes and gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy.typing as npt

from dimml.modality import Modality
from dimml.signal_check import QualityThresholds
from dimml.status import ModalityStatus

#: A recording: its bytes, or a file that is opened by the worker.
Source = bytes | Path


@dataclass(frozen=True, slots=True)
class MediaLimits:
    """Hard limits of one decode. Exceeding one raises TooLargeError that names the limit."""

    max_bytes: int = 256 * 2**20
    #: Longest stretch of media that may be asked for (the whole recording where no range is given).
    max_seconds: float = 120.0
    #: Of one picture of a video or a flow.
    max_pixels: int = 4096 * 2304
    #: Of an image file, which is one picture and not thousands.
    max_image_pixels: int = 64_000_000
    #: Pictures that may be decoded on the way to the wanted ones.
    max_frames_decoded: int = 7500


@dataclass(frozen=True, slots=True)
class DecodeRequest:
    """One prediction's media. Modalities that share one ``Source`` object are read in one open of it.

    A wanted modality without a source is ``absent:not_sent``. ``start_s``/``end_s`` are seconds from the
    recording's start; of a longer range, its middle ``clip_s`` seconds are used.
    """

    modalities: tuple[Modality, ...]
    sources: Mapping[str, Source]
    clip_s: float
    start_s: float | None = None
    end_s: float | None = None
    limits: MediaLimits = MediaLimits()
    quality: QualityThresholds = field(default_factory=QualityThresholds)


@dataclass(slots=True)
class DecodedTrack:
    """One modality's row (``modality.shape``, ``modality.dtype``), or None with the reason in ``status``."""

    status: ModalityStatus
    row: npt.NDArray[Any] | None = None
    #: Presentation times of the chosen frames, seconds from the recording's start.
    times_s: tuple[float, ...] = ()


@dataclass(slots=True)
class Decoded:
    """All wanted modalities of one request, and the stretch of media they cover."""

    tracks: dict[str, DecodedTrack] = field(default_factory=dict)
    start_s: float | None = None
    end_s: float | None = None
