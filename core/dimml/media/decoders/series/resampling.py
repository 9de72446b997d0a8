"""Samples of a recording as a row at the modality's rate."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt
import soxr

from dimml.media.decoders.time_range import Window
from dimml.modality import Series

#: Samples, of the slower rate, on each side of the window that the filter sees.
_FILTER_SAMPLES: Final = 32
#: Times of samples that differ by less than this share of a period are equal.
_SAME: Final = 1e-3


def margin_s(modality: Series, rate_hz: float) -> float:
    """Seconds around a window whose samples take part in its row."""
    return max(modality.bridge_s, _FILTER_SAMPLES / min(rate_hz, modality.sample_rate_hz))


def samples_in(modality: Series, window: Window) -> int:
    """Samples of the row that lie in the window."""
    return min(modality.samples, math.ceil(window.seconds * modality.sample_rate_hz - 1e-6))


def row_of(
    values_NC: npt.NDArray[np.float64],
    times_N: npt.NDArray[np.float64],
    rate_hz: float,
    window: Window,
    modality: Series,
    *,
    even: bool,
) -> npt.NDArray[np.float32]:
    """Make the row's part that lies in the window, ``[samples, channels]``, NaN where a value is missing.

    ``times_N`` are the seconds of the samples, ``rate_hz`` the rate that they have, ``even`` whether they keep it. A
    file that is not faster than the modality is interpolated linearly; a faster one is filtered against aliasing and
    resampled by soxr. A value is missing where its neighbours in time, of its channel, are further apart than
    ``bridge_s`` and than one missing sample, and before the first and after the last one.
    """
    target_hz = modality.sample_rate_hz
    wanted = np.arange(samples_in(modality, window)) / target_hz
    # On the file's own samples where it keeps its rate, as sound is.
    wanted_S = (round(window.start_s * rate_hz) / rate_hz if even else window.start_s) + wanted
    if even and math.isclose(rate_hz, target_hz):
        wanted_S = (round(window.start_s * rate_hz) + np.arange(len(wanted))) / rate_hz
    longest_s = max(modality.bridge_s, 2.0 / rate_hz) * (1.0 + _SAME)
    row_SC = np.full((len(wanted_S), values_NC.shape[1]), np.nan, np.float32)
    faster = rate_hz > target_hz * (1.0 + (_SAME if even else 0.1))
    for channel, values_N in enumerate(values_NC.T):
        there_N = np.isfinite(values_N)
        if not there_N.any():
            continue
        at_K, known_K = times_N[there_N], values_N[there_N]
        if faster:
            made_S = _decimated(known_K, at_K, rate_hz, target_hz, wanted_S)
        else:
            made_S = np.interp(wanted_S, at_K, known_K)
        with np.errstate(over="ignore"):
            row_SC[:, channel] = np.where(_covered(wanted_S, at_K, longest_s, 1.0 / rate_hz), made_S, np.nan)
    row_SC[~np.isfinite(row_SC)] = np.nan
    return row_SC


def _decimated(
    known_K: npt.NDArray[np.float64],
    at_K: npt.NDArray[np.float64],
    rate_hz: float,
    target_hz: float,
    wanted_S: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Resample to a lower rate: interpolated to an even grid, past its ends with the value there, and filtered."""
    ahead = _FILTER_SAMPLES
    begin_s = wanted_S[0] - ahead / target_hz if len(wanted_S) else 0.0
    length = math.ceil((len(wanted_S) + 2 * ahead) / target_hz * rate_hz)
    grid = np.interp(begin_s + np.arange(length) / rate_hz, at_K, known_K)
    # About its mean, since soxr takes what lies outside for zero.
    mean = float(grid.mean())
    resampled = soxr.resample(grid - mean, rate_hz, target_hz) + mean
    return np.asarray(resampled[ahead : ahead + len(wanted_S)], np.float64)


def _covered(
    wanted_S: npt.NDArray[np.float64], at_K: npt.NDArray[np.float64], longest_s: float, period_s: float
) -> npt.NDArray[np.bool_]:
    """Which wanted times have a sample at them, or neighbours no further apart than ``longest_s``."""
    after_S = np.searchsorted(at_K, wanted_S)
    left_S = at_K[np.maximum(after_S - 1, 0)]
    right_S = at_K[np.minimum(after_S, len(at_K) - 1)]
    near_S = np.minimum(np.abs(wanted_S - left_S), np.abs(right_S - wanted_S))
    inside_S = (after_S > 0) & (after_S < len(at_K))
    return np.asarray(
        (near_S <= _SAME * period_s) | (inside_S & (right_S - left_S <= longest_s)) | (~inside_S & (near_S < period_s))
    )
