"""Daemon threads for calls that may never return: reused when idle, bounded in number, never joined at exit.

``concurrent.futures`` joins its threads when the interpreter ends, so one stuck run would keep the process alive.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

#: Does the work, then returns a function that reports it. The thread counts as idle before it reports, so that work
#: submitted in response reuses this thread instead of starting another.
Work = Callable[[], Callable[[], None]]


class RunThreads:
    """A pool of at most ``limit`` threads. ``submit`` and ``close`` must be called from one thread only."""

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._limit = limit
        self._queue: SimpleQueue[Work | None] = SimpleQueue()
        self._started = 0
        self._lock = threading.Lock()
        self._unfinished = 0

    def submit(self, work: Work) -> None:
        """Run ``work``, which must not raise, on an idle thread, a new one, or the next one that becomes free."""
        with self._lock:
            self._unfinished += 1
            grow = self._unfinished > self._started and self._started < self._limit
            self._started += grow
        self._queue.put(work)
        if grow:
            threading.Thread(target=self._work, name=f"{self._name}-{self._started}", daemon=True).start()

    def close(self) -> None:
        """Let every thread end once it is idle."""
        for _ in range(self._started):
            self._queue.put(None)

    def _work(self) -> None:
        while (work := self._queue.get()) is not None:
            report = work()
            with self._lock:
                self._unfinished -= 1
            report()
            del work, report  # They hold the run's tensors; an idle thread must not.
