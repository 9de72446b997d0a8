"""Opened files that were used last, for all threads of a process."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

Value = TypeVar("Value")


class _Slot(Generic[Value]):
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.value: Value | None = None


class Recent(Generic[Value]):
    """Keeps the ``most`` values used last; each is made once, and used by one thread at a time."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._slots: OrderedDict[Hashable, _Slot[Value]] = OrderedDict()

    @contextmanager
    def using(self, key: Hashable, make: Callable[[], Value]) -> Iterator[Value]:
        """Give the value of ``key`` for the block. Raises what ``make`` raises; the next call tries again."""
        with self._lock:
            slot = self._slots.setdefault(key, _Slot())
            self._slots.move_to_end(key)
            while len(self._slots) > self._most:
                self._slots.popitem(last=False)
        with slot.lock:
            if slot.value is None:
                slot.value = make()
            yield slot.value


def file_state(location: str) -> tuple[int, int] | None:
    """Return what changes when a local file is written again; None for one elsewhere."""
    try:
        status = os.stat(location.removeprefix("file://"))  # noqa: PTH116  # a URL, perhaps
    except (OSError, ValueError):
        return None
    return status.st_mtime_ns, status.st_size
