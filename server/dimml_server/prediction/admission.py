"""Admission of requests: a bounded number run, a bounded number wait in a queue, the rest are refused."""

from __future__ import annotations

import asyncio
from collections import deque
from time import perf_counter
from types import TracebackType
from typing import Self

from dimml.errors import DeadlineExceededError, QueueFullError

#: Weight of the newest request in the running mean of how long a request holds its permit.
_MEAN_WEIGHT = 0.1


class Permit:
    """Leave to run for the block of a context manager, after ``queue_s`` seconds in the queue."""

    def __init__(self, admission: Admission, queue_s: float) -> None:
        self.queue_s = queue_s
        self._admission = admission
        self._granted = perf_counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._admission.end(perf_counter() - self._granted)


class Admission:
    """Permits to run, handed out first come, first served. A cancelled waiter leaves the queue."""

    def __init__(self, *, concurrency: int, queue_length: int, queue_wait_s: float) -> None:
        self._concurrency = concurrency
        self._queue_length = queue_length
        self._queue_wait_s = queue_wait_s
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._running = 0
        self._mean_work_s = 0.1

    @property
    def running(self) -> int:
        """Number of requests that hold a permit."""
        return self._running

    @property
    def waiting(self) -> int:
        """Number of requests that wait for a permit."""
        return len(self._waiters)

    def refusal(self) -> QueueFullError | None:
        """Return the error that ``permit`` would raise at once, or None."""
        if self._running >= self._concurrency and len(self._waiters) >= self._queue_length:
            return self._full("the queue is full")
        return None

    async def permit(self, timeout_s: float) -> Permit:
        """Wait for a permit; the caller must enter it at once.

        Raises QueueFullError at once if the queue is full, or once the queue's own wait limit has passed;
        DeadlineExceededError if ``timeout_s`` passes first.
        """
        began = perf_counter()
        await self._acquire(timeout_s)
        return Permit(self, perf_counter() - began)

    def end(self, held_s: float) -> None:
        """Take back a permit that was held for ``held_s``."""
        self._mean_work_s += _MEAN_WEIGHT * (held_s - self._mean_work_s)
        self._release()

    async def _acquire(self, timeout_s: float) -> None:
        if self._running < self._concurrency:
            self._running += 1
            return
        if (full := self.refusal()) is not None:
            raise full
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(min(timeout_s, self._queue_wait_s)):
                await waiter
        except BaseException as error:
            if waiter.done() and not waiter.cancelled():
                # The permit was handed over in the same turn of the event loop: pass it on.
                self._release()
            elif waiter in self._waiters:
                self._waiters.remove(waiter)
            if not isinstance(error, TimeoutError):
                raise
            if timeout_s <= self._queue_wait_s:
                raise DeadlineExceededError("the request's time ran out while it waited for its turn") from None
            raise self._full(f"no turn came within {self._queue_wait_s:g} s") from None

    def _release(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            # A waiter cancelled in this turn of the event loop has not removed itself yet.
            if not waiter.done():
                waiter.set_result(None)
                return  # The permit is passed on: as many requests run as before.
        self._running -= 1

    def _full(self, why: str) -> QueueFullError:
        # Estimated time until the current queue has been worked off.
        drain_s = (len(self._waiters) + 1) * self._mean_work_s / self._concurrency
        return QueueFullError(f"the server is busy: {why}; try again later", retry_after_s=max(1.0, drain_s))
