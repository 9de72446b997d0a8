"""Kin of damage to a series, one function per family, on a clip's FP32 ``[samples, channels]``, NaN where missing.

Each draws its own severity. "Deviation" is a channel's own over the row; what is missing stays missing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class SeriesKin:
    """Inputs besides the clip: random numbers, and training clips shaped alike ``[K, samples, channels]``."""

    rng: np.random.Generator
    clips: FloatArray


def wander(series_SC: FloatArray, given: SeriesKin) -> FloatArray:
    """A random walk on every channel, of a deviation from 0.3 to 3 of the channel's own."""
    walk_SC = np.cumsum(given.rng.standard_normal(series_SC.shape), axis=0)
    walk_SC -= walk_SC[:1]
    walk_SC /= np.maximum(walk_SC.std(axis=0), 1e-12)
    strength = np.exp(given.rng.uniform(np.log(0.3), np.log(3.0)))
    return _float(series_SC + strength * walk_SC * _deviation(series_SC))


def slow_clock(series_SC: FloatArray, given: SeriesKin) -> FloatArray:
    """Only every so-many-th sample arrives, 4 to a sixth of the row's, and is held until the next."""
    samples = len(series_SC)
    every = int(given.rng.integers(4, max(5, samples // 6 + 1)))
    place_S = np.arange(samples) // every * every
    # A held value where it is there, and nothing where nothing was.
    held_SC = series_SC[place_S]
    return _float(np.where(np.isfinite(series_SC) & np.isfinite(held_SC), held_SC, series_SC))


def squashed(series_SC: FloatArray, given: SeriesKin) -> FloatArray:
    """Bent by tanh about the channel's mean, more or less by channel, and read in 4 to 16 steps half the time."""
    rng = given.rng
    deviation_C, mean_C = np.maximum(_deviation(series_SC), 1e-12), _mean(series_SC)
    drive_C = np.exp(rng.uniform(np.log(1.0), np.log(8.0), series_SC.shape[1]))
    bent_SC = np.tanh((series_SC - mean_C) / deviation_C * drive_C)
    if rng.random() < 0.5:
        steps = int(rng.integers(2, 9))
        bent_SC = np.rint(bent_SC * steps) / steps
    return _float(mean_C + bent_SC * deviation_C)


def turned(series_SC: FloatArray, given: SeriesKin) -> FloatArray:
    """The sensor sits otherwise: channels, each about its mean in deviations, mixed by a random rotation."""
    channels = series_SC.shape[1]
    rotation_CC = np.linalg.qr(given.rng.standard_normal((channels, channels)))[0]
    deviation_C, mean_C = np.maximum(_deviation(series_SC), 1e-12), _mean(series_SC)
    whole_SC = np.isfinite(series_SC).all(axis=1, keepdims=True)
    standard_SC = np.where(whole_SC, (series_SC - mean_C) / deviation_C, 0.0)
    return _float(np.where(whole_SC, mean_C + standard_SC @ rotation_CC * deviation_C, series_SC))


def stray(series_SC: FloatArray, given: SeriesKin) -> FloatArray:
    """For 20 to 70 % of the time the values are those of a training clip, where that has any."""
    rng, samples = given.rng, len(series_SC)
    other_SC = given.clips[int(rng.integers(len(given.clips)))]
    run = max(1, round(rng.uniform(0.2, 0.7) * samples))
    first = int(rng.integers(0, samples - run + 1))
    out = series_SC.copy()
    part = slice(first, first + run)
    both = np.isfinite(series_SC[part]) & np.isfinite(other_SC[part])
    out[part] = np.where(both, other_SC[part], series_SC[part])
    return out


SERIES_KIN: Final[dict[str, Callable[[FloatArray, SeriesKin], FloatArray]]] = {
    f.__name__: f for f in (wander, slow_clock, squashed, turned, stray)
}


def _float(series_SC: npt.NDArray[np.float64]) -> FloatArray:
    return np.asarray(series_SC, np.float32)


def _mean(series_SC: FloatArray) -> npt.NDArray[np.float64]:
    there_SC = np.isfinite(series_SC)
    total_C = np.where(there_SC, series_SC, 0.0).sum(axis=0, dtype=np.float64)
    return np.asarray(total_C / np.maximum(there_SC.sum(axis=0), 1))


def _deviation(series_SC: FloatArray) -> npt.NDArray[np.float64]:
    there_SC = np.isfinite(series_SC)
    centred_SC = np.where(there_SC, series_SC - _mean(series_SC), 0.0)
    return np.asarray(np.sqrt(np.square(centred_SC).sum(axis=0) / np.maximum(there_SC.sum(axis=0), 1)))
