"""Rows in the order of the inputs, whatever order they come in, without holding more than a bounded number back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Final

from dimml_client.scoring.recording import Scored
from dimml_client.scoring.rows import Row

#: Recordings that may be taken up while an earlier one is not done: a file that hangs holds up no more than these.
RECORDINGS_AHEAD: Final = 2048


class InOrder:
    """Takes rows in any order and gives them in theirs. ``room`` is called by any thread, ``take`` by one."""

    def __init__(self, first: int, *, recordings_ahead: int = RECORDINGS_AHEAD) -> None:
        self._recordings_ahead = recordings_ahead
        self._moved = threading.Condition()
        self._waiting: dict[int, Row] = {}
        #: The recording whose row is given next.
        self.index = first

    def room(self, index: int, timeout_s: float) -> bool:
        """Whether this recording may be taken up; waits for it so long. The one that is next always may."""
        with self._moved:
            return self._moved.wait_for(lambda: index < self.index + self._recordings_ahead, timeout_s)

    def take(self, scored: Scored) -> Iterator[Row]:
        """Put one row in; give every row whose turn it now is. ``index`` is past a row once it is given."""
        self._waiting[scored.index] = dict(scored.row)
        while (row := self._waiting.pop(self.index, None)) is not None:
            with self._moved:
                self.index += 1
                self._moved.notify_all()
            yield row
