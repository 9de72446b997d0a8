"""Corruptions of a series, one function per family, on a clip's FP32 ``[samples, channels]``, NaN where missing.

The second parameter is the severity, in the unit that the docstring names. "Deviation" is a channel's own standard
deviation over the row. What is missing stays missing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

#: Height of ``spikes``, in deviations.
SPIKE = 8.0
#: Knots of the warped clock of ``jitter`` are so many seconds apart.
KNOT_S = 0.25


@dataclass(frozen=True)
class SeriesSource:
    """Inputs of a family besides the clip: random numbers and the sampling rate."""

    rng: np.random.Generator
    sample_rate_hz: float


def sensor_noise(series_SC: FloatArray, snr_db: float, given: SeriesSource) -> FloatArray:
    """White Gaussian noise on every channel, at ``snr_db`` below its variance."""
    noise_SC = given.rng.standard_normal(series_SC.shape)
    return _float(series_SC + noise_SC * _deviation(series_SC) * 10.0 ** (-snr_db / 20.0))


def dead_channels(series_SC: FloatArray, share: float, given: SeriesSource) -> FloatArray:
    """A ``share`` of the channels, at least one and all but one at most, gives 0 throughout; one channel alone too."""
    channels = series_SC.shape[1]
    count = min(max(1, round(share * channels)), max(1, channels - 1))
    dead = given.rng.choice(channels, size=count, replace=False)
    out = series_SC.copy()
    out[:, dead] = np.where(np.isfinite(out[:, dead]), np.float32(0.0), out[:, dead])
    return out


def lost_samples(series_SC: FloatArray, share: float, given: SeriesSource) -> FloatArray:
    """A ``share`` of the recording's time is missing on all channels, in two runs."""
    out, length = series_SC.copy(), _length(series_SC)
    run = round(share * length / 2)
    for half in (slice(0, length // 2), slice(length // 2, length)):
        first = half.start + int(given.rng.integers(0, max(0, half.stop - half.start - run) + 1))
        out[first : first + run] = np.nan
    return out


def drift(series_SC: FloatArray, deviations: float, given: SeriesSource) -> FloatArray:
    """Every channel drifts away evenly, up or down, by ``deviations`` at the recording's end."""
    towards_C = given.rng.choice([-1.0, 1.0], size=series_SC.shape[1])
    grown_S = np.arange(len(series_SC)) / max(1, _length(series_SC) - 1)
    return _float(series_SC + grown_S[:, None] * deviations * towards_C * _deviation(series_SC))


def jitter(series_SC: FloatArray, seconds: float, given: SeriesSource) -> FloatArray:
    """A clock that is fast and slow by turns: off by a normal number of ``seconds`` at knots ``KNOT_S`` apart."""
    length = _length(series_SC)
    knots = np.arange(0.0, length / given.sample_rate_hz + KNOT_S, KNOT_S)
    off_s = given.rng.standard_normal(len(knots)) * seconds
    place_S = np.arange(length)
    moved_S = np.clip(place_S + np.interp(place_S / given.sample_rate_hz, knots, off_s) * given.sample_rate_hz, 0, None)
    out = series_SC.copy()
    for channel, values_S in enumerate(series_SC[:length].T):
        there_S = np.isfinite(values_S)
        if there_S.any():
            made_S = np.interp(np.minimum(moved_S, length - 1), place_S[there_S], values_S[there_S])
            out[:length, channel] = np.where(there_S, made_S, np.nan)
    return out


def saturation(series_SC: FloatArray, share: float, _: SeriesSource) -> FloatArray:
    """Every channel ends at ``share`` of its own largest absolute value."""
    most_C = share * np.max(np.abs(series_SC), axis=0, initial=0.0, where=np.isfinite(series_SC))
    return _float(np.clip(series_SC, -most_C, most_C))


def stuck(series_SC: FloatArray, share: float, given: SeriesSource) -> FloatArray:
    """All channels hold one value for a ``share`` of the recording, at a random place."""
    out, length = series_SC.copy(), _length(series_SC)
    run = round(share * length)
    first = int(given.rng.integers(0, length - run + 1))
    held_SC = out[first : first + run]
    if run:
        held_SC[:] = np.where(np.isfinite(held_SC), np.nan_to_num(held_SC[0]), held_SC)
    return out


def spikes(series_SC: FloatArray, share: float, given: SeriesSource) -> FloatArray:
    """A ``share`` of the values is off by ``SPIKE`` deviations, up or down."""
    hit_SC = given.rng.random(series_SC.shape) < share
    height_SC = given.rng.choice([-SPIKE, SPIKE], size=series_SC.shape) * _deviation(series_SC)
    return _float(np.where(hit_SC, series_SC + height_SC, series_SC))


def flat(series_SC: FloatArray, _: float, __: SeriesSource) -> FloatArray:
    """A sensor that gives 0 on all channels."""
    return np.zeros_like(series_SC)


SERIES: dict[str, Callable[[FloatArray, float, SeriesSource], FloatArray]] = {
    family.__name__: family
    for family in (sensor_noise, dead_channels, lost_samples, drift, jitter, saturation, stuck, spikes, flat)
}


def _float(series_SC: npt.NDArray[np.float64]) -> FloatArray:
    return np.asarray(series_SC, np.float32)


def _length(series_SC: FloatArray) -> int:
    """Samples up to the recording's end; what follows is missing on all channels."""
    return int(np.flatnonzero(np.isfinite(series_SC).any(axis=1)).max(initial=-1)) + 1


def _deviation(series_SC: FloatArray) -> npt.NDArray[np.float64]:
    """Standard deviation of each channel over what is there, ``[channels]``; 0 for a channel without values."""
    there_SC = np.isfinite(series_SC)
    count_C = np.maximum(there_SC.sum(axis=0), 1)
    known_SC = np.where(there_SC, series_SC, 0.0).astype(np.float64)
    centred_SC = np.where(there_SC, known_SC - known_SC.sum(axis=0) / count_C, 0.0)
    return np.asarray(np.sqrt(np.square(centred_SC).sum(axis=0) / count_C))
