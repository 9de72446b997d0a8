"""Colours of heads: the same in every place, and apart for the colour-blind."""

from __future__ import annotations

from itertools import combinations
from typing import Final

import numpy as np
import numpy.typing as npt
import pytest

from dimml.look import palette

Vector = npt.NDArray[np.float64]

#: Machado, Oliveira and Fernandes 2009, table 1, severity 1.0, on linear RGB.
VISION: Final = {
    "usual": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
#: Ottosson 2020, "A perceptual color space for image processing": linear sRGB to LMS, and its cube root to OKLab.
LMS: Final = [
    [0.41222147, 0.53633254, 0.05144599],
    [0.2119035, 0.68069955, 0.10739696],
    [0.08830246, 0.28171884, 0.6299787],
]
LAB: Final = [
    [0.21045426, 0.79361779, -0.00407205],
    [1.9779985, -2.42859221, 0.45059371],
    [0.0259040, 0.78277177, -0.80867577],
]


def linear(colour: str) -> Vector:
    value = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255.0
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def oklab(rgb: Vector) -> Vector:
    return np.asarray(LAB @ np.cbrt(LMS @ np.clip(rgb, 0.0, 1.0)))


@pytest.mark.parametrize("colours", [palette.LIGHT, palette.DARK], ids=["light", "dark"])
@pytest.mark.parametrize("vision", VISION)
def test_heads_are_told_apart(vision: str, colours: tuple[str, ...]) -> None:
    """0.07 in OKLab is some three and a half just noticeable differences."""
    seen = [oklab(np.asarray(VISION[vision]) @ linear(colour)) for colour in colours]
    assert len(seen) == 6
    assert min(float(np.linalg.norm(one - other)) for one, other in combinations(seen, 2)) > 0.07


def test_the_style_sheet_has_the_colours_of_the_palette() -> None:
    style = palette.style_sheet()
    for colours in (palette.LIGHT, palette.DARK):
        assert " ".join(f"--c{index}: {colour};" for index, colour in enumerate(colours)) in style
    assert f"--ink: {palette.ANSWER};" in style
    assert all(f".{palette.css_class(index)} {{" in style for index in range(8))


def test_colours_go_by_place_and_begin_again() -> None:
    heads = [f"m{index}" for index in range(7)]
    found = palette.head_colours(heads)
    assert [found["m0"], found["m5"], found["m6"]] == [palette.LIGHT[0], palette.LIGHT[5], palette.LIGHT[0]]
