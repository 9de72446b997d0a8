"""Colours of heads: the same for the same modality in the console, in reports and in plots."""

from __future__ import annotations

from typing import Final

#: In order of a bundle's modalities, then its fused head; begun again where there are more. They differ for people
#: with any one kind of cone missing too, and from white as graphics must (WCAG 2.2, 1.4.11).
HEAD_COLOURS: Final = ("#2a6fbb", "#d9722b", "#1a9a72", "#4a1f63", "#5c0b1b", "#7a532a")
#: The same on a dark ground.
HEAD_COLOURS_DARK: Final = ("#6aa6e8", "#ee9a5b", "#4fe0b5", "#b44df0", "#e0557c", "#e9dc3c")
