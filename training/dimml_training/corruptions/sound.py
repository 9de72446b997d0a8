"""Corruptions of sound, one function per family, on a clip's FP32 ``[samples]``.

The second parameter is the severity, in the unit that the docstring names. The level of noise is relative to the mean
power of the row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

#: Voices that talk at the same time in ``voices``.
VOICES = 5


@dataclass(frozen=True)
class SoundSource:
    """Inputs of a family besides the clip: random numbers, the sampling rate, and other sounds."""

    rng: np.random.Generator
    sample_rate_hz: int
    #: Another clip of the same set, FP32 ``[samples]``; only ``another_clip`` looks at it.
    other: FloatArray
    #: Voices that are in no clip, FP32 ``[voices, samples]``; only ``voices`` uses them.
    voices: FloatArray


def mixed(signal_S: FloatArray, noise_S: FloatArray, snr_db: float) -> FloatArray:
    """Signal plus noise at a ratio of mean powers in dB. Silent noise stays silent."""
    scale = _rms(signal_S) / max(_rms(noise_S), 1e-12) * 10.0 ** (-snr_db / 20.0)
    return signal_S + np.float32(scale) * noise_S


def white(signal_S: FloatArray, snr_db: float, given: SoundSource) -> FloatArray:
    """White Gaussian noise at ``snr_db``."""
    return mixed(signal_S, given.rng.standard_normal(len(signal_S), dtype=np.float32), snr_db)


def pink(signal_S: FloatArray, snr_db: float, given: SoundSource) -> FloatArray:
    """Noise whose power falls as 1/f above 20 Hz, at ``snr_db``."""
    size = _fast_length(len(signal_S))
    spectrum = np.fft.rfft(given.rng.standard_normal(size, dtype=np.float32))
    hertz = np.fft.rfftfreq(size, 1.0 / given.sample_rate_hz)
    noise = np.fft.irfft(spectrum / np.sqrt(np.maximum(hertz, 20.0)), n=size)[: len(signal_S)]
    return mixed(signal_S, noise.astype(np.float32), snr_db)


def another_clip(signal_S: FloatArray, snr_db: float, given: SoundSource) -> FloatArray:
    """Another clip of the same set on top, at ``snr_db``."""
    return mixed(signal_S, given.other, snr_db)


def voices(signal_S: FloatArray, snr_db: float, given: SoundSource) -> FloatArray:
    """Babble: five stretches of speech by voices that are in no clip, equally loud, at ``snr_db``."""
    people, length = given.voices.shape
    babble = np.zeros_like(signal_S)
    for person in given.rng.choice(people, size=min(VOICES, people), replace=False):
        place = np.arange(len(signal_S)) + given.rng.integers(length)
        stretch = given.voices[person].take(place, mode="wrap")
        babble += stretch / np.float32(max(_rms(stretch), 1e-6))
    return mixed(signal_S, babble, snr_db)


def tones(signal_S: FloatArray, snr_db: float, given: SoundSource) -> FloatArray:
    """Three steady tones between 150 Hz and 0.4 of the sampling rate (4 kHz at most), at ``snr_db``."""
    highest = min(4000.0, 0.4 * given.sample_rate_hz)
    hertz = np.exp(given.rng.uniform(np.log(150.0), np.log(highest), 3))
    phase = given.rng.uniform(0.0, 2.0 * np.pi, 3)
    radians = 2.0 * np.pi * np.outer(hertz, np.arange(len(signal_S)) / given.sample_rate_hz) + phase[:, None]
    return mixed(signal_S, np.sin(radians.astype(np.float32)).sum(axis=0), snr_db)


def clicks(signal_S: FloatArray, snr_db: float, given: SoundSource) -> FloatArray:
    """Impulses of single samples, up or down, 50 a second on average, at ``snr_db``."""
    share = 50.0 / given.sample_rate_hz
    count = max(1, int(given.rng.poisson(share * len(signal_S))))
    noise = np.zeros_like(signal_S)
    noise[given.rng.integers(len(signal_S), size=count)] = given.rng.standard_normal(count, dtype=np.float32)
    return mixed(signal_S, noise, snr_db)


def low_pass(signal_S: FloatArray, hertz: float, given: SoundSource) -> FloatArray:
    """Remove frequencies above ``hertz`` (at most a quarter of the sampling rate); the edge is half an octave wide."""
    return _filtered(signal_S, lambda f: _edge(min(hertz, given.sample_rate_hz / 4), f), given.sample_rate_hz)


def high_pass(signal_S: FloatArray, hertz: float, given: SoundSource) -> FloatArray:
    """Remove frequencies below ``hertz`` (at most a quarter of the sampling rate); the edge is half an octave wide."""
    return _filtered(signal_S, lambda f: 1.0 - _edge(min(hertz, given.sample_rate_hz / 4), f), given.sample_rate_hz)


def gaps(signal_S: FloatArray, share: float, given: SoundSource) -> FloatArray:
    """Three stretches, together ``share`` of the row, are silent."""
    length = len(signal_S)
    cuts = np.sort(given.rng.uniform(0.0, 1.0, 3)) * (1.0 - share)
    starts = ((cuts + share / 3 * np.arange(3)) * length).astype(int)
    out = signal_S.copy()
    for start in starts:
        out[start : start + round(share / 3 * length)] = 0.0
    return out


def time_shift(signal_S: FloatArray, share: float, given: SoundSource) -> FloatArray:
    """Early or late by between half of ``share`` of the row and all of it; zeros move in."""
    by = round(given.rng.uniform(share / 2, share) * len(signal_S))
    out = np.zeros_like(signal_S)
    if given.rng.random() < 0.5:
        out[by:] = signal_S[: len(signal_S) - by]
    else:
        out[: len(signal_S) - by] = signal_S[by:]
    return out


def reverberation(signal_S: FloatArray, rt60_s: float, given: SoundSource) -> FloatArray:
    """A room without a direct path: noise that decays by 60 dB in ``rt60_s``, convolved; the power stays."""
    time_s = np.arange(max(2, round(rt60_s * given.sample_rate_hz))) / given.sample_rate_hz
    response = given.rng.standard_normal(len(time_s)) * 10.0 ** (-3.0 * time_s / rt60_s)
    # Echoes later than the length of the row are not heard in it.
    response = response[: len(signal_S)]
    size = _fast_length(2 * len(signal_S))
    wet = np.fft.irfft(np.fft.rfft(signal_S, n=size) * np.fft.rfft(response, n=size), n=size)[: len(signal_S)]
    return _as_loud(wet, signal_S)


def clipping(signal_S: FloatArray, overdrive_db: float, given: SoundSource) -> FloatArray:
    """Amplified by ``overdrive_db`` and cut at its former peak."""
    peak = np.abs(signal_S).max(initial=0.0)
    return np.asarray(np.clip(signal_S * np.float32(10.0 ** (overdrive_db / 20.0)), -peak, peak))


def silence(signal_S: FloatArray, amount: float, given: SoundSource) -> FloatArray:
    """No signal: zeros."""
    return np.zeros_like(signal_S)


SOUND: dict[str, Callable[[FloatArray, float, SoundSource], FloatArray]] = {
    f.__name__: f
    for f in (
        *(white, pink, another_clip, voices, tones, clicks, low_pass, high_pass),
        *(gaps, time_shift, reverberation, clipping, silence),
    )
}


def within_full_scale(signal_S: FloatArray) -> FloatArray:
    """Turned down where it would pass ±1, as a recorder's automatic gain does."""
    peak = float(np.abs(signal_S).max(initial=0.0))
    return signal_S / np.float32(peak) if peak > 1.0 else signal_S


