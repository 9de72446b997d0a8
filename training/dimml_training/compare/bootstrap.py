"""Paired bootstrap over clips, stratified by repeat: 95 % percentile intervals of accuracies and their differences.

One draw of clips serves every method and every condition, so differences are paired. Within a repeat as many clips are
drawn, with replacement, as it has. Repeats that score the same clips (seeds) share the draw: a hard clip is hard for
every seed, and treating seeds as independent clips would make intervals too narrow. Repeats with clips of their own
(folds) are drawn independently. Shape suffixes: S resamples, P clips of all repeats side by side, K conditions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dimml.metrics.classification import ece, weighted_ece

FloatArray = npt.NDArray[np.float64]
RESAMPLES = 2_000
#: Seed of the resampling; fixed, so that a table can be reproduced.
SEED = 20_240_719
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A metric with the bounds of its interval."""

    value: float
    low: float
    high: float


def resample_weights(lines: Sequence[npt.NDArray[Any]], resamples: int = RESAMPLES, seed: int = SEED) -> FloatArray:
    """Draw the number of times that each clip counts, ``[S, P]``; ``lines`` identifies the clips of every repeat."""
    rng = np.random.default_rng(seed)
    drawn: dict[bytes, FloatArray] = {}
    parts = []
    for of_repeat in lines:
        key = of_repeat.tobytes()
        if key not in drawn:
            clips = len(of_repeat)
            drawn[key] = rng.multinomial(clips, np.full(clips, 1.0 / clips), size=resamples).astype(np.float64)
        parts.append(drawn[key])
    return np.concatenate(parts, axis=1)


def estimates(values_KP: FloatArray, weights_SP: FloatArray) -> list[Estimate]:
    """Estimate the mean over clips of each row."""
    means_SK = weights_SP @ values_KP.T / weights_SP.shape[1]
    low_K, high_K = _bounds(means_SK)
    return [Estimate(*map(float, row)) for row in zip(values_KP.mean(axis=1), low_K, high_K, strict=True)]


def mean_estimate(values_KP: FloatArray, weights_SP: FloatArray) -> Estimate:
    """Estimate the mean over rows and clips."""
    return estimates(values_KP.mean(axis=0, keepdims=True), weights_SP)[0]


def pooled_estimate(parts: Sequence[tuple[FloatArray, FloatArray]]) -> Estimate:
    """Estimate the mean over the rows of all parts, each a data set with its own ``values_KP`` and ``weights_SP``.

    Parts with the same clips in the same order have the same weights.
    """
    rows = sum(len(values_KP) for values_KP, _ in parts)
    value = sum(float(values_KP.mean()) * len(values_KP) / rows for values_KP, _ in parts)
    samples_S = np.sum(
        [(weights_SP @ values_KP.sum(axis=0)) / weights_SP.shape[1] / rows for values_KP, weights_SP in parts], axis=0
    )
    low_K, high_K = _bounds(samples_S[:, None])
    return Estimate(value, float(low_K[0]), float(high_K[0]))


def sampled_estimate(value: float, samples_RS: FloatArray) -> Estimate:
    """Estimate with a given mean over R repeats, and the interval of the mean of their replicates (NaN if they are)."""
    low_K, high_K = _bounds(samples_RS.mean(axis=0)[:, None])
    return Estimate(value, float(low_K[0]), float(high_K[0]))


def ece_estimate(confidence_P: FloatArray, right_P: npt.NDArray[np.bool_], weights_SP: FloatArray) -> Estimate:
    """Estimate the ECE.

    Resampling adds noise, and noise adds to an ECE: the interval lies somewhat high, the more so the fewer clips there
    are.
    """
    samples_S = weighted_ece(confidence_P, right_P, weights_SP)
    low_K, high_K = _bounds(samples_S[:, None])
    return Estimate(ece(confidence_P, right_P), float(low_K[0]), float(high_K[0]))


def _bounds(samples_SK: FloatArray) -> tuple[FloatArray, FloatArray]:
    tail = (1.0 - LEVEL) / 2.0
    low_K, high_K = np.quantile(samples_SK, [tail, 1.0 - tail], axis=0)
    return low_K, high_K
