"""Final families of pictures and flow, on a clip's UINT8 ``[frames, height, width, channels]``.

Each takes the severity, a generator and whether the clip is optical flow, whose values 0 to 255 are vectors about 128:
what hides a picture hides its motion, and what moves adds its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

Clip = npt.NDArray[np.uint8]
PictureFamily = Callable[[Clip, float, np.random.Generator, bool], npt.NDArray[Any]]

REST: Final = 128.0
#: Brightness of fog.
HAZE: Final = 205.0
#: Vectors of falling rain, in values of flow: to the side per unit of slant, and down.
FALL: Final = 70.0


def rain(clip: Clip, density: float, rng: np.random.Generator, flow: bool) -> npt.NDArray[Any]:
    """Streaks of rain, all of one slant, ``density`` of them for each 100 pixels, new ones in every frame."""
    return raining(clip, np.full(len(clip), density), rng, flow)


def raining(clip: Clip, density_T: npt.NDArray[Any], rng: np.random.Generator, flow: bool) -> npt.NDArray[Any]:
    """Rain of a density for each frame."""
    frames, height, width = clip.shape[:3]
    out = clip.astype(np.float32)
    slant = rng.uniform(-0.4, 0.4)
    for t in range(frames):
        layer = np.zeros((height, width), np.float32)
        for _ in range(round(float(density_T[t]) * height * width / 100.0)):
            x, y = rng.uniform(0, width), rng.uniform(-0.2 * height, height)
            length = rng.uniform(0.12, 0.35) * height
            ends = [(round(x), round(y)), (round(x + slant * length), round(y + length))]
            cv2.line(layer, ends[0], ends[1], rng.uniform(0.4, 1.0), 1, cv2.LINE_AA)
        streaks = np.minimum(cv2.GaussianBlur(layer, (0, 0), 0.5), 1.0)[:, :, None]
        drop = np.array([REST + FALL * slant, REST + FALL], np.float32) if flow else np.float32(235.0)
        veil = out[t] if flow else out[t] * 0.9 + 12.0
        out[t] = veil + streaks * (drop - veil)
    return out


def fog(clip: Clip, thickness: float, rng: np.random.Generator, flow: bool) -> npt.NDArray[Any]:
    """Drifting fog, in the mean ``thickness`` of the picture's light and never the same at two places."""
    frames, height, width = clip.shape[:3]
    # Clouds of three sizes on a field wider than the picture, through which it drifts.
    field = np.zeros((height, 2 * width), np.float32)
    for cells in (2, 4, 8):
        small = rng.random((cells, 2 * cells), dtype=np.float32)
        field += cv2.resize(small, (2 * width, height), interpolation=cv2.INTER_CUBIC) / cells
    field = (field - field.min()) / max(float(np.ptp(field)), 1e-6)
    drift = rng.uniform(0.0, 1.0)
    out = clip.astype(np.float32)
    for t in range(frames):
        start = round(width * (drift * t / max(frames - 1, 1)))
        part = field[:, start : start + width]
        dense = np.clip(thickness + (part - part.mean()) * (1.0 - thickness), 0.0, 1.0)[:, :, None]
        out[t] += dense * ((REST if flow else HAZE) - out[t])
    return out


def motion_blur(clip: Clip, share: float, rng: np.random.Generator, flow: bool) -> npt.NDArray[Any]:
    """Smeared along one direction over ``share`` of the width, as by a camera that turns; flow has the turn itself."""
    length = max(3, round(share * clip.shape[2]))
    angle = rng.uniform(0.0, np.pi)
    middle = length // 2
    kernel = np.zeros((2 * middle + 1, 2 * middle + 1), np.float32)
    by = np.array([np.cos(angle), np.sin(angle)]) * middle
    ends = [tuple(int(v) for v in np.round(middle + sign * by)) for sign in (-1, 1)]
    cv2.line(kernel, ends[0], ends[1], 1.0, 1)
    kernel /= kernel.sum()
    blurred = [cv2.filter2D(frame, cv2.CV_32F, kernel, borderType=cv2.BORDER_REPLICATE) for frame in clip]
    turn = 127.0 * share * np.array([np.cos(angle), np.sin(angle)]) if flow else 0.0
    return np.asarray(np.stack(blurred).reshape(clip.shape) + turn)


def zoom(clip: Clip, factor: float, rng: np.random.Generator, flow: bool) -> npt.NDArray[Any]:
    """Nearer or further away by ``factor``, off the middle by up to a tenth; beyond the edge is its mirror image."""
    height, width = clip.shape[1:3]
    scale = factor if rng.random() < 0.5 else 1.0 / factor
    off = rng.uniform(-0.1, 0.1, 2) * (width, height)
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    shift = centre + off - scale * centre
    matrix = np.array([[scale, 0.0, shift[0]], [0.0, scale, shift[1]]])
    how = cv2.INTER_LINEAR if scale > 1 else cv2.INTER_AREA
    moved = np.stack(
        [cv2.warpAffine(f, matrix, (width, height), flags=how, borderMode=cv2.BORDER_REFLECT_101) for f in clip]
    ).reshape(clip.shape)
    # A picture twice as large moves twice as far.
    return REST + scale * (moved.astype(np.float32) - REST) if flow else moved


def moving_bar(clip: Clip, share: float, rng: np.random.Generator, flow: bool) -> npt.NDArray[Any]:
    """A striped bar, ``share`` of the width wide, passes before the picture; it may slant."""
    frames, height, width = clip.shape[:3]
    slant, stripes = rng.uniform(-0.3, 0.3), rng.uniform(0.1, 0.4)
    colours = rng.integers(0, 256, (2, clip.shape[3])).astype(np.float32)
    sense = 1.0 if rng.random() < 0.5 else -1.0
    start, span = rng.uniform(0.1, 0.4), rng.uniform(0.3, 0.5)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    across = (columns + slant * (rows - height / 2)) / width
    out = clip.astype(np.float32)
    for t in range(frames):
        middle = start + span * (t / (frames - 1) if frames > 1 else 0.5)
        inside = np.abs((across if sense > 0 else 1.0 - across) - middle) < share / 2
        if flow:
            moved = 127.0 * span / max(frames - 1, 1)
            out[t][inside] = np.clip(REST + sense * 4.0 * moved, 0, 255), REST
        else:
            striped = (np.sin(2.0 * np.pi * rows / (stripes * height)) > 0).astype(np.int64)
            out[t][inside] = colours[striped[inside]]
    return out


def rolling_band(clip: Clip, depth: float, rng: np.random.Generator, flow: bool) -> npt.NDArray[Any]:
    """Dark bands roll through the picture, ``depth`` of its light gone within, as under a flickering lamp."""
    frames, height = clip.shape[:2]
    bands, phase, roll = rng.uniform(0.8, 2.0), rng.uniform(0.0, 1.0), rng.uniform(0.15, 0.6)
    rows = np.arange(height, dtype=np.float32) / height
    out = clip.astype(np.float32)
    for t in range(frames):
        wave = 0.5 + 0.5 * np.cos(2.0 * np.pi * (bands * rows + phase + roll * t))
        gain = (1.0 - depth * np.sqrt(wave))[:, None, None]
        out[t] = REST + gain * (out[t] - REST) if flow else gain * out[t]
    return out


PICTURE: Final[Mapping[str, PictureFamily]] = {
    "rain": rain,
    "fog": fog,
    "motion_blur": motion_blur,
    "zoom": zoom,
    "moving_bar": moving_bar,
    "rolling_band": rolling_band,
}
