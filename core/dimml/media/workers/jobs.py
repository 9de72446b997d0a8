"""Jobs in a decode pool's queue: some requests to decode together, or a recording in windows."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Generator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import Final, TypeVar

from dimml.errors import DimmlError
from dimml.media.decoders.time_range import WindowDecoded
from dimml.media.types import DecodeRequest
from dimml.media.workers.messages import DecodeResult, Lost, WindowsRequest

T = TypeVar("T")

#: Items that may wait between a job's supervisor and its caller.
_QUEUE_ITEMS: Final = 16
#: How often a supervisor with a full queue checks that the caller is still there.
_POLL_S: Final = 0.1


@dataclass(slots=True)
class DecodeJob:
    """Requests for one worker, which may answer only the first of them.

    ``limit_s`` counts from when a worker gets them; ``end`` is monotonic time.
    """

    requests: Sequence[DecodeRequest]
    limit_s: float
    end: float
    future: Future[list[DecodeResult] | Lost] = field(default_factory=Future)
    #: The caller's, so that log lines about the job carry the caller's request.
    context: Context = field(default_factory=copy_context)


async def await_within(future: Future[T], limit_s: float) -> T:
    """Await a thread's future, which goes on where this is cancelled. Raises TimeoutError after ``limit_s``.

    ``asyncio.wrap_future`` within ``asyncio.timeout`` does the same in several times as many calls.
    """
    loop = asyncio.get_running_loop()
    waiting: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not waiting.done():
            waiting.set_result(None)

    def tell(_: Future[T]) -> None:
        with suppress(RuntimeError):  # The loop is closed.
            loop.call_soon_threadsafe(wake)

    future.add_done_callback(tell)
    timer = loop.call_later(limit_s, wake)
    try:
        await waiting
    finally:
        timer.cancel()
    return future.result(0)


class StreamJob:
    """One recording's windows from one worker; ``limit_s`` is for each chunk of them."""

    def __init__(self, request: WindowsRequest, limit_s: float) -> None:
        self.request = request
        self.limit_s = limit_s
        self.stopped = False
        self._items: queue.Queue[WindowDecoded | Lost | DimmlError | None] = queue.Queue(_QUEUE_ITEMS)

    def put(self, item: WindowDecoded | Lost | DimmlError | None) -> bool:
        """Hand an item, or None as the end, from the supervisor to the caller.

        Blocks while the caller is behind. Returns False if the caller has stopped.
        """
        while not self.stopped:
            try:
                self._items.put(item, timeout=_POLL_S)
            except queue.Full:
                continue
            return True
        return False

    def items(self) -> Generator[WindowDecoded | Lost]:
        """Yield items to the caller; a ``Lost`` is the last. Raises the DimmlError that was put in."""
        try:
            while (item := self._items.get()) is not None:
                if isinstance(item, DimmlError):
                    raise item
                yield item
                if isinstance(item, Lost):
                    return
        finally:
            self.stopped = True


#: Work for a supervisor.
Job = DecodeJob | StreamJob
