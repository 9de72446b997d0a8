"""Sound for the eye: the outline of a waveform, and its spectrogram."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from dimml_server.views.pictures import grey_png

#: Pairs of an outline, and columns and rows of a spectrogram, at most.
MAX_PEAKS: Final = 1000
MAX_COLUMNS: Final = 400
MAX_ROWS: Final = 128
#: Length and distance of the stretches that are transformed.
WINDOW_S: Final = 0.025
HOP_S: Final = 0.010
#: Decibels from white to black.
TOP_DB: Final = 80.0
#: Least level that is shown white, so that the noise of a silent track does not look like sound.
LEAST_WHITE_DBFS: Final = -40.0
#: Stretches transformed at a time, for the memory that it takes.
_TOGETHER: Final = 256


@dataclass(frozen=True, slots=True)
class Spectrogram:
    """A picture of levels, uint8 ``[rows, columns]``: time to the right, frequency upwards, linear up to ``max_hz``."""

    grey_RT: npt.NDArray[np.uint8]
    max_hz: float
    #: Level of white, in decibels below a sine of full scale.
    white_dbfs: float

    @property
    def png(self) -> bytes:
        """The picture as PNG, 8-bit grey."""
        return grey_png(self.grey_RT)


def outline(wave: npt.NDArray[np.float32]) -> list[tuple[float, float]]:
    """Return the least and the largest sample of at most ``MAX_PEAKS`` stretches; numbers not finite count as 0."""
    wave = _finite(wave)
    starts = np.unique(np.arange(MAX_PEAKS) * len(wave) // MAX_PEAKS)
    low, high = (np.round(ufunc.reduceat(wave, starts), 4).tolist() for ufunc in (np.minimum, np.maximum))
    return list(zip(low, high, strict=True))


def spectrogram(wave: npt.NDArray[np.float32], rate_hz: int) -> Spectrogram:
    """Compute the short-time spectrum of a waveform ``[samples]``.

    A stretch of ``WINDOW_S`` every ``HOP_S``, under Hann's window ``w``, is padded to a power of two ``N`` and
    transformed: ``P = 4 |X|² / (Σ w)²``, which is 1 for a sine of full scale. The ``N / 2`` lowest bins are averaged to
    at most ``MAX_ROWS``, the stretches to at most ``MAX_COLUMNS``. Grey is ``255 (1 + (10 log10 P - white) / TOP_DB)``,
    cut to 0…255; white is the loudest cell, or ``LEAST_WHITE_DBFS`` where that is louder.
    """
    length, hop = max(2, round(rate_hz * WINDOW_S)), max(1, round(rate_hz * HOP_S))
    size = 2 ** math.ceil(math.log2(length))
    wave = _finite(wave)
    wave = np.pad(wave, (0, max(0, length - len(wave))))
    stretches = np.lib.stride_tricks.sliding_window_view(wave, length)[::hop]
    hann = np.hanning(length + 2)[1:-1].astype(np.float32)
    rows = min(MAX_ROWS, size // 2)
    power_TR = np.concatenate(
        [
            _power(stretches[begin : begin + _TOGETHER] * hann, size, rows)
            for begin in range(0, len(stretches), _TOGETHER)
        ]
    ) * (4.0 / float(hann.sum()) ** 2)
    columns = min(MAX_COLUMNS, len(power_TR))
    starts = np.arange(columns) * len(power_TR) // columns
    counts = np.diff(starts, append=len(power_TR))
    power_CR = np.add.reduceat(power_TR, starts, axis=0) / counts[:, None]
    level_CR = 10.0 * np.log10(np.maximum(power_CR, 1e-20))
    white_dbfs = max(LEAST_WHITE_DBFS, float(level_CR.max()))
    grey_CR = np.clip(255.0 * (1.0 + (level_CR - white_dbfs) / TOP_DB), 0.0, 255.0)
    grey_RT = np.ascontiguousarray(np.round(grey_CR).astype(np.uint8).T[::-1])
    return Spectrogram(grey_RT, rate_hz / 2.0, round(white_dbfs, 1))


def _power(stretches_TN: npt.NDArray[np.float32], size: int, rows: int) -> npt.NDArray[np.float64]:
    spectrum = np.fft.rfft(stretches_TN, size)[:, : size // 2]
    power_TF = spectrum.real.astype(np.float64) ** 2 + spectrum.imag.astype(np.float64) ** 2
    power_TR: npt.NDArray[np.float64] = power_TF.reshape(len(power_TF), rows, -1).mean(axis=2)
    return power_TR


def _finite(wave: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.where(np.isfinite(wave), wave, np.float32(0.0))
