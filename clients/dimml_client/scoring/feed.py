"""Recordings for many threads from one iterator, which is not safe to share."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice

from dimml_client.scoring.recording import Recording


class Feed:
    """Each recording goes to one of the threads that take."""

    def __init__(self, recordings: Iterable[Recording]) -> None:
        self._recordings = iter(recordings)
        self._returned: deque[Recording] = deque()
        self._lock = threading.Lock()

    def take(self, count: int = 1) -> list[Recording]:
        """The next so many; fewer at the end, and none after it."""
        with self._lock:
            taken = [self._returned.popleft() for _ in range(min(count, len(self._returned)))]
            return taken + list(islice(self._recordings, count - len(taken)))

    def give_back(self, recordings: Sequence[Recording]) -> None:
        """What was taken and not done comes next."""
        with self._lock:
            self._returned.extendleft(reversed(recordings))
