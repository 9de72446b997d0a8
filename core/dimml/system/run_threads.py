"""Daemon threads for calls that may never return: reused when idle, bounded in number, never joined at exit.

``concurrent.futures`` would join its threads when the interpreter ends, so one stuck run would keep the process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

#: Does the work, then gives what reports it. The thread counts as idle before it reports, so that work handed in
#: on that report finds it, and no thread is started in its stead.
Job = Callable[[], Callable[[], None]]


class RunThreads:
    """A pool of at most ``limit`` threads. ``submit`` and ``close`` are called from one thread alone."""

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._limit = limit
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._started = 0
        self._lock = threading.Lock()
        self._unfinished = 0

    def submit(self, job: Job) -> None:
        """Run ``job``, which must not raise, on an idle thread, a new one, or the next that comes free."""
        with self._lock:
            self._unfinished += 1
            grow = self._unfinished > self._started and self._started < self._limit
            self._started += grow
        self._jobs.put(job)
        if grow:
            threading.Thread(target=self._work, name=f"{self._name}-{self._started}", daemon=True).start()

    def close(self) -> None:
        """Let every thread end once it is idle."""
        for _ in range(self._started):
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            report = job()
            with self._lock:
                self._unfinished -= 1
            report()
            del job, report  # They hold the run's tensors; an idle thread must not.
