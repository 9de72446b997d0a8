"""Input channels of a bundle: the tensor of each one, its units, and how media is converted to it.

One row of every modality covers the same interval of time: ``clip_s`` seconds taken from the middle of the requested
range, or the whole range if it is shorter (see ``dimml.media``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Annotated, Any, ClassVar, Final, Literal, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from dimml.digests import fill_historic

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
TensorName = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]{0,62}$")]
#: Kinds of modality. A component keeps what it does with a kind in a ``Mapping[Kind, ...]`` with a row for each.
Kind = Literal["waveform", "frames", "flow", "series"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
#: The track of a recording that a kind is made from, in FFmpeg's words.
Track = Literal["audio", "video", "data"]
#: What is heard of a recording's channels: their mix by layout, their plain mean, one side, the one with the most
#: power, or the one of this number, from 0.
Channel = Literal["mix", "mean", "left", "right", "loudest"] | Annotated[int, Field(strict=True, ge=0, le=254)]
_Level = Annotated[int, Field(ge=0, le=255)]
#: Colour on which transparent pictures are shown, RGB.
Ground = tuple[_Level, _Level, _Level]
_WHITE: Final = (255, 255, 255)
#: Of one row of a series: 64 MiB.
_MOST_VALUES: Final = 2**24
_Hold = Annotated[
    float | None,
    Field(
        ge=0.0,
        allow_inf_nan=False,
        description="Seconds that a picture stands before its track begins, and after the last one has been shown as "
        "long as any before it; further away, it is absent. None: without end.",
    ),
]
_ToneMap = Annotated[
    bool,
    Field(
        description="Whether video of high dynamic range (PQ, HLG) is mapped to SDR; false: code values as they are, "
        "as before decoder version 2."
    ),
]
_GROUND: Final = (
    "Colour on which a transparent image file is shown, as [red, green, blue]; null for the colours beneath its alpha, "
    "as before decoder version 2."
)


class Region(BaseModel):
    """A rectangle of the upright picture, as fractions of its width and height, so it fits any resolution."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    left: float = Field(ge=0.0, lt=1.0)
    top: float = Field(ge=0.0, lt=1.0)
    right: float = Field(gt=0.0, le=1.0)
    bottom: float = Field(gt=0.0, le=1.0)

    @model_validator(mode="after")
    def _has_area(self) -> Region:
        if self.right <= self.left or self.bottom <= self.top:
            raise ValueError("region has no area: need left < right and top < bottom")
        return self


