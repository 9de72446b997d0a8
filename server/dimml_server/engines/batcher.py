"""Calls of one model that come together become one run.

Nothing waits while the model is idle, unless a wait is set: what comes during a run makes up the next one. A call keeps
its own deadline, which its caller enforces by cancelling it: it then leaves the queue, or the run, which is asked to
stop once no call is left in it. Rows of a modality that is not ok never come here, and each call gets its own rows
back, so that masks and statuses stay those of its request.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from dimml.engine import EngineError
from dimml.status import Reason
from dimml_server.engines.ort_session import ModelSession
from dimml_server.engines.runs import Outputs, Run, Tensors

#: Hears of a run as it begins: its rows, and the seconds that each of its calls has waited.
Observe = Callable[[int, Sequence[float]], None]


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """How calls are put together."""

    #: Rows of a run, at most; 1 is no batching. A call of more rows runs alone.
    rows: int = 1
    #: Longest wait for more rows while no run is under way.
    wait_s: float = 0.0


@dataclass(eq=False, slots=True)
class _Call:
    tensors: Tensors
    rows: int
    arrived: float
    done: asyncio.Future[Outputs]
    #: Whether it shares its run: not after a run of several that failed, for which it may not be to blame.
    shares: bool = True


@dataclass(eq=False, slots=True)
class _Batch:
    calls: list[_Call]
    run: Run | None = None
    left: set[_Call] = field(default_factory=set)


class Batcher:
    """Runs of one model for calls of one event loop, one run at a time, in the order in which the calls came.

    The first call always runs next, with those behind it as far as they fit: none is overtaken, however many rows it
    has. Runs that were asked to stop do not hold up others, up to the session's bound of stray runs.
    """

    def __init__(self, session: ModelSession, limits: BatchLimits, observe: Observe) -> None:
        self._session, self._limits, self._observe = session, limits, observe
        self._queue: deque[_Call] = deque()
        self._running: _Batch | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """Calls whose run has not begun."""
        return len(self._queue)

    async def run(self, tensors: Tensors) -> Outputs:
        """Run the model on ``[B, …]`` inputs, perhaps with others; return outputs by name, of these rows alone.

        Raises EngineError.
        """
        self._session.check_room()
        loop = asyncio.get_running_loop()
        rows = len(next(iter(tensors.values())))
        call = _Call(tensors, rows, loop.time(), loop.create_future())
        self._queue.append(call)
        self._go_on()
        try:
            return await call.done
        except asyncio.CancelledError:
            self._leave(call)
            raise

    def close(self) -> None:
        """Fail the calls that wait; nothing is begun any more."""
        while self._queue:
            _fail(self._queue.popleft(), EngineError(Reason.ENCODER_GONE, "the model was unloaded"))
        self._stop_timer()

    def _leave(self, call: _Call) -> None:
        """Forget a call whose caller is gone."""
        if call in self._queue:
            self._queue.remove(call)
            if not self._queue:
                self._stop_timer()
            return
        batch = self._running
        if batch is None or call not in batch.calls:
            return  # Its run has ended just now.
        batch.left.add(call)
        if len(batch.left) == len(batch.calls) and batch.run is not None:
            batch.run.stop()
            self._running = None
            self._go_on()

    def _go_on(self) -> None:
        """Begin the next run, unless one is under way or more calls are waited for."""
        self._stop_timer()
        loop = asyncio.get_running_loop()
        while self._queue and self._running is None:
            due = self._queue[0].arrived + self._limits.wait_s
            ready = not self._queue[0].shares or sum(call.rows for call in self._queue) >= self._limits.rows
            if not ready and loop.time() < due:
                self._timer = loop.call_at(due, self._go_on)
                return
            self._begin(self._next(), loop)

    def _next(self) -> list[_Call]:
        calls = [self._queue.popleft()]
        rows = calls[0].rows
        while calls[0].shares and self._queue and self._queue[0].shares:
            rows += self._queue[0].rows
            if rows > self._limits.rows:
                break
            calls.append(self._queue.popleft())
        return calls

    def _begin(self, calls: list[_Call], loop: asyncio.AbstractEventLoop) -> None:
        try:
            # That it does not stall was asked when the calls came.
            self._session.check_strays()
        except EngineError as busy:
            for call in calls:
                _fail(call, EngineError(busy.reason, str(busy)))
            return
        batch = _Batch(calls)
        self._running = batch
        now = loop.time()
        self._observe(sum(call.rows for call in calls), [max(0.0, now - call.arrived) for call in calls])
        tell = self._session.tell
        batch.run = self._session.start(
            # Put together in the run's thread: rows of pictures are megabytes.
            calls[0].tensors if len(calls) == 1 else lambda: _joined(calls),
            lambda outcome: tell(loop, self._ended, batch, outcome),
            rows=sum(call.rows for call in calls),
        )

    def _ended(self, batch: _Batch, outcome: Outputs | EngineError) -> None:
        if batch.run is not None:
            batch.run.end()
        calls = [call for call in batch.calls if call not in batch.left]
        if not isinstance(outcome, EngineError):
            start = 0
            for call in batch.calls:
                if not call.done.done():
                    call.done.set_result({name: rows[start : start + call.rows] for name, rows in outcome.items()})
                start += call.rows
        elif len(batch.calls) == 1:
            for call in calls:
                _fail(call, outcome)
        else:
            # One of them made the model fail, for which the others must not pay: each runs once more, alone.
            for call in reversed(calls):
                call.shares = False
                self._queue.appendleft(call)
        if self._running is batch:
            self._running = None
        self._go_on()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _joined(calls: Sequence[_Call]) -> Tensors:
    return {name: np.concatenate([call.tensors[name] for call in calls]) for name in calls[0].tensors}


def _fail(call: _Call, error: EngineError) -> None:
    if not call.done.done():
        call.done.set_exception(error)
