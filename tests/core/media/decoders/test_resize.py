"""``resize: yuv_area``: conversion and reduction in one step, against averages of the pixels that were put in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from dimml.digests import historic
from dimml.modality import Frames, Region
from support.decoding import decode_source, row_of
from support.media_maker import set_display_matrix, write_clip


def one_frame(height: int, width: int, **fields: Any) -> Frames:
    return Frames(name="visual", frames=1, height=height, width=width, resize="yuv_area", **fields)


def shown(source: Path | bytes, modality: Frames) -> npt.NDArray[np.int64]:
    return row_of(decode_source(source, modality), "visual")[0].astype(int)


def gradients() -> npt.NDArray[np.uint8]:
    """Smooth in both directions and in colour, with nothing that is symmetric: ``[64, 96, 3]``."""
    y, x = np.mgrid[0:64, 0:96]
    return np.stack([40 + 2 * x, 60 + 2 * y, 200 - x - y // 2], axis=-1).astype(np.uint8)


def clip(path: Path) -> Path:
    return write_clip(path, 0.2, picture=lambda index: gradients(), sound=None)


def test_a_reduced_picture_is_the_mean_of_its_pixels(tmp_path: Path) -> None:
    means = gradients().reshape(16, 4, 24, 4, 3).mean(axis=(1, 3))
    found = shown(clip(tmp_path / "clip.mp4"), one_frame(16, 24))
    assert np.abs(found - means).mean() < 1.2
    assert np.abs(found - means).max() < 5.0


@pytest.mark.parametrize("matrix", [(0, 1, -1, 0), (0, -1, 1, 0), (0, 1, 1, 0), (-1, 0, 0, -1), (1, 0, 0, -1)])
def test_it_is_upright(tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
    """The matrix sends (x, y) to (a·x + c·y, b·x + d·y), about the middle."""
    a, b, c, d = matrix
    means = gradients().reshape(16, 4, 24, 4, 3).mean(axis=(1, 3))
    height, width = (24, 16) if b else (16, 24)
    expected = np.zeros((height, width, 3))
    for y in range(16):
        for x in range(24):
            from_x, from_y = 2 * x - 23, 2 * y - 15
            expected[(b * from_x + d * from_y + height - 1) // 2, (a * from_x + c * from_y + width - 1) // 2] = means[
                y, x
            ]
    data = set_display_matrix(clip(tmp_path / "clip.mp4").read_bytes(), matrix)
    assert np.abs(shown(data, one_frame(height, width)) - expected).mean() < 1.2


def test_the_region_is_that_part_of_the_picture(tmp_path: Path) -> None:
    region = Region(left=0.25, top=0.5, right=0.75, bottom=1.0)
    means = gradients()[32:64, 24:72].reshape(8, 4, 12, 4, 3).mean(axis=(1, 3))
    assert np.abs(shown(clip(tmp_path / "clip.mp4"), one_frame(8, 12, region=region)) - means).mean() < 1.2


@pytest.mark.parametrize(
    "modality",
    [
        one_frame(128, 192),
        one_frame(16, 192),
        one_frame(48, 48, region=Region(left=0.4, top=0.4, right=0.6, bottom=0.6)),
    ],
)
def test_what_is_made_larger_is_converted_first(tmp_path: Path, modality: Frames) -> None:
    source = clip(tmp_path / "clip.mp4")
    before = modality.model_copy(update={"resize": "rgb_area"})
    np.testing.assert_array_equal(shown(source, modality), shown(source, before))


def test_the_default_leaves_earlier_digests_alone() -> None:
    before = Frames(name="visual", frames=1, height=8, width=8)
    assert historic(before)["resize"] is True
    assert "resize" not in historic(before.model_copy(update={"resize": "yuv_area"}))