class _Modality(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    #: Values of fields that came with decoder version 2, as version 1 decoded (see ``dimml.digests``).
    HISTORIC_DEFAULTS: ClassVar[Mapping[str, Any]] = {}

    name: Name = Field(description="Name in requests, answers and metrics, for example 'audio'.")
    tensor: TensorName = Field(description="Name of the encoder's input tensor.")

    track: ClassVar[Track]
    #: Whether values are colours, so that a mirrored, brighter or grey clip still shows the same.
    rgb: ClassVar[bool] = False

    @property
    def covers_time(self) -> bool:
        """Whether a row covers an interval of time, not a single moment."""
        return True

    @property
    def sampling(self) -> tuple[int, float] | None:
        """Samples of a row and their rate in Hz; None if rows have no sampling rate of their own."""
        return None


class Waveform(_Modality):
    """Mono sound, FP32 in [-1, 1] (full scale), ``[B, samples]`` at ``sample_rate_hz``; zero-padded at the end."""

    HISTORIC_DEFAULTS: ClassVar[Mapping[str, Any]] = {"channel": "mean"}

    kind: Literal["waveform"] = "waveform"
    tensor: TensorName = "WAVEFORM"
    sample_rate_hz: int = Field(ge=1000, le=192_000)
    samples: int = Field(ge=1)
    channel: Channel = Field(
        default="mix",
        description="What is heard of several channels: their mix by layout, left, right, loudest, a number from 0, or "
        "mean (of all, LFE included; what bundles of decoder version 1 hear).",
    )

    track: ClassVar[Track] = "audio"

    @property
    def sampling(self) -> tuple[int, int]:
        """Samples of a row and their rate in Hz."""
        return self.samples, self.sample_rate_hz

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one row."""
        return (self.samples,)

    @property
    def dtype(self) -> np.dtype[np.float32]:
        """FP32."""
        return np.dtype(np.float32)


class Frames(_Modality):
    """RGB frames, UINT8, ``[B, frames, height, width, 3]``, spread evenly over the clip's time."""

    HISTORIC_DEFAULTS: ClassVar[Mapping[str, Any]] = {
        "may_rest": False,
        "ground": None,
        "hold_s": None,
        "tone_map": False,
        "resize": "rgb_area",
    }

    kind: Literal["frames"] = "frames"
    tensor: TensorName = "FRAMES"
    frames: int = Field(ge=1, le=1024)
    height: int = Field(ge=8, le=4096)
    width: int = Field(ge=8, le=4096)
    region: Region | None = Field(default=None, description="Region of interest, cut before resizing.")
    may_rest: bool = Field(
        default=False,
        description="Whether pictures at rest are a signal, as slides and fixed cameras are, and never frozen.",
    )
    ground: Ground | None = Field(default=_WHITE, description=_GROUND)
    hold_s: _Hold = 1.0
    tone_map: _ToneMap = True
    resize: Literal["rgb_area", "yuv_area"] = Field(
        default="rgb_area",
        description="How pictures of video are made smaller, by area: rgb_area converts them to RGB before, yuv_area "
        "in the same step, which takes 0.4 of the time and differs by 1 of 255 in the mean.",
    )

    track: ClassVar[Track] = "video"
    rgb: ClassVar[bool] = True

    @property
    def covers_time(self) -> bool:
        """Whether a row has frames of more than one time."""
        return self.frames > 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one row."""
        return (self.frames, self.height, self.width, 3)

    @property
    def dtype(self) -> np.dtype[np.uint8]:
        """UINT8."""
        return np.dtype(np.uint8)


class Flow(_Modality):
    """Optical flow, UINT8, ``[B, frames, height, width, 2]`` as ``round(clip(d, ±bound_px)·127/bound_px)+128``.

    Channel 0 is the displacement to the right, channel 1 downwards, in pixels of the resized frame, between a frame and
    the next one in the stream.
    """

    HISTORIC_DEFAULTS: ClassVar[Mapping[str, Any]] = {"ground": None, "hold_s": None, "tone_map": False}

    kind: Literal["flow"] = "flow"
    tensor: TensorName = "FLOW"
    frames: int = Field(ge=1, le=1024)
    height: int = Field(ge=8, le=4096)
    width: int = Field(ge=8, le=4096)
    region: Region | None = None
    hold_s: _Hold = 1.0
    bound_px: float = Field(default=20.0, gt=0.0)
    ground: Ground | None = Field(default=_WHITE, description=_GROUND)
    tone_map: _ToneMap = True

    track: ClassVar[Track] = "video"

    @property
    def covers_time(self) -> bool:
        """Whether a row has frames of more than one time."""
        return self.frames > 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one row."""
        return (self.frames, self.height, self.width, 2)

    @property
    def dtype(self) -> np.dtype[np.uint8]:
        """UINT8."""
        return np.dtype(np.uint8)


class Series(_Modality):
    """Channels over time, such as a sensor's: FP32 in the file's own units, ``[B, samples, channels]``; NaN is missing.

    Missing are values that the recording lacks, and what lies past its end: the encoder's graph knows them as such.
    """

    kind: Literal["series"] = "series"
    tensor: TensorName = "SERIES"
    channels: int = Field(ge=1, le=256)
    sample_rate_hz: float = Field(gt=0.0, le=192_000.0, allow_inf_nan=False)
    samples: int = Field(ge=1)
    file_rate_hz: float | None = Field(
        default=None,
        gt=0.0,
        le=192_000.0,
        allow_inf_nan=False,
        description="Rate of files that state none: .npy, and CSV without a column of times; null: sample_rate_hz.",
    )
    axes: Literal["time_channels", "channels_time"] = Field(
        default="time_channels", description="Order of the two axes of an .npy file."
    )
    names: tuple[str, ...] | None = Field(
        default=None, description="Name of each channel; the columns of a CSV with a header are chosen by them."
    )
    pick: tuple[Annotated[int, Field(strict=True, ge=0, le=4095)], ...] | None = Field(
        default=None,
        description="Numbers, from 0, of the file's channels that are read; null: it must have exactly these.",
    )
    units: tuple[str, ...] | None = Field(default=None, description="Unit of each channel, for people.")
    limits: tuple[tuple[float, float], ...] | None = Field(
        default=None, description="Least and largest value that each channel's sensor gives; there it is saturated."
    )
    bridge_s: float = Field(
        default=0.1,
        ge=0.0,
        le=60.0,
        description="Gaps up to this long, and up to one missing sample, are interpolated; longer ones stay missing.",
    )

    track: ClassVar[Track] = "data"

    @model_validator(mode="after")
    def _one_for_each_channel(self) -> Series:
        for name in ("names", "pick", "units", "limits"):
            given = getattr(self, name)
            if given is not None and len(given) != self.channels:
                raise ValueError(f"{name} must have one entry for each of {self.channels} channels, got {len(given)}")
        for name in ("names", "pick"):
            if len(set(getattr(self, name) or ())) < len(getattr(self, name) or ()):
                raise ValueError(f"{name} must not repeat an entry")
        if any(not low < high for low, high in self.limits or ()):
            raise ValueError("limits must be pairs of the least and the largest value, least first")
        if self.samples * self.channels > _MOST_VALUES:
            raise ValueError(f"samples x channels must be at most {_MOST_VALUES}")
        return self

    @property
    def sampling(self) -> tuple[int, float]:
        """Samples of a row and their rate in Hz."""
        return self.samples, self.sample_rate_hz

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one row."""
        return (self.samples, self.channels)

    @property
    def dtype(self) -> np.dtype[np.float32]:
        """FP32."""
        return np.dtype(np.float32)


Modality = Annotated[Waveform | Frames | Flow | Series, Field(discriminator="kind")]


def as_decoder_1(document: Any) -> Any:
    """Copy a modality's JSON document of decoder version 1, with what that version did filled in."""
    kind = document.get("kind") if isinstance(document, Mapping) else None
    defaults = [
        known.HISTORIC_DEFAULTS
        for known in (Waveform, Frames, Flow, Series)
        if known.model_fields["kind"].default == kind
    ]
    return fill_historic(document, defaults[0]) if defaults else document


def patterns_of(modalities: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield every non-empty set of modalities, each in their order, the whole one first."""
    for size in range(len(modalities), 0, -1):
        yield from combinations(modalities, size)
