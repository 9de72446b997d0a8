"""Counts that all processes of a server see: shared memory, of which each process writes its own stretch alone."""

from __future__ import annotations

import mmap
import os
import zlib
from typing import Final

from dimml_server.counts import CONNECTIONS, READING, RUNNING, WAITING

#: Whether a process takes connections, and how many requests it works on at once.
ACCEPTING, CONCURRENCY = "accepting", "concurrency"
_NAMED: Final = (RUNNING, WAITING, READING, CONNECTIONS, ACCEPTING, CONCURRENCY)
_ROWS: Final = {name: row for row, name in enumerate(_NAMED)}
#: Cells of one process. Names without a row have one by a checksum: among a hundred names, two share a cell in one case
#: of 400. Memory is taken only for pages of cells that are used.
_CELLS: Final = 2**21
_CELL_BYTES: Final = 4


def make_board(processes: int) -> int:
    """Make a board of zeros for so many processes; return its descriptor."""
    descriptor = os.memfd_create("dimml-board")
    os.ftruncate(descriptor, processes * _CELLS * _CELL_BYTES)
    return descriptor


class Board:
    """The board of ``descriptor``, seen by process ``index``; the parent has no cells, and only clears others'."""

    def __init__(self, descriptor: int, processes: int, index: int = 0) -> None:
        self._processes = processes
        self._index = index
        self._memory = mmap.mmap(descriptor, 0)
        self._cells = memoryview(self._memory).cast("i")

    def count(self, name: str) -> SharedCount:
        """Return the count of a name, ``dimml_server.counts.Counts``."""
        row = _ROWS.get(name)
        if row is None:
            row = len(_ROWS) + zlib.crc32(name.encode()) % (_CELLS - len(_ROWS))
        return SharedCount(self._cells[row::_CELLS], self._index)

    def set(self, name: str, value: int) -> None:
        """Set this process's own value."""
        self._cells[self._index * _CELLS + _ROWS[name]] = value

    def clear(self, index: int) -> None:
        """Take back everything that a process held which has ended."""
        self._memory.madvise(mmap.MADV_REMOVE, index * _CELLS * _CELL_BYTES, _CELLS * _CELL_BYTES)

    def freer_elsewhere(self) -> bool:
        """Whether another process should take the next connection: one not full, or with fewer connections."""
        own = self._load(self._index)
        return any(
            self._value(ACCEPTING, other) and self._load(other) < own
            for other in range(self._processes)
            if other != self._index
        )

    def _load(self, index: int) -> tuple[bool, int]:
        full = self._value(RUNNING, index) >= self._value(CONCURRENCY, index)
        return full, self._value(CONNECTIONS, index)

    def _value(self, name: str, index: int) -> int:
        return self._cells[index * _CELLS + _ROWS[name]]


class SharedCount:
    """``dimml_server.counts.Count`` over one cell of each process.

    A process writes only its own cell, so that nothing is lost and no one waits for a lock, whatever moment another is
    killed in. It adds itself first and looks at the total then: of two at the last place both may be refused, but never
    are both let in, since a store is seen by others long before the interpreter's next steps.
    """

    def __init__(self, cells: memoryview[int], index: int) -> None:
        self._cells, self._index = cells, index

    @property
    def own(self) -> int:
        """Those of this process."""
        return self._cells[self._index]

    @property
    def total(self) -> int:
        """Those of all processes."""
        return sum(self._cells)

    def take(self, limit: int) -> bool:
        """Add one if that keeps the total within ``limit``; return whether it was added."""
        self._cells[self._index] += 1
        if self.total <= limit:
            return True
        self._cells[self._index] -= 1
        return False

    def give_back(self) -> None:
        """Take one away that was added."""
        self._cells[self._index] -= 1
