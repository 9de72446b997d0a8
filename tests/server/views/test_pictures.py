"""Frames and flow as PNG: the pixels that went in, the bounds, and the colours of the wheel by colorsys."""

from __future__ import annotations

import colorsys
import io
import itertools

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from dimml_server.views.pictures import (
    MAX_PICTURES,
    MAX_PIXELS,
    MAX_SIDE,
    chosen,
    flow_pngs,
    flow_scale_px,
    frame_pngs,
    shown_size,
)


def read(png: bytes) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(png)))


def test_frames_are_the_encoders_own_pixels() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (5, 24, 40, 3)).astype(np.uint8)
    for number, png in zip([0, 2, 4], frame_pngs(frames, [0, 2, 4]), strict=True):
        np.testing.assert_array_equal(read(png), frames[number])


@pytest.mark.parametrize(
    ("count", "height", "width"),
    [(1, 16, 16), (4, 16, 16), (100, 16, 16), (1024, 224, 224), (64, 512, 512), (9, 4096, 8)],
)
def test_pictures_are_bounded_and_evenly_chosen(count: int, height: int, width: int) -> None:
    numbers = chosen(count, height, width)
    shown = shown_size(height, width)
    assert max(shown) <= MAX_SIDE
    assert 1 <= len(numbers) <= min(count, MAX_PICTURES)
    assert len(numbers) * shown[0] * shown[1] <= MAX_PIXELS
    assert numbers[0] == 0
    if len(numbers) > 1:
        assert numbers[-1] == count - 1
        assert {b - a for a, b in itertools.pairwise(numbers)} <= {
            (count - 1) // (len(numbers) - 1),
            (count - 1) // (len(numbers) - 1) + 1,
        }


def test_a_large_picture_is_made_smaller() -> None:
    frames = np.zeros((1, 64, 2048, 3), np.uint8)
    frames[:, :, :1024] = 200
    small = read(frame_pngs(frames, [0])[0])
    assert small.shape == (16, MAX_SIDE, 3)
    assert small[:, : MAX_SIDE // 2 - 1].min() == 200
    assert small[:, MAX_SIDE // 2 + 1 :].max() == 0


@pytest.mark.parametrize(("right", "down"), [(60, 0), (0, 60), (-60, 0), (0, -60), (30, 45), (-20, -50), (0, 0)])
def test_flow_is_drawn_on_the_colour_wheel(right: int, down: int) -> None:
    bound_px = 20.0
    flow = np.full((1, 8, 8, 2), 128, np.uint8)
    flow[..., 0] += np.uint8(right % 256)
    flow[..., 1] += np.uint8(down % 256)
    scale_px = 12.0
    pixel = read(flow_pngs(flow, [0], bound_px, scale_px)[0])[3, 3]
    distance_px = np.hypot(right, down) * bound_px / 127
    hue = np.arctan2(down, right) / (2 * np.pi) % 1.0
    expected = 255 * np.array(colorsys.hsv_to_rgb(hue, min(1.0, distance_px / scale_px), 1.0))
    np.testing.assert_allclose(pixel, expected, atol=1.0)
    assert flow_scale_px(flow, bound_px) == pytest.approx(max(1.0, distance_px))
