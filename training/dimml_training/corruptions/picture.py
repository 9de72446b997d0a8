"""Corruptions of pictures and flow, one function per family, on a clip's UINT8 ``[frames, height, width, channels]``.

The second parameter is the severity, in the unit that the docstring names. Covered parts of a flow are at rest (128).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from dimml_training.corruptions.bitrate import through_h264, through_jpeg

ByteArray = npt.NDArray[np.uint8]

#: Grey of a covered picture, and flow at rest.
GREY = 128


@dataclass(frozen=True)
class PictureSource:
    """Inputs of a family besides the clip: random numbers, whether it is flow, and another clip."""

    rng: np.random.Generator
    flow: bool
    #: Another clip of the same set, shaped alike; only ``patch`` looks at it.
    other: ByteArray


def pixel_noise(clip_THWC: ByteArray, deviation: float, given: PictureSource) -> ByteArray:
    """Gaussian noise of ``deviation`` (of 255) in every value."""
    noise = given.rng.standard_normal(clip_THWC.shape, dtype=np.float32)
    noise *= np.float32(deviation)
    noise += clip_THWC
    return _bytes(noise)


def blur(clip_THWC: ByteArray, share: float, given: PictureSource) -> ByteArray:
    """Gaussian blur; its deviation is ``share`` of the height."""
    sigma = share * clip_THWC.shape[1]
    return np.stack([cv2.GaussianBlur(frame, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE) for frame in clip_THWC])


def darkness(clip_THWC: ByteArray, factor: float, given: PictureSource) -> ByteArray:
    """Values times ``factor``, rounded to bytes again."""
    return _table(clip_THWC, lambda value: value * factor)


def glare(clip_THWC: ByteArray, added: float, given: PictureSource) -> ByteArray:
    """Overexposed: ``added`` (of 255) to every value, cut at 255."""
    return _table(clip_THWC, lambda value: value + added)


def fading(clip_THWC: ByteArray, factor: float, given: PictureSource) -> ByteArray:
    """Contrast times ``factor`` about the clip's mean, as in fog; slower flow."""
    middle = GREY if given.flow else float(clip_THWC.mean())
    return _table(clip_THWC, lambda value: (value - middle) * factor + middle)


def grey_box(clip_THWC: ByteArray, share: float, given: PictureSource) -> ByteArray:
    """A grey rectangle, ``share`` of height and width, at one place in all frames."""
    rows, columns = _box(clip_THWC, share, given.rng.random(2))
    out = clip_THWC.copy()
    out[:, rows, columns] = GREY
    return out


def down_sampling(clip_THWC: ByteArray, factor: float, given: PictureSource) -> ByteArray:
    """Shrunk by ``factor`` (mean of an area) and enlarged again (linear)."""
    height, width = clip_THWC.shape[1:3]
    small = (max(1, round(width / factor)), max(1, round(height / factor)))
    return np.stack(
        [
            cv2.resize(cv2.resize(frame, small, interpolation=cv2.INTER_AREA), (width, height))
            for frame in clip_THWC
        ]
    )  # fmt: skip


def dropped_frames(clip_THWC: ByteArray, share: float, given: PictureSource) -> ByteArray:
    """``share`` of the frames, any of them but never all, are black; flow at rest."""
    frames = len(clip_THWC)
    out = clip_THWC.copy()
    count = min(max(1, round(share * frames)), frames - 1)
    out[given.rng.choice(frames, size=count, replace=False)] = GREY if given.flow else 0
    return out


def frozen_frames(clip_THWC: ByteArray, share: float, given: PictureSource) -> ByteArray:
    """Freeze a run of frames, ``share`` of all: each repeats the frame before the run, or the run's first."""
    frames = len(clip_THWC)
    count = min(max(1, round(share * frames)), frames - 1)
    start = int(given.rng.integers(0, frames - count + 1))
    out = clip_THWC.copy()
    out[start : start + count] = clip_THWC[max(start - 1, 0)]
    return out


