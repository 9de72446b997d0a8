"""The finding of one check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: ``mend``: the server would not start, or would fail requests. ``note``: it works, but the operator should know.
Level = Literal["ok", "note", "mend"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of one check: ``check`` names what was checked, ``fix`` what to do about it; empty if nothing."""

    check: str
    level: Level
    found: str
    fix: str = ""
