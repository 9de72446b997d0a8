"""Reorder buffer: rows arrive in any order and leave in the order of the inputs; a bounded number is held back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Final

from dimml_client.scoring.recording import Scored
from dimml_client.scoring.table.rows import Row

#: Recordings that may be started while an earlier one is not done; a file that hangs delays no more than these…
RECORDINGS_AHEAD: Final = 2048
#: …and rows that may wait for those of an earlier recording.
ROWS_AHEAD: Final = 20_000


class ReorderBuffer:
    """Takes rows in any order and returns them in order: by recording, then by position.

    ``room`` is called by engine threads, the rest by one thread.
    """

    def __init__(self, first: int, *, recordings_ahead: int = RECORDINGS_AHEAD, rows_ahead: int = ROWS_AHEAD) -> None:
        self._recordings_ahead = recordings_ahead
        self._rows_ahead = rows_ahead
        self._changed = threading.Condition()
        self._waiting: dict[int, dict[int, Row]] = {}
        self._ends: dict[int, int] = {}
        self._rows = 0
        #: The recording whose rows are returned next.
        self.index = first
        self._position = 0

    def room(self, index: int, timeout_s: float) -> bool:
        """Whether rows of this recording may be made, waiting up to ``timeout_s``. The next recording always may."""
        with self._changed:
            return self._changed.wait_for(
                lambda: (
                    index <= self.index
                    or (index < self.index + self._recordings_ahead and self._rows < self._rows_ahead)
                ),
                timeout_s,
            )

    def take(self, scored: Scored) -> Iterator[tuple[Row, bool]]:
        """Add one row; yield every row whose turn has come, and whether it is its recording's last."""
        with self._changed:
            self._waiting.setdefault(scored.index, {})[scored.position] = dict(scored.row)
            self._rows += 1
            if scored.last:
                self._ends[scored.index] = scored.position
        while (row := self._waiting.get(self.index, {}).pop(self._position, None)) is not None:
            last = self._ends.get(self.index) == self._position
            with self._changed:
                self._rows -= 1
                if last:
                    del self._waiting[self.index], self._ends[self.index]
                    self.index, self._position = self.index + 1, 0
                else:
                    self._position += 1
                self._changed.notify_all()
            yield row, last
