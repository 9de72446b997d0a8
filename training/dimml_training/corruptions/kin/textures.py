"""Textures and outlines of what stands before a camera, of any size."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from dimml_training.corruptions.picture import GREY

ByteArray = npt.NDArray[np.uint8]
UnitArray = npt.NDArray[np.float64]

#: How far from rest the parts of an occluder move, in flow.
FLOW_REACH = 25


def texture(rng: np.random.Generator, height: int, width: int, channels: int, *, flow: bool) -> ByteArray:
    """``[height, width, channels]``: plain, shaded, striped, chequered, cloudy or grainy, between two random colours.

    In flow these are movements of the occluder, within ``FLOW_REACH`` of rest.
    """
    low, high = (GREY - FLOW_REACH, GREY + FLOW_REACH + 1) if flow else (0, 256)
    one, other = (rng.integers(low, high, channels).astype(np.float64) for _ in range(2))
    down, across = np.mgrid[0:height, 0:width].astype(np.float64)
    angle = rng.uniform(0.0, np.pi)
    along = across * np.cos(angle) + down * np.sin(angle)
    period = rng.uniform(0.05, 0.5) * max(height, width)
    kind = int(rng.integers(6))
    if kind == 0:
        mix = np.zeros((height, width))
    elif kind == 1:
        mix = (along - along.min()) / max(float(np.ptp(along)), 1e-9)
    elif kind == 2:
        mix = 0.5 + 0.5 * np.sin(2 * np.pi * along / period + rng.uniform(0, 2 * np.pi))
    elif kind == 3:
        turned = down * np.cos(angle) - across * np.sin(angle)
        mix = (np.floor(along / period * 2) + np.floor(turned / period * 2)) % 2
    elif kind == 4:
        mix = cloud(rng, height, width, int(rng.integers(3, 9)))
    else:
        mix = rng.random((height, width))
    shown = one + mix[:, :, None] * (other - one)
    return np.asarray(np.rint(shown).clip(0, 255), np.uint8)


def cloud(rng: np.random.Generator, height: int, width: int, knots: int) -> UnitArray:
    """Smooth noise ``[height, width]`` from 0 to 1, of ``knots`` knots to a side."""
    coarse = rng.random((knots, knots)).astype(np.float32)
    fine = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.float64)
    return np.asarray(np.clip(fine, 0.0, 1.0))


def half_plane(rng: np.random.Generator, height: int, width: int, share: float) -> npt.NDArray[np.bool_]:
    """Mask ``[height, width]`` of what lies on one side of a line in any direction, ``share`` of all."""
    down, across = np.mgrid[0:height, 0:width].astype(np.float64)
    angle = rng.uniform(0.0, 2 * np.pi)
    along = across / width * np.cos(angle) + down / height * np.sin(angle)
    return np.asarray(along >= np.quantile(along, 1.0 - share))


def blob(rng: np.random.Generator, height: int, width: int, share: float, frames: int) -> npt.NDArray[np.bool_]:
    """Masks ``[frames, height, width]`` of a round, lobed outline of about ``share`` of the area, drifting a little."""
    down, across = (np.mgrid[0:height, 0:width] + 0.5).astype(np.float64)
    centre = rng.uniform(0.2, 0.8, 2)
    drift = rng.uniform(-0.15, 0.15, 2)
    lobes, turns = rng.uniform(0.0, 0.25, 3), rng.uniform(0.0, 2 * np.pi, 3)
    radius = np.sqrt(share / np.pi)
    masks = []
    for frame in range(frames):
        y, x = centre + drift * (frame / max(1, frames - 1) - 0.5)
        v, u = down / height - y, across / width - x
        bearing = np.arctan2(v, u)
        lobed = sum(a * np.cos(k * bearing + p) for k, a, p in zip((2, 3, 4), lobes, turns, strict=True))
        masks.append(np.hypot(u, v) <= radius * (1.0 + lobed))
    return np.stack(masks)
