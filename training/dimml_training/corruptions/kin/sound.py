"""Kin of damage to sound, one function per family, on a clip's FP32 ``[samples]``; each draws its own severity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from dimml_training.corruptions.sound import mixed

FloatArray = npt.NDArray[np.float32]

SPEED_OF_SOUND_M_S: Final = 343.0
#: Images of the source on either side along each axis of a room: up to so many reflections by each pair of walls.
IMAGES: Final = 7


@dataclass(frozen=True)
class SoundKin:
    """Inputs besides the clip: random numbers, the sampling rate, and training clips ``[K, samples]``."""

    rng: np.random.Generator
    sample_rate_hz: float
    clips: FloatArray


def coloured_noise(signal_S: FloatArray, given: SoundKin) -> FloatArray:
    """Steady noise at -10 to 15 dB, its power falling or rising with frequency, with bumps of some 6 dB.

    The exponent is -1 to 2 but for -0.5 to 0.5, which would be the suite's white noise.
    """
    rng, size = given.rng, len(signal_S)
    exponent = rng.uniform(0.5, 2.0) if rng.random() < 0.7 else rng.uniform(-1.0, -0.5)
    hertz = np.maximum(np.fft.rfftfreq(size, 1.0 / given.sample_rate_hz), 30.0)
    knots = np.linspace(np.log(30.0), np.log(given.sample_rate_hz / 2), 7)
    bumps_db = np.interp(np.log(hertz), knots, rng.normal(0.0, 6.0, len(knots)))
    spectrum = np.fft.rfft(rng.standard_normal(size)) * hertz ** (-exponent / 2) * 10.0 ** (bumps_db / 20)
    return mixed(signal_S, np.fft.irfft(spectrum, n=size).astype(np.float32), rng.uniform(-10.0, 15.0))


def room(signal_S: FloatArray, given: SoundKin) -> FloatArray:
    """A shoebox room of random size, walls and places, by the image method; the power stays."""
    rng = given.rng
    sides_m = rng.uniform((2.5, 2.5, 2.2), (12.0, 9.0, 4.0))
    source_m, ear_m = (sides_m * rng.uniform(0.1, 0.9, 3) for _ in range(2))
    response = room_response(
        sides_m, source_m, ear_m, rng.uniform(0.6, 0.95), given.sample_rate_hz, samples=len(signal_S)
    )
    size = 1 << (2 * len(signal_S) - 1).bit_length()
    wet = np.fft.irfft(np.fft.rfft(signal_S, n=size) * np.fft.rfft(response, n=size), n=size)[: len(signal_S)]
    return _as_loud(wet, signal_S)


def room_response(
    sides_m: npt.NDArray[np.float64],
    source_m: npt.NDArray[np.float64],
    ear_m: npt.NDArray[np.float64],
    reflected: float,
    sample_rate_hz: float,
    *,
    samples: int,
) -> npt.NDArray[np.float64]:
    """Impulse response ``[samples]`` of a shoebox from the direct sound on (Allen & Berkley 1979, JASA 65, eq. 10).

    ``reflected`` is every wall's reflection coefficient. An image at distance d metres arrives at the nearest sample
    with amplitude ``reflected ** walls / d``; the delay of the direct sound is taken off.
    """
    number = np.arange(-IMAGES, IMAGES + 1)
    # Along an axis: images at (1 - 2q) x + 2 n L, which |n - q| + |n| walls of the axis have reflected.
    places, walls = [], []
    for side, source, ear in zip(sides_m, source_m, ear_m, strict=True):
        image = np.concatenate([(1 - 2 * q) * source + 2 * number * side for q in (0, 1)])
        places.append(image - ear)
        walls.append(np.concatenate([np.abs(number - q) + np.abs(number) for q in (0, 1)]))
    squared = [place**2 for place in places]
    metres = np.sqrt(squared[0][:, None, None] + squared[1][None, :, None] + squared[2][None, None, :]).ravel()
    hits = (walls[0][:, None, None] + walls[1][None, :, None] + walls[2][None, None, :]).ravel()
    metres = np.maximum(metres, 0.05)
    delay = np.rint((metres - metres.min()) / SPEED_OF_SOUND_M_S * sample_rate_hz).astype(np.int64)
    heard = delay < samples
    weights = (reflected**hits / metres)[heard]
    return np.asarray(np.bincount(delay[heard], weights=weights, minlength=samples), np.float64)


def overdrive(signal_S: FloatArray, given: SoundKin) -> FloatArray:
    """A stage driven 10 to 40 dB too hard, softly and not alike up and down; one time in three in 8 to 32 steps."""
    rng = given.rng
    peak = float(np.abs(signal_S).max(initial=0.0))
    drive, bias = 10.0 ** (rng.uniform(10.0, 40.0) / 20.0), rng.uniform(-0.4, 0.4)
    steps = 2.0 ** int(rng.integers(2, 5)) if rng.random() < 1 / 3 else 0.0
    if peak == 0.0:
        return signal_S.copy()
    driven = np.tanh(drive * signal_S.astype(np.float64) / peak + bias) - np.tanh(bias)
    if steps:
        driven = np.rint(driven * steps) / steps
    return np.asarray(peak * driven / max(float(np.abs(driven).max()), 1e-12), np.float32)


def training_voices(signal_S: FloatArray, given: SoundKin) -> FloatArray:
    """One to three training clips on top, each begun at a random place, at -5 to 15 dB in all."""
    rng = given.rng
    noise = np.zeros_like(signal_S)
    for place in rng.choice(len(given.clips), size=min(int(rng.integers(1, 4)), len(given.clips)), replace=False):
        other = np.roll(given.clips[place], int(rng.integers(len(signal_S))))
        noise += other / np.float32(max(float(np.sqrt(np.square(other).mean())), 1e-6))
    return mixed(signal_S, noise, rng.uniform(-5.0, 15.0))


SOUND_KIN: Final[dict[str, Callable[[FloatArray, SoundKin], FloatArray]]] = {
    f.__name__: f for f in (coloured_noise, room, overdrive, training_voices)
}


def _as_loud(changed: npt.NDArray[np.float64], signal_S: FloatArray) -> FloatArray:
    wanted = float(np.sqrt(np.square(signal_S.astype(np.float64)).mean()))
    return (changed * (wanted / max(float(np.sqrt(np.square(changed).mean())), 1e-12))).astype(np.float32)
