"""Colours of heads, the same in every report, plot and page.

A modality has the colour of its place in the bundle, the fused head the one after the last modality. A test holds how
far apart the six are with protanopia, deuteranopia and tritanopia (Machado et al. 2009, IEEE TVCG 15(6)).
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Final

#: sRGB on a light page and on a dark one, in the order of heads.
LIGHT: Final = ("#2a6fbb", "#d9722b", "#1a9a72", "#4a1f63", "#5c0b1b", "#7a532a")
DARK: Final = ("#6aa6e8", "#ee9a5b", "#4fe0b5", "#b44df0", "#e0557c", "#e9dc3c")
#: The answer stands out from all heads.
ANSWER: Final = "#17191c"


def css_class(index: int) -> str:
    """CSS class (``c0`` to ``c5``) of the head at a place in the order; after the last colour the first follows."""
    return f"c{index % len(LIGHT)}"


def head_colours(heads: Sequence[str]) -> dict[str, str]:
    """Colour of each head on a light page, by name."""
    return {head: LIGHT[index % len(LIGHT)] for index, head in enumerate(heads)}


def style_sheet() -> str:
    """Style sheet of self-contained pages, light and dark; its variables ``--c0`` to ``--c5`` are the palette."""
    return (files(__package__) / "page.css").read_text(encoding="utf-8")
