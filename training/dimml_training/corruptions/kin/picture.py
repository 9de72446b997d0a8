"""Kin of damage to pictures and flow, one function per family, on a clip's UINT8 ``[frames, height, width, channels]``.

Each draws its own severity. In flow, what covers a picture is at rest or moves slowly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from dimml_training.corruptions.bitrate import through_jpeg
from dimml_training.corruptions.kin.textures import blob, cloud, half_plane, texture
from dimml_training.corruptions.picture import GREY

ByteArray = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class PictureKin:
    """Inputs besides the clip: random numbers, whether it is flow, and training clips shaped alike ``[K, ...]``."""

    rng: np.random.Generator
    flow: bool
    clips: ByteArray


def sheet(clip_THWC: ByteArray, given: PictureKin) -> ByteArray:
    """A textured sheet from any side covers 15 to 80 % of the picture."""
    height, width, channels = clip_THWC.shape[1:]
    covered = half_plane(given.rng, height, width, given.rng.uniform(0.15, 0.8))
    out = clip_THWC.copy()
    out[:, covered] = texture(given.rng, height, width, channels, flow=given.flow)[covered]
    return out


def thing(clip_THWC: ByteArray, given: PictureKin) -> ByteArray:
    """A textured, lobed thing anywhere before the camera, 5 to 60 % of the picture, moves a little."""
    frames, height, width, channels = clip_THWC.shape
    covered = blob(given.rng, height, width, given.rng.uniform(0.05, 0.6), frames)
    shown = texture(given.rng, height, width, channels, flow=given.flow)
    return np.where(covered[..., None], shown, clip_THWC)


def collage(clip_THWC: ByteArray, given: PictureKin) -> ByteArray:
    """A rectangle anywhere, 30 to 90 % of the sides, shows a piece of a training clip, upright or mirrored."""
    rng = given.rng
    frames, height, width, _ = clip_THWC.shape
    other = given.clips[int(rng.integers(len(given.clips)))]
    if rng.random() < 0.5:
        other = other[:, :, ::-1]
    shape = [max(1, round(share * side)) for share, side in zip(rng.uniform(0.3, 0.9, 2), (height, width), strict=True)]
    to, taken = (
        [int(rng.integers(0, side - size + 1)) for size, side in zip(shape, (height, width), strict=True)]
        for _ in range(2)
    )
    out = clip_THWC.copy()
    rows, columns = (slice(start, start + size) for start, size in zip(to, shape, strict=True))
    from_rows, from_columns = (slice(start, start + size) for start, size in zip(taken, shape, strict=True))
    begins = int(rng.integers(frames))
    out[:, rows, columns] = np.roll(other, begins, axis=0)[:, from_rows, from_columns]
    return out


def blotches(clip_THWC: ByteArray, given: PictureKin) -> ByteArray:
    """Noise in blotches, of a deviation from 15 to 80, half the time the same in every frame."""
    rng = given.rng
    frames, height, width, channels = clip_THWC.shape
    strength, knots, still = rng.uniform(15.0, 80.0), int(rng.integers(4, 17)), rng.random() < 0.5
    fields = [_field(rng, height, width, channels, knots) for _ in range(1 if still else frames)]
    return _bytes(clip_THWC + strength * np.stack(fields))


def exposure(clip_THWC: ByteArray, given: PictureKin) -> ByteArray:
    """Contrast times 2 to 8 about a random level, cut at 0 and 255; one time in three in 2 to 5 steps of grey."""
    rng = given.rng
    level, gain = rng.uniform(40.0, 215.0), np.exp(rng.uniform(np.log(2.0), np.log(8.0)))
    out = ((clip_THWC.astype(np.float64) - level) * gain + 128.0).clip(0, 255)
    if rng.random() < 1 / 3:
        step = 255.0 / int(rng.integers(1, 5))
        out = np.rint(out / step) * step
    return _bytes(out)


def warp(clip_THWC: ByteArray, given: PictureKin) -> ByteArray:
    """Bent like rubber by up to some 12 % of the sides and slanted, the same in every frame; the border is repeated."""
    rng = given.rng
    height, width = clip_THWC.shape[1:3]
    down, across = np.mgrid[0:height, 0:width].astype(np.float32)
    knots, reach = int(rng.integers(3, 6)), rng.uniform(0.05, 0.25)
    slant = rng.uniform(-0.3, 0.3)
    moved = [(cloud(rng, height, width, knots) - 0.5) * reach * side for side in (width, height)]
    columns = across + moved[0] + slant * (down - (height - 1) / 2)
    rows = down + moved[1]
    maps = (np.asarray(columns, np.float32), np.asarray(rows, np.float32))
    frames = [
        cv2.remap(frame, *maps, interpolation=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) for frame in clip_THWC
    ]
    return np.stack(frames).reshape(clip_THWC.shape).astype(np.uint8)


def jpeg(clip_THWC: ByteArray, given: PictureKin) -> ByteArray:
    """Every frame through JPEG of one quality from 2 to 25; of flow, every direction by itself."""
    quality = round(float(np.exp(given.rng.uniform(np.log(2.0), np.log(25.0)))))
    if not given.flow:
        return np.stack([through_jpeg(frame, quality) for frame in clip_THWC])
    planes = [[through_jpeg(np.ascontiguousarray(plane), quality) for plane in np.moveaxis(f, 2, 0)] for f in clip_THWC]
    return np.ascontiguousarray(np.moveaxis(np.array(planes, np.uint8), 1, 3))


def stutter(clip_THWC: ByteArray, given: PictureKin) -> ByteArray:
    """Pictures stand for a while and then jump, several times; flow rests, and then makes up for it at once."""
    rng, frames = given.rng, len(clip_THWC)
    shown_T = held_frames(rng, frames)
    if not given.flow:
        return np.asarray(clip_THWC[shown_T])
    moved = clip_THWC.astype(np.float64) - GREY
    passed = np.concatenate([np.zeros_like(moved[:1]), np.cumsum(moved, axis=0)])
    out = np.zeros_like(moved)
    for frame in range(1, frames):
        # What moved between the picture shown before and the one shown now.
        out[frame] = passed[shown_T[frame] + 1] - passed[shown_T[frame - 1] + 1]
    out[0] = moved[0]
    return _bytes(out + GREY)


def held_frames(rng: np.random.Generator, frames: int) -> npt.NDArray[np.int64]:
    """Frame that is shown at each of ``frames`` times, never a later one; each stands for two times or more."""
    shown = np.arange(frames)
    longest = max(2, frames // 2)
    frame = 0
    while frame < frames:
        length = int(rng.integers(2, longest + 1))
        shown[frame : frame + length] = frame
        frame += length
    return shown


PICTURE_KIN: Final[dict[str, Callable[[ByteArray, PictureKin], ByteArray]]] = {
    f.__name__: f for f in (sheet, thing, collage, blotches, exposure, warp, jpeg, stutter)
}


def _field(rng: np.random.Generator, height: int, width: int, channels: int, knots: int) -> npt.NDArray[np.float64]:
    """Smooth noise ``[height, width, channels]`` of mean 0 and deviation 1."""
    field = np.stack([cloud(rng, height, width, knots) for _ in range(channels)], axis=2)
    return np.asarray((field - field.mean()) / max(float(field.std()), 1e-9))


def _bytes(values: npt.NDArray[np.float64]) -> ByteArray:
    return np.asarray(np.rint(values).clip(0, 255), np.uint8)