def camera_shake(clip_THWC: ByteArray, deviation: float, given: PictureSource) -> ByteArray:
    """Camera shake, for flow only: every frame moves as a whole by a Gaussian displacement of ``deviation`` bytes."""
    by = given.rng.standard_normal((len(clip_THWC), 1, 1, clip_THWC.shape[3]), dtype=np.float32) * np.float32(deviation)
    return _bytes(clip_THWC + by)


def lower_part(clip_THWC: ByteArray, share: float, given: PictureSource) -> ByteArray:
    """The lower ``share`` of the picture, give or take a fifth of it, is covered by a sheet of one random colour."""
    out = clip_THWC.copy()
    covered = share * given.rng.uniform(0.8, 1.2) * clip_THWC.shape[1]
    start = clip_THWC.shape[1] - max(1, round(covered))
    colour = given.rng.integers(0, 256, clip_THWC.shape[3])
    out[:, start:] = GREY if given.flow else colour
    return out


def patch(clip_THWC: ByteArray, share: float, given: PictureSource) -> ByteArray:
    """Occlusion: a patch of ``share`` of height and width, near the middle, shows another clip upside down."""
    rows, columns = _box(clip_THWC, share, given.rng.uniform(0.3, 0.7, 2))
    out = clip_THWC.copy()
    out[:, rows, columns] = given.other[:, ::-1][:, rows, columns]
    return out


def tilt(clip_THWC: ByteArray, degrees: float, given: PictureSource) -> ByteArray:
    """Turned to one side by ``degrees``, give or take a fifth of it; the border is repeated. Vectors of flow stay."""
    height, width = clip_THWC.shape[1:3]
    angle = degrees * given.rng.uniform(0.8, 1.2) * given.rng.choice((-1.0, 1.0))
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1.0)
    return np.stack(
        [cv2.warpAffine(frame, turn, (width, height), borderMode=cv2.BORDER_REPLICATE) for frame in clip_THWC]
    ).astype(np.uint8)


def low_bitrate(clip_THWC: ByteArray, quantiser: float, given: PictureSource) -> ByteArray:
    """Low bit rate: moving pictures as H.264 with a fixed ``quantiser`` (0 to 51), single pictures and flow as JPEG.

    The quality of JPEG is 100 · (51 - ``quantiser``) / 51. Flow is compressed as a grey picture per direction, as it is
    kept in files.
    """
    if len(clip_THWC) > 1 and not given.flow:
        return through_h264(clip_THWC, round(quantiser))
    quality = round(100 * (51 - quantiser) / 51)
    if given.flow:
        planes = clip_THWC.transpose(0, 3, 1, 2)
        return np.ascontiguousarray(
            np.stack([[through_jpeg(plane, quality) for plane in frame] for frame in planes]).transpose(0, 2, 3, 1)
        )
    return np.stack([through_jpeg(frame, quality) for frame in clip_THWC])


def black(clip_THWC: ByteArray, amount: float, given: PictureSource) -> ByteArray:
    """No signal: black, and flow at rest."""
    return np.full_like(clip_THWC, GREY if given.flow else 0)


PICTURE: dict[str, Callable[[ByteArray, float, PictureSource], ByteArray]] = {
    f.__name__: f
    for f in (
        *(pixel_noise, blur, darkness, glare, fading, grey_box, down_sampling, dropped_frames, frozen_frames),
        *(camera_shake, lower_part, patch, tilt, low_bitrate, black),
    )
}


def _box(clip_THWC: ByteArray, share: float, place: npt.NDArray[np.float64]) -> tuple[slice, slice]:
    """Rows and columns of a rectangle; ``place`` says where between the ends, 0 to 1."""
    sides = [max(1, round(share * size)) for size in clip_THWC.shape[1:3]]
    starts = [round(p * (size - side)) for p, size, side in zip(place, clip_THWC.shape[1:3], sides, strict=True)]
    rows, columns = (slice(start, start + side) for start, side in zip(starts, sides, strict=True))
    return rows, columns


def _table(clip_THWC: ByteArray, change: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]) -> ByteArray:
    """Look every byte up: the change of one depends on nothing else."""
    return _bytes(change(np.arange(256, dtype=np.float32)))[clip_THWC]


def _bytes(values: npt.NDArray[np.float32]) -> ByteArray:
    return np.rint(values).clip(0, 255).astype(np.uint8)