def _filtered(
    signal_S: FloatArray,
    gain: Callable[[npt.NDArray[np.floating[Any]]], npt.NDArray[np.floating[Any]]],
    sample_rate_hz: int,
) -> FloatArray:
    size = _fast_length(len(signal_S))
    spectrum = np.fft.rfft(signal_S, n=size) * gain(np.fft.rfftfreq(size, 1.0 / sample_rate_hz))
    return np.fft.irfft(spectrum, n=size)[: len(signal_S)].astype(np.float32)


def _edge(hertz: float, frequency: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
    """1 below, 0 above, half a cosine between."""
    octaves = np.log2(np.maximum(frequency, 1e-3) / hertz)
    return np.asarray(0.5 - 0.5 * np.sin(np.pi * np.clip(2.0 * octaves, -0.5, 0.5)))


def _as_loud(changed: npt.NDArray[np.floating[Any]], signal_S: FloatArray) -> FloatArray:
    rms = float(np.sqrt(np.square(changed).mean()))
    return (changed * (_rms(signal_S) / max(rms, 1e-12))).astype(np.float32)


def _rms(signal_S: FloatArray) -> float:
    return float(np.sqrt(np.square(signal_S).mean()))


def _fast_length(samples: int) -> int:
    """The next power of two: odd lengths are slow to transform."""
    return 1 << (samples - 1).bit_length()
