"""What waits in a decode pool's queue for a worker: a message of requests, or a recording in windows."""

from __future__ import annotations

import queue
from collections.abc import Generator, Sequence
from concurrent.futures import Future
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import Final

from dimml.errors import DimmlError
from dimml.media.decoders.windows import WindowDecoded
from dimml.media.types import DecodeRequest
from dimml.media.workers.messages import Answered, Lost, WindowsRequest

#: Items between worker and caller, and how often either looks whether the other is still there.
_AHEAD: Final = 16
_LOOK_S: Final = 0.1


@dataclass(slots=True)
class Job:
    """Requests for one worker, which may answer the first so many of them. ``limit_s`` counts from when they are
    handed over, ``end`` is monotonic time."""

    requests: Sequence[DecodeRequest]
    limit_s: float
    end: float
    future: Future[list[Answered] | Lost] = field(default_factory=Future)
    #: The caller's, so that what is logged of a job can be told to be of its request.
    context: Context = field(default_factory=copy_context)


class StreamJob:
    """One recording's windows for one worker, whose keeper puts them in; ``limit_s`` is for each chunk."""

    def __init__(self, request: WindowsRequest, limit_s: float) -> None:
        self.request = request
        self.limit_s = limit_s
        self.stopped = False
        self._items: queue.Queue[WindowDecoded | Lost | DimmlError | None] = queue.Queue(_AHEAD)

    def put(self, item: WindowDecoded | Lost | DimmlError | None) -> bool:
        """From the keeper; None is the end. Blocks while the caller is behind; false where it has gone."""
        while not self.stopped:
            try:
                self._items.put(item, timeout=_LOOK_S)
            except queue.Full:
                continue
            return True
        return False

    def items(self) -> Generator[WindowDecoded | Lost]:
        """For the caller. Raises the DimmlError that was put in."""
        try:
            while (item := self._items.get()) is not None:
                if isinstance(item, DimmlError):
                    raise item
                yield item
                if isinstance(item, Lost):
                    return
        finally:
            self.stopped = True
