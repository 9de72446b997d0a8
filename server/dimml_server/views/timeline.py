"""A recording's windows one after the other: decoded ahead by a worker of their own, judged as they come.

A prediction's decode workers are for short work, and a timeline keeps one busy for minutes, or blocked where its caller
reads slowly. So timelines have a worker of their own, which starts with the first one, and take turns.
"""

from __future__ import annotations

import asyncio
import math
import sys
import threading
from collections.abc import AsyncIterator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final

from dimml.bundle import Bundle
from dimml.errors import BusyError, DimmlError, InvalidParameterError
from dimml.media.decoders.time_range import WindowDecoded, WindowPlan
from dimml.media.types import DecodeRequest
from dimml.media.workers.pool import DecodePool
from dimml.media.workers.timeline import decode_timeline
from dimml.prediction import Prediction
from dimml_server.prediction.call import HeldCall
from dimml_server.prediction.request import MediaPrediction
from dimml_server.settings.settings import ServerSettings

#: Bounds of windows and of their distance, seconds.
LEAST_S: Final = 0.01
MOST_S: Final = 86_400.0
_RETRY_AFTER_S: Final = 5.0
#: Longest time for the next windows to be decoded, however far apart they are.
_MOST_CHUNK_S: Final = 600.0
#: Time after a caller has left in which the decoder must come to an end by itself, before it is killed.
_PATIENCE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Judged:
    """One window, in seconds of the recording (None for media without time): its answer, or why there is none."""

    start_s: float | None
    end_s: float | None
    result: Prediction | DimmlError


def window_plan(bundle: Bundle, window_s: float | None, hop_s: float | None) -> WindowPlan:
    """Check the length of windows and their distance: by default the bundle's ``clip_s``, one after the other.

    Raises InvalidParameterError.
    """
    window_s = bundle.clip_s if window_s is None else window_s
    hop_s = window_s if hop_s is None else hop_s
    for name, value in (("window_s", window_s), ("hop_s", hop_s)):
        if not (math.isfinite(value) and LEAST_S <= value <= MOST_S):
            raise InvalidParameterError(
                f"{name} must be from {LEAST_S:g} to {MOST_S:g} seconds, got {value}", field=name
            )
    return WindowPlan(window_s, hop_s)


class Timelines:
    """Timelines of one process, one at a time. Lives in one event loop.

    ``make_pool`` starts their decode worker; ``close`` ends it.
    """

    def __init__(self, settings: ServerSettings, make_pool: Callable[[], DecodePool]) -> None:
        self._settings = settings
        self._make_pool = make_pool
        self._pool: DecodePool | None = None
        self._turn = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, "dimml-timeline")

    def close(self) -> None:
        """End the decode worker, and with it what is under way."""
        if self._pool is not None:
            self._pool.close()
        self._thread.shutdown(wait=False)

    @asynccontextmanager
    async def open(
        self, call: HeldCall, request: MediaPrediction, plan: WindowPlan
    ) -> AsyncIterator[AsyncIterator[Judged]]:
        """Decode the first window, and give an iterator over all of them, judged; leaving ends the work.

        Raises what is wrong with the request or with its recording as a whole, and BusyError if another timeline
        takes longer than the queue's time. The iterator raises DimmlError for a fault on the way.
        """
        limits = replace(self._settings.media_limits, max_seconds=math.inf, max_frames_decoded=sys.maxsize)
        decode_request = request.decode_request(call.bundle, limits)
        call.check(request)
        call.end(request.timeout_s)
        await self._take_turn()
        plan = replace(plan, most=self._settings.timeline_windows)
        windows = self._windows(decode_request, plan)
        try:
            first = await self._next(windows)
            if first is not None:
                plan.check(first.count)
            yield self._judged(call, request, windows, first)
        finally:
            # In the thread that reads, after what it reads now: that is a chunk of windows, not the whole recording.
            loop = asyncio.get_running_loop()
            ending = loop.run_in_executor(self._thread, windows.close)
            killing = loop.call_later(_PATIENCE_S, self._kill)
            ending.add_done_callback(lambda _: self._over(killing))

    def _over(self, killing: asyncio.TimerHandle) -> None:
        killing.cancel()
        self._turn.release()

    def _kill(self) -> None:
        """End the decode worker; the next timeline starts another."""
        pool, self._pool = self._pool, None
        if pool is not None:
            threading.Thread(target=pool.close, name="dimml-timeline-end", daemon=True).start()

    async def _take_turn(self) -> None:
        try:
            async with asyncio.timeout(self._settings.queue_wait_s):
                await self._turn.acquire()
        except TimeoutError:
            raise BusyError("another timeline is under way; try again later", retry_after_s=_RETRY_AFTER_S) from None

    def _windows(self, request: DecodeRequest, plan: WindowPlan) -> Generator[WindowDecoded]:
        if self._pool is None:
            self._pool = self._make_pool()
            self._pool.warm_up()
        limit_s = max(self._settings.max_timeout_s, min(2.0 * plan.stride_s, _MOST_CHUNK_S))
        yield from decode_timeline(self._pool, request, plan, timeout_s=limit_s)

    async def _next(self, windows: Generator[WindowDecoded]) -> WindowDecoded | None:
        return await asyncio.get_running_loop().run_in_executor(self._thread, next, windows, None)

    async def _judged(
        self,
        call: HeldCall,
        request: MediaPrediction,
        windows: Generator[WindowDecoded],
        first: WindowDecoded | None,
    ) -> AsyncIterator[Judged]:
        """Judge one window at a time, as they are asked for: a slow reader slows down the decoder."""
        one = first
        while one is not None:
            window = one.window
            result: Prediction | DimmlError
            try:
                result = await call.judge(one.decoded, request)
            except DimmlError as error:
                result = error
            start_s, end_s = (None, None) if window is None else (round(window.start_s, 6), round(window.end_s, 6))
            yield Judged(start_s, end_s, result)
            one = await self._next(windows)
