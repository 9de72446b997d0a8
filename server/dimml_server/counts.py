"""Counts of what is under way, each against a limit: of this process alone, or of all processes of one server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Count(Protocol):
    """How many of something are under way. Used from one event loop, so without a lock."""

    @property
    def own(self) -> int:
        """Those of this process."""
        ...

    @property
    def total(self) -> int:
        """Those of all processes that share the count."""
        ...

    def take(self, limit: int) -> bool:
        """Add one if that keeps the total within ``limit``; return whether it was added."""
        ...

    def give_back(self) -> None:
        """Take one away that was added."""
        ...


#: Makes the count of a name; the same name gives the same count.
Counts = Callable[[str], Count]

#: Names of the counts that processes read of each other.
RUNNING, WAITING, READING, CONNECTIONS = "running", "waiting", "reading", "connections"


class OwnCount:
    """``Count`` of a process that is the whole server."""

    def __init__(self, name: str = "") -> None:
        self._own = 0

    @property
    def own(self) -> int:
        """Those of this process."""
        return self._own

    @property
    def total(self) -> int:
        """The same."""
        return self._own

    def take(self, limit: int) -> bool:
        """Add one unless there are ``limit``; return whether it was added."""
        if self._own >= limit:
            return False
        self._own += 1
        return True

    def give_back(self) -> None:
        """Take one away that was added."""
        self._own -= 1
