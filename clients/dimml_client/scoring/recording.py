"""One recording to score, as the listing of inputs names it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

#: The part that serves every modality without a file of its own.
MEDIA_PART: Final = "media"


@dataclass(frozen=True, slots=True)
class Recording:
    """One recording. ``parts``: paths or URLs by modality, or ``media``; ``index``: place in the listing, from 0."""

    index: int
    id: str
    parts: Mapping[str, str]
    start_s: float | None = None
    end_s: float | None = None
    #: The correct label, from a manifest.
    truth: str | None = None
    #: Why this line of a manifest cannot be scored, if it cannot.
    problem: str | None = None
    #: Which of several tracks; None: the main one.
    audio_track: str | None = None
    video_track: str | None = None

    @property
    def path(self) -> str:
        """All of its files as one text."""
        return " + ".join(dict.fromkeys(self.parts.values()))


@dataclass(frozen=True, slots=True)
class Scored:
    """One row of one recording. ``position`` counts its rows from 0; ``last`` marks the last one.

    Rows of a recording, and recordings, may come in any order.
    """

    index: int
    position: int
    row: Mapping[str, object]
    last: bool = True
