"""One palette everywhere, told apart by everybody."""

from __future__ import annotations

import itertools
import re

import numpy as np
import numpy.typing as npt
import pytest

from dimml.look import palette
from support.data import REPOSITORY_ROOT

#: Machado, Oliveira, Fernandes 2009, severity 1.0: linear RGB as seen without one kind of cone.
SIGHT = {
    "all": np.eye(3),
    "protan": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deutan": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritan": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
#: Smallest distance in CIELAB; 2.3 is just noticed side by side.
FAR = 14.0
GROUNDS = {"light": ("#ffffff", palette.LIGHT), "dark": ("#1d2024", palette.DARK)}


def linear(colour: str) -> npt.NDArray[np.float64]:
    srgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def lab(rgb: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    x, y, z = np.cbrt(XYZ @ np.clip(rgb, 0, 1) / XYZ.sum(axis=1))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("ground", GROUNDS)
def test_any_two_colours_differ_for_everybody(ground: str, sight: str) -> None:
    seen = [lab(SIGHT[sight] @ linear(colour)) for colour in GROUNDS[ground][1]]
    assert min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(seen, 2)) > FAR


@pytest.mark.parametrize("ground", GROUNDS)
def test_they_stand_out_from_the_ground(ground: str) -> None:
    behind, colours = GROUNDS[ground]
    for colour in colours:
        low, high = sorted(float(XYZ[1] @ linear(one)) + 0.05 for one in (behind, colour))
        assert high / low >= 3.0, colour


def test_the_console_and_reports_have_the_same_colours() -> None:
    tokens = (REPOSITORY_ROOT / "server" / "console" / "src" / "look" / "tokens.css").read_text(encoding="utf-8")
    pairs = re.findall(r"--c\d: light-dark\((#\w+), (#\w+)\)", tokens)
    assert tuple(zip(*pairs, strict=True)) == (palette.LIGHT, palette.DARK)
    style = palette.style_sheet()
    assert re.findall(r"--c\d: (#\w+)", style) == [*palette.LIGHT, *palette.DARK]
    assert f"--ink: {palette.ANSWER};" in style
    assert all(f".{palette.css_class(index)} {{" in style for index in range(8))


def test_colours_go_by_place_and_begin_again() -> None:
    found = palette.head_colours([f"m{index}" for index in range(7)])
    assert [found["m0"], found["m5"], found["m6"]] == [palette.LIGHT[0], palette.LIGHT[5], palette.LIGHT[0]]
