"""Final families that damage sound and pictures at once, by one cause whose course in time both share.

After the co-occurring, correlated corruptions of AVRobustBench (Maharana et al. 2025, arXiv 2506.00358): rain, wind,
concert, and, for a bad connection, interference. A generator made from the same key is given for every modality; the
first thing drawn from it is the course, so that a gust is heard while the picture shakes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from dimml_training.corruptions.final.picture import REST, Clip, PictureFamily, raining
from dimml_training.corruptions.final.sound import (
    PACKET_S,
    Doubles,
    Samples,
    SoundFamily,
    add,
    blowing,
    conceal,
    gusts,
    tune,
)

#: Points in time at which a course is drawn.
COURSE: Final = 64
#: Signal-to-noise ratio in dB at which what causes the damage is heard, at severity 0; a unit of severity takes 10 dB.
MILD_SNR_DB: Final = 5.0


def rainstorm_sound(signal: Samples, severity: float, rng: np.random.Generator, rate_hz: int) -> npt.NDArray[Any]:
    """Drops on the roof: a hiss above 1 kHz and single impacts, as dense as the rain that is seen."""
    falling = _over(gusts(COURSE, rng), len(signal))
    hertz = np.fft.rfftfreq(len(signal), 1.0 / rate_hz)
    hiss = np.fft.irfft(np.fft.rfft(rng.standard_normal(len(signal))) * hertz / (hertz + 1000.0), n=len(signal))
    impacts = (rng.random(len(signal)) < 1500.0 * falling / rate_hz) * rng.exponential(1.0, len(signal))
    tail = np.exp(-np.arange(round(0.004 * rate_hz)) / (0.001 * rate_hz)) * rng.standard_normal(round(0.004 * rate_hz))
    drops = np.convolve(impacts, tail)[: len(signal)]
    noise = falling * hiss / max(float(hiss.std()), 1e-9) + drops / max(float(drops.std()), 1e-9)
    return add(signal, noise, _snr_db(severity))


def rainstorm_picture(clip: Clip, severity: float, rng: np.random.Generator, flow: bool) -> npt.NDArray[Any]:
    """Rain as dense as it is heard."""
    return raining(clip, severity * _over(gusts(COURSE, rng), len(clip)), rng, flow)


def gale_sound(signal: Samples, severity: float, rng: np.random.Generator, rate_hz: int) -> npt.NDArray[Any]:
    """Wind on the microphone, loudest when the camera shakes most."""
    return add(signal, blowing(_over(gusts(COURSE, rng), len(signal)), rng, rate_hz), _snr_db(severity) - 10.0)


def gale_picture(clip: Clip, severity: float, rng: np.random.Generator, flow: bool) -> npt.NDArray[Any]:
    """The camera shakes in the gusts: frames are displaced by up to ``severity`` tenths of the height, and smeared."""
    strength = _over(gusts(COURSE, rng), len(clip))
    height, width = clip.shape[1:3]
    by = rng.uniform(-1.0, 1.0, (len(clip), 2)) * strength[:, None] * (0.1 * severity * height)
    out = np.empty(clip.shape, np.float32)
    for t, (x, y) in enumerate(by):
        matrix = np.array([[1.0, 0.0, x], [0.0, 1.0, y]])
        moved = cv2.warpAffine(clip[t], matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
        smear = max(1, round(abs(x))), max(1, round(abs(y)))
        out[t] = cv2.blur(moved, smear).reshape(clip.shape[1:])
    if flow:
        out += np.diff(by, axis=0, prepend=by[:1])[:, None, None, :] * (127.0 / 20.0)
    return out


def concert_sound(signal: Samples, severity: float, rng: np.random.Generator, rate_hz: int) -> npt.NDArray[Any]:
    """Music that swells with the lights."""
    beat = _over(_beats(rng), len(signal))
    return add(signal, tune(len(signal), rng, rate_hz) * (0.3 + beat), _snr_db(severity))


def concert_picture(clip: Clip, severity: float, rng: np.random.Generator, flow: bool) -> npt.NDArray[Any]:
    """A dark hall with coloured lights that flash on the beat; flow flickers where the light moves."""
    beat = _over(_beats(rng), len(clip))
    height, width = clip.shape[1:3]
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    out = clip.astype(np.float32)
    dim = 1.0 / (1.0 + severity)
    for t in range(len(clip)):
        y, x = rng.uniform(0.0, 1.0, 2) * (height, width)
        spot = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (0.3 * height) ** 2)[:, :, None]
        if flow:
            out[t] = REST + (out[t] - REST) * dim + rng.uniform(-60.0, 60.0, 2) * spot * beat[t] * severity
        else:
            light = rng.dirichlet((0.7,) * clip.shape[3]).astype(np.float32)
            out[t] = out[t] * dim + 400.0 * light * spot * beat[t] * min(severity, 1.5)
    return out


def bad_link_sound(signal: Samples, severity: float, rng: np.random.Generator, rate_hz: int) -> npt.NDArray[Any]:
    """Packets do not arrive while the link is down, and are concealed."""
    packets = -(-len(signal) // round(PACKET_S * rate_hz))
    return conceal(signal, _over(_outages(severity, rng), packets) > 0.5, rate_hz)


def bad_link_picture(clip: Clip, severity: float, rng: np.random.Generator, flow: bool) -> npt.NDArray[Any]:
    """While the link is down, blocks of the picture stay as they were or are of another place; flow rests in them."""
    down = _over(_outages(severity, rng), len(clip)) > 0.5
    height, width = clip.shape[1:3]
    block = max(4, height // 6)
    out = clip.copy()
    for t in (int(frame) for frame in np.flatnonzero(down)):
        before = out[max(t - 1, 0)].copy()
        for top in range(0, height, block):
            for left in range(0, width, block):
                drawn = rng.random()
                here = (slice(top, top + block), slice(left, left + block))
                if drawn < 0.55:
                    out[t][here] = round(REST) if flow else before[here]
                elif drawn < 0.9:
                    down_by, right_by = (int(by) for by in rng.integers(-block, block + 1, 2))
                    out[t][here] = np.roll(before, (down_by, right_by), axis=(0, 1))[here]
    return out


def out_of_step_sound(signal: Samples, share: float, rng: np.random.Generator, rate_hz: int) -> npt.NDArray[Any]:
    """Half of a lag of ``share`` of the row, early or late; what moves in mirrors what is there."""
    by = round(share / 2.0 * len(signal)) * (1 if rng.random() < 0.5 else -1)
    padded = np.pad(signal, abs(by), mode="reflect")
    return np.asarray(padded[abs(by) - by : abs(by) - by + len(signal)])


def out_of_step_picture(clip: Clip, share: float, rng: np.random.Generator, flow: bool) -> npt.NDArray[Any]:
    """The other half of the lag, the other way, in whole frames, at least one; the picture at the edge stands still."""
    by = max(1, round(share / 2.0 * len(clip))) * (-1 if rng.random() < 0.5 else 1)
    return clip[np.clip(np.arange(len(clip)) - by, 0, len(clip) - 1)]


TOGETHER: Final[Mapping[str, tuple[SoundFamily, PictureFamily]]] = {
    "out_of_step": (out_of_step_sound, out_of_step_picture),
    "rainstorm": (rainstorm_sound, rainstorm_picture),
    "gale": (gale_sound, gale_picture),
    "concert": (concert_sound, concert_picture),
    "bad_link": (bad_link_sound, bad_link_picture),
}


def _snr_db(severity: float) -> float:
    return MILD_SNR_DB - 10.0 * severity


def _over(course: Doubles, points: int) -> Doubles:
    """The course at the middles of ``points`` equal parts of the row."""
    return np.asarray(np.interp((np.arange(points) + 0.5) / points, (np.arange(COURSE) + 0.5) / COURSE, course))


def _beats(rng: np.random.Generator) -> Doubles:
    """One to four beats in the row, each sudden and fading."""
    count, phase = rng.uniform(1.0, 4.0), rng.uniform(0.0, 1.0)
    return np.asarray(np.exp(-4.0 * ((np.arange(COURSE) / COURSE * count + phase) % 1.0)))


def _outages(severity: float, rng: np.random.Generator) -> Doubles:
    """1 where the link is down: two outages, together ``severity`` of the row."""
    lengths = rng.dirichlet((3.0, 3.0)) * severity * COURSE
    free = COURSE - lengths.sum()
    first = rng.uniform(0.0, free)
    second = first + lengths[0] + rng.uniform(0.0, free - first)
    place = np.arange(COURSE)
    down = ((place >= first) & (place < first + lengths[0])) | ((place >= second) & (place < second + lengths[1]))
    return np.asarray(down, np.float64)
