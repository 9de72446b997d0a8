"""Interface of scoring engines: ``local``, ``remote`` and ``ray``."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from types import TracebackType
from typing import Any, Protocol, Self

from dimml_client.scoring.recording import Recording, Scored
from dimml_client.scoring.table.schema import ScoredBundle

#: Whether rows of the recording with this index may be made; waits up to this many seconds for it.
Room = Callable[[int, float], bool]


def no_limit(index: int, timeout_s: float) -> bool:
    """Allow every row at once."""
    return True


class Engine(Protocol):
    """A context manager that turns recordings into rows."""

    bundle: ScoredBundle

    #: Settings that rows depend on, beside the bundle and the recording, as JSON: other settings make another run.
    settings: dict[str, Any]
    #: Whether it takes all recordings before it yields the first row, so that a stop must abandon it.
    takes_all_at_once: bool

    def score(self, recordings: Iterable[Recording], room: Room) -> Generator[Scored, None, None]:
        """Yield all rows of all recordings, in any order, at least one of each.

        ``recordings`` is read lazily, from any thread, by one at a time. Closing the iterator abandons the run.

        Raises DimmlError if the run as a whole cannot go on.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
