"""Request, limits and result of decoding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy.typing as npt

from dimml.media.track_choice import TrackChoice, parse_track
from dimml.modality import Modality
from dimml.signal_check import QualityThresholds
from dimml.status import ModalityStatus, Reason
from dimml.system.files import StrPath

#: A recording: its bytes, or the path of a file that the decode worker opens; text is always a path.
Source = bytes | StrPath


@dataclass(frozen=True, slots=True)
class MediaLimits:
    """Hard limits of one decode; exceeding one raises TooLargeError, which names the limit."""

    #: A limit that came later, and what a record without it means (see ``dimml.digests``).
    HISTORIC_DEFAULTS: ClassVar[Mapping[str, Any]] = {"max_image_pixels": 64_000_000}

    max_bytes: int = 256 * 2**20
    #: Longest range of media in seconds; without a range, the whole recording counts.
    max_seconds: float = 120.0
    #: Width times height of one picture of a video or a flow.
    max_pixels: int = 4096 * 2304
    #: Of an image file, which is one picture and not thousands.
    max_image_pixels: int = 64_000_000
    #: Pictures decoded to reach the wanted ones, those included.
    max_frames_decoded: int = 7500


@dataclass(frozen=True, slots=True)
class DecodeRequest:
    """Media of one prediction. A ``Source`` object that several modalities share is opened once.

    A modality without a source is ``absent: not_sent``. ``start_s`` and ``end_s`` are seconds from the start of the
    recording; ``margin_s`` widens a range on both sides, up to the recording's ends, and one longer than ``clip_s`` is
    then cut to its middle ``clip_s`` seconds. ``audio_track`` and ``video_track`` name one of several tracks (see
    ``dimml.media.track_choice``); None means the main one. Making a request raises InvalidParameterError for a value
    that names no track.
    """

    modalities: tuple[Modality, ...]
    sources: Mapping[str, Source]
    clip_s: float
    start_s: float | None = None
    end_s: float | None = None
    limits: MediaLimits = MediaLimits()
    quality: QualityThresholds = field(default_factory=QualityThresholds)
    audio_track: TrackChoice | None = None
    video_track: TrackChoice | None = None
    margin_s: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "audio_track", parse_track("audio", self.audio_track))
        object.__setattr__(self, "video_track", parse_track("video", self.video_track))


@dataclass(frozen=True, slots=True)
class Truncation:
    """A track that was cut off: seconds that it holds, and that its file's header promises."""

    held_s: float
    promised_s: float


@dataclass(slots=True)
class DecodedTrack:
    """Row of one modality (``modality.shape``, ``modality.dtype``), or None with the reason in ``status``."""

    status: ModalityStatus
    row: npt.NDArray[Any] | None = None
    #: Presentation times of the chosen frames, seconds from the recording's start.
    times_s: tuple[float, ...] = ()
    #: None for a track that is whole, or of which no header promises a length.
    truncation: Truncation | None = None
    #: What is heard of several channels: a word of ``dimml.modality.Channel``, or a number from 0.
    channel: str | None = None


def all_because(reason: Reason, modalities: Sequence[Modality], detail: str | None = None) -> dict[str, DecodedTrack]:
    """Return tracks without a row, all for one reason; ``detail`` is a sentence about it."""
    return {modality.name: DecodedTrack(ModalityStatus.because(reason, detail)) for modality in modalities}


@dataclass(slots=True)
class Decoded:
    """Tracks of one request by modality, and the range in seconds that they cover; None for media without time."""

    tracks: dict[str, DecodedTrack] = field(default_factory=dict)
    start_s: float | None = None
    end_s: float | None = None
    #: Length of the whole recording, the longest of several; None where it is not known, and for windows of one.
    duration_s: float | None = None

    @property
    def truncations(self) -> dict[str, Truncation]:
        """By modality, for tracks that were cut off."""
        return {name: track.truncation for name, track in self.tracks.items() if track.truncation is not None}

    @property
    def channels(self) -> dict[str, str]:
        """What is heard of several channels, by modality."""
        return {name: track.channel for name, track in self.tracks.items() if track.channel is not None}
