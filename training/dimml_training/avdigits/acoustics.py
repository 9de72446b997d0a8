"""Acoustics between a voice and the microphone: gain, room, noise. Mono FP32 throughout."""

from __future__ import annotations

import numpy as np

from dimml_training.avdigits.speech import FloatArray

#: Exponents a of the noises' power spectra 1/f^a: white, pink, brown.
NOISE_EXPONENTS = (0.0, 1.0, 2.0)


def reverberate(sound: FloatArray, sample_rate_hz: int, rt60_s: float, rng: np.random.Generator) -> FloatArray:
    """Convolve ``[N]`` with a room: the direct path, then noise that decays by 60 dB in ``rt60_s``. Same length."""
    tail = np.arange(int(rt60_s * sample_rate_hz)) / sample_rate_hz
    response = rng.standard_normal(len(tail)) * 10.0 ** (-3.0 * tail / rt60_s)
    response *= 0.5 / np.sqrt((response**2).sum())
    response[0] = 1.0
    wet = np.fft.irfft(
        np.fft.rfft(sound, n=len(sound) + len(response)) * np.fft.rfft(response, n=len(sound) + len(response))
    )[: len(sound)]
    return np.asarray(wet, dtype=np.float32)


def coloured_noise(samples: int, exponent: float, rng: np.random.Generator) -> FloatArray:
    """Noise ``[samples]`` of unit RMS whose power falls as ``1/f^exponent``."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    frequency = np.arange(len(spectrum), dtype=np.float64)
    # Below bin 2 the fall would put all power into inaudible drift.
    spectrum *= np.maximum(frequency, 2.0) ** (-exponent / 2.0)
    noise = np.fft.irfft(spectrum, n=samples)
    return np.asarray(noise / np.sqrt((noise**2).mean()), dtype=np.float32)


def add_noise(sound: FloatArray, snr_db: float, exponent: float, rng: np.random.Generator) -> FloatArray:
    """Add coloured noise ``snr_db`` below the RMS of the whole of ``sound``."""
    rms = np.sqrt((sound**2).mean())
    return sound + coloured_noise(len(sound), exponent, rng) * np.float32(rms * 10.0 ** (-snr_db / 20.0))


def to_peak(sound: FloatArray, peak: float) -> FloatArray:
    """Scale ``[N]`` so that its peak is ``peak`` (full scale is 1)."""
    return np.asarray(sound * (peak / max(float(np.abs(sound).max(initial=0.0)), 1e-9)), dtype=np.float32)
