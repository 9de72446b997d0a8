"""What one check found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: ``mend``: the server would not start, or fail requests. ``note``: it works, and somebody should know.
Level = Literal["ok", "note", "mend"]


@dataclass(frozen=True, slots=True)
class Finding:
    """``check`` names what was looked at; ``fix`` what to do about it, empty where nothing."""

    check: str
    level: Level
    found: str
    fix: str = ""
