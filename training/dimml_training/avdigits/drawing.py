"""Handwritten digits, drawn large, moved and cluttered over frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from dimml_training.avdigits.voices import Split

Uint8Array = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]
#: Images ``[N, 8, 8]`` in [0, 1] by digit.
Glyphs = dict[int, FloatArray]

PICTURE_PX: Final = 96
#: scikit-learn's digits are 8x8, each cell a count from 0 to 16.
_CELL_MAX: Final = 16.0
#: The file keeps the order in which they were collected: a writer's digits are together. Contiguous stretches
#: (fractions of the file) therefore keep most writers within one split, which random picking would not.
_SPLIT_BOUNDS: Final[dict[Split, tuple[float, float]]] = {
    "train": (0.0, 0.7),
    "validation": (0.7, 0.8),
    "test": (0.8, 1.0),
}


def load_glyphs(split: Split) -> Glyphs:
    """The handwritten digits of one split."""
    from sklearn.datasets import load_digits

    data = load_digits()
    first, last = (int(bound * len(data.target)) for bound in _SPLIT_BOUNDS[split])
    images = np.asarray(data.images[first:last] / _CELL_MAX, dtype=np.float32)
    labels = data.target[first:last]
    return {digit: images[labels == digit] for digit in range(10)}


@dataclass(frozen=True, slots=True)
class _Path:
    """Straight path of an object over time t in [0, 1], in pixels."""

    start: FloatArray
    end: FloatArray

    def at(self, t: float) -> FloatArray:
        return self.start + (self.end - self.start) * np.float32(t)


@dataclass(frozen=True, slots=True)
class _Stroke:
    """A piece of clutter: a line that moves along a path."""

    path: _Path
    span: FloatArray
    colour: tuple[int, int, int]
    thickness: int


def _background(rng: np.random.Generator) -> FloatArray:
    """A smooth blotchy picture ``[PICTURE_PX, PICTURE_PX, 3]`` in 0..255."""
    corners = rng.uniform(20.0, 235.0, 3) + rng.uniform(-45.0, 45.0, (5, 5, 3))
    smooth = cv2.resize(corners.astype(np.float32), (PICTURE_PX, PICTURE_PX), interpolation=cv2.INTER_CUBIC)
    return np.clip(smooth, 0.0, 255.0)


def _ink(background: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Random colour ``[3]`` that stands out from the background: at least 60 grey levels away from it."""
    mean = float(background.mean())
    darker = mean > 255.0 / 2
    grey = rng.uniform(0.0, max(mean - 70.0, 1.0)) if darker else rng.uniform(min(mean + 70.0, 254.0), 255.0)
    return np.clip(grey + rng.uniform(-25.0, 25.0, 3), 0.0, 255.0).astype(np.float32)


def _clutter(rng: np.random.Generator, strokes: int) -> list[_Stroke]:
    """Short moving lines, kept small beside the digit."""

    def point(low: float, high: float) -> FloatArray:
        return rng.uniform(low, high, 2).astype(np.float32)

    return [
        _Stroke(
            path=_Path(point(0.0, PICTURE_PX), point(0.0, PICTURE_PX)),
            span=point(-14.0, 14.0),
            colour=(int(rng.integers(256)), int(rng.integers(256)), int(rng.integers(256))),
            thickness=int(rng.integers(1, 4)),
        )
        for _ in range(strokes)
    ]


def draw(glyph: FloatArray, frames: int, rng: np.random.Generator) -> Uint8Array:
    """RGB pictures ``[frames, PICTURE_PX, PICTURE_PX, 3]`` of an 8x8 ``glyph`` that drifts, turns and breathes.

    Between 0 and 6 strokes of clutter move over it; the last thing added is camera noise.
    """
    background = _background(rng)
    ink = _ink(background, rng)
    clutter = _clutter(rng, int(rng.integers(0, 7)))
    centre, reach = PICTURE_PX / 2, PICTURE_PX * 0.13
    path = _Path(
        rng.uniform(centre - reach, centre + reach, 2).astype(np.float32),
        rng.uniform(centre - reach, centre + reach, 2).astype(np.float32),
    )
    turn_deg = rng.uniform(-14.0, 14.0, 2)
    scale = rng.uniform(0.5, 0.78, 2) * PICTURE_PX / glyph.shape[0]
    noise_levels = rng.uniform(0.0, 6.0)
    pictures = np.empty((frames, PICTURE_PX, PICTURE_PX, 3), np.uint8)
    for index in range(frames):
        t = index / max(frames - 1, 1)
        angle, zoom = turn_deg[0] + t * (turn_deg[1] - turn_deg[0]), scale[0] + t * (scale[1] - scale[0])
        middle = (glyph.shape[0] - 1) / 2.0
        matrix = cv2.getRotationMatrix2D((middle, middle), float(angle), float(zoom))
        matrix[:, 2] += path.at(t) - middle
        mask = cv2.warpAffine(glyph, matrix, (PICTURE_PX, PICTURE_PX), flags=cv2.INTER_CUBIC)
        # The 8x8 counts are soft: a steep ramp around half turns them into strokes with a smooth edge.
        alpha = np.clip((mask - 0.3) / 0.3, 0.0, 1.0)[..., None]
        picture = background * (1.0 - alpha) + ink * alpha
        for stroke in clutter:
            at = stroke.path.at(t)
            begin, end = (at - stroke.span / 2).astype(int), (at + stroke.span / 2).astype(int)
            cv2.line(picture, begin.tolist(), end.tolist(), stroke.colour, stroke.thickness, cv2.LINE_AA)
        picture += rng.standard_normal(picture.shape, dtype=np.float32) * np.float32(noise_levels)
        pictures[index] = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    return pictures
