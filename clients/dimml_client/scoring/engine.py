"""What runs the scoring: ``local``, ``remote`` and ``on_ray`` are engines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Protocol, Self

from dimml_client.scoring.recording import Recording, Scored
from dimml_client.scoring.schema import ScoredBundle

#: Blocks until rows of the recording with this index may be made.
Room = Callable[[int], None]


def no_limit(index: int) -> None:
    """Room for every row at once."""


class Engine(Protocol):
    """A context manager that turns recordings into rows."""

    bundle: ScoredBundle

    def score(self, recordings: Iterable[Recording], room: Room) -> Iterator[Scored]:
        """All rows of all recordings, in any order, at least one of each. ``recordings`` is read lazily, from any
        thread, one at a time. Raises DimmlError where the run as a whole cannot go on."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
