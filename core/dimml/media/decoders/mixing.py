"""From the channels of a recording to the one that an encoder hears.

The mix is ITU-R BS.775's, as FFmpeg's swresample makes it: front left and right at -3 dB against the centre, surrounds
at -6 dB, no LFE, scaled so that the weights sum to 1. It cancels where it has much less power than its channels have by
themselves (``CANCELS_DB``); one channel is better than what is left then.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import av
import numpy as np
import numpy.typing as npt

from dimml.modality import Channel

FloatArray = npt.NDArray[np.float32]

#: The mix cancels where its power is this far below the sum of the powers of its channels, weighted as in the mix: 0 dB
#: for channels that have nothing in common, +3 dB for two that are alike. Two of equal level reach it at a correlation
#: of -0.75. Each second of the real stereo and 5.1 recordings tried is above -0.5 dB (docs/media.md).
CANCELS_DB: Final = -6.0
#: Sound of as many channels is interleaved before it becomes an array: PyAV's own conversion of planar frames has
#: crashed (18.1).
_INTERLEAVED_FROM: Final = 8
#: Channels without a stated role that FFmpeg's default layout fits: 5.1 and 7.1. Any other number is weighted alike,
#: since that layout would leave a microphone out (3 channels: 2.1).
_GUESSED: Final = (6, 8)
_LFE: Final = frozenset({"LFE", "LFE2"})


class NoSuchChannelError(ValueError):
    """The recording has fewer channels than the number that was asked for."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Channels of a recording: FFmpeg's name for all of them, and for the role of each (``FL``)."""

    name: str
    roles: tuple[str, ...]

    @property
    def channels(self) -> int:
        """How many there are."""
        return len(self.roles)


MONO: Final = Layout("mono", ("FC",))
STEREO: Final = Layout("stereo", ("FL", "FR"))


@dataclass(frozen=True, slots=True)
class Sound:
    """Samples ``[channels, n]``, full scale 1."""

    samples: FloatArray
    layout: Layout

    def __len__(self) -> int:
        """Samples of each channel."""
        return int(self.samples.shape[1])


@dataclass(frozen=True, slots=True)
class MonoRow:
    """What an encoder hears of a window: None where it cannot be had. ``channel`` None: there was one only."""

    row: FloatArray | None
    channel: str | None = None
    #: Whether the recording lacks the channel that was asked for.
    no_channel: bool = False


def frame_sound(frame: Any, layout: Layout | None = None) -> Sound:
    """Channels of a PyAV audio frame. Raises ValueError for an unknown sample format.

    ``layout`` is that of the frame before, which is not made anew where it is the same.
    """
    if layout is None or layout.name != frame.layout.name:
        layout = Layout(frame.layout.name, tuple(channel.name for channel in frame.layout.channels))
        if "NONE" in layout.roles:
            layout = file_layout(layout.channels)
    if frame.format.name == "fltp" and layout.channels == 1:
        # Most of what people record, without the copies of the way below.
        return Sound(np.frombuffer(frame.planes[0], np.float32, frame.samples)[np.newaxis], layout)
    if frame.format.is_planar and layout.channels >= _INTERLEAVED_FROM:
        (frame,) = av.AudioResampler(format="flt").resample(frame)
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, layout.channels).T
    if samples.dtype == np.uint8:
        samples = samples / np.float32(128.0) - np.float32(1.0)
    elif samples.dtype.kind == "i":
        samples = samples * (-1.0 / float(np.iinfo(samples.dtype).min))
    return Sound(np.asarray(samples, np.float32), layout)


def file_layout(channels: int) -> Layout:
    """Layout of channels whose roles are not stated: mono, stereo, or just a number of channels."""
    return {1: MONO, 2: STEREO}.get(channels) or Layout(f"{channels} channels", ("NONE",) * channels)


def needs_roles(channel: Channel) -> bool:
    """Whether more than two channels can only be chosen from where their roles are known."""
    return channel != "mean" and not isinstance(channel, int)


