"""What runs the scoring: ``local``, ``remote`` and ``on_ray`` are engines."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from types import TracebackType
from typing import Any, Protocol, Self

from dimml_client.scoring.recording import Recording, Scored
from dimml_client.scoring.table.schema import ScoredBundle

#: Whether rows of the recording with this index may be made; waits for it so many seconds.
Room = Callable[[int, float], bool]


def no_limit(index: int, timeout_s: float) -> bool:
    """Room for every row at once."""
    return True


class Engine(Protocol):
    """A context manager that turns recordings into rows."""

    bundle: ScoredBundle

    #: What rows depend on beside the bundle and the recording, for JSON: with others, a run is another one.
    settings: dict[str, Any]
    #: Whether it has taken up all recordings before the first row comes: a stop then has to give it up.
    takes_all_at_once: bool

    def score(self, recordings: Iterable[Recording], room: Room) -> Generator[Scored, None, None]:
        """All rows of all recordings, in any order, at least one of each. ``recordings`` is read lazily, from any
        thread, by one at a time. Closing the iterator gives the run up.

        Raises DimmlError where the run as a whole cannot go on.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