@lru_cache(maxsize=64)
def mix_weights(layout: Layout) -> tuple[float, ...]:
    """Share of each channel in the mix; their sum is 1."""
    count = layout.channels
    if layout.roles[0] == "AMBI0":
        # The first channel of ambisonic sound is the omnidirectional one.
        return (1.0,) + (0.0,) * (count - 1)
    equal = (1.0 / count,) * count
    if "NONE" in layout.roles and count not in _GUESSED:
        return equal
    try:
        # An impulse in each channel, in turn: swresample's own matrix.
        impulses = np.eye(count, dtype=np.float32).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(impulses, format="flt", layout=layout.name)
        frame.sample_rate = 8000
        (mixed,) = av.AudioResampler(format="flt", layout="mono", rate=8000).resample(frame)
        weights = mixed.to_ndarray()[0].astype(np.float64)
    except ValueError:
        # Channels that stand in no order from which it could derive one.
        return equal
    return tuple((weights / weights.sum()).tolist()) if weights.sum() > 0.0 else equal


def as_layout(sound: Sound, layout: Layout) -> FloatArray:
    """The sound as channels of another layout, where a stream changes it midway: the mix in each of them."""
    if sound.layout.channels == layout.channels:
        return sound.samples
    mono = _weighted(sound.samples, mix_weights(sound.layout))
    return np.broadcast_to(mono, (layout.channels, len(sound)))


def to_mono(
    samples_CN: FloatArray, layout: Layout, wanted: Channel, inside: slice = slice(None)
) -> tuple[FloatArray, str | None]:
    """One channel ``[n]`` of ``samples_CN``, and which: a number from 0, or a word of ``Channel``; None for mono.

    Levels are compared in ``inside``. Raises NoSuchChannelError.
    """
    channels = layout.channels
    if isinstance(wanted, int):
        if wanted >= channels:
            raise NoSuchChannelError(f"channel {wanted} of {channels}")
        return samples_CN[wanted], None if channels == 1 else _name(layout, wanted)
    if channels == 1:
        return samples_CN[0], None
    if wanted == "mean":
        with np.errstate(all="ignore"):
            mean: FloatArray = samples_CN.mean(axis=0, dtype=np.float32)
        return mean, wanted
    if wanted in {"left", "right"}:
        return samples_CN[_side(layout, wanted)], wanted
    power_C = np.array([_power(channel[inside]) for channel in samples_CN])
    if wanted == "mix":
        weights = mix_weights(layout)
        mixed = _weighted(samples_CN, weights)
        with np.errstate(all="ignore"):
            apart = float(power_C @ np.square(weights))
            if not _power(mixed[inside]) < 10.0 ** (CANCELS_DB / 10.0) * apart:
                return mixed, wanted
    loudest = _loudest(layout, power_C)
    return samples_CN[loudest], _name(layout, loudest)


def power(sound: MonoRow) -> float:
    """Variance of a row, for comparing tracks; less than any for one that is not there."""
    return -1.0 if sound.row is None else _power(sound.row)


def _weighted(samples_CN: FloatArray, weights: tuple[float, ...]) -> FloatArray:
    used = [channel for channel, weight in enumerate(weights) if weight]
    if len(used) == 1:
        alone: FloatArray = samples_CN[used[0]]
        return alone
    with np.errstate(all="ignore"):
        mixed: FloatArray = np.dot(np.array([weights[channel] for channel in used], np.float32), samples_CN[used])
        return mixed


def _power(samples: FloatArray) -> float:
    """Variance: a constant offset is no sound."""
    with np.errstate(all="ignore"):
        return float(np.var(samples, dtype=np.float64)) if len(samples) else 0.0


def _loudest(layout: Layout, power_C: npt.NDArray[np.float64]) -> int:
    """The first of the channels with the most power. The LFE channel is none of them unless there is no other."""
    eligible = [c for c, role in enumerate(layout.roles) if role not in _LFE] or list(range(layout.channels))
    return max(eligible, key=lambda channel: power_C[channel])


def _side(layout: Layout, side: str) -> int:
    """Front left or right by role; else the first or second channel, as in a pair of microphones."""
    role = {"left": "FL", "right": "FR"}[side]
    return layout.roles.index(role) if role in layout.roles else ("left", "right").index(side)


def _name(layout: Layout, channel: int) -> str:
    return {"FL": "left", "FR": "right"}.get(layout.roles[channel], str(channel))
