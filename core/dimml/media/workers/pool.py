"""Decoding in worker processes, so that a file that hangs or kills a decoder costs one worker, never the server.

Own code rather than pebble: its pool shares one pipe among all workers and is broken for good once an idle worker
is killed (tried, 5.1: every later task fails), and it notices a dead or late worker only every 0.1 s. Here each
worker has a pipe and a thread of its own; a round trip costs well under a millisecond.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import queue
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from dimml.errors import DimmlError, UnavailableError
from dimml.media.decoders.recording import decode
from dimml.media.decoders.windows import WindowDecoded, WindowPlan
from dimml.media.sandbox.sandbox import Isolation
from dimml.media.types import Decoded, DecodeRequest
from dimml.media.workers.blame import Step, advance, attempts, only
from dimml.media.workers.jobs import Job, StreamJob
from dimml.media.workers.messages import Answered, DecodeFunction, Lost, Outcome, WindowsRequest, WorkerSettings
from dimml.media.workers.process import PATIENCE_S, START_TIMEOUT_S
from dimml.media.workers.supervisor import Keeper
from dimml.status import Reason

logger = logging.getLogger(__name__)

DECODE_MEMORY_BYTES: Final = 1536 * 2**20
#: A keeper answers this soon after a job's time is up.
_GRACE_S: Final = 0.25


def too_late(job: Job) -> Lost | UnavailableError:
    """What came of a job that has no answer in its time: it is lost where a worker is at it, which its keeper is about
    to kill, however late on a busy machine."""
    if job.future.cancel():
        return UnavailableError("no decode worker was free in time")
    return Lost(Reason.DECODE_TIMEOUT)


class DecodePool:
    """Worker processes that run ``decode_function``, with a time limit per request and a memory limit per worker.

    ``decode_memory_bytes`` is what a worker may use beyond what its imports took. ``readable`` are the only folders
    from which workers may read recordings, where the kernel can hold them to it; None means that recordings may lie
    anywhere. ``decode_function`` must be importable by name; tests pass one that crashes. A context manager; workers
    start at once, in the background.
    """

    def __init__(
        self,
        workers: int,
        *,
        decode_memory_bytes: int = DECODE_MEMORY_BYTES,
        readable: Sequence[Path] | None = None,
        decode_function: DecodeFunction = decode,
    ) -> None:
        if workers < 1:
            raise ValueError(f"workers must be at least 1, got {workers}")
        self._jobs: queue.SimpleQueue[Job | StreamJob | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._lost = 0
        self._isolation: Isolation | None = None
        self._closed = False
        # Pickled here, so that a function no worker could import is an error of the caller and not of the workers.
        settings = pickle.dumps(WorkerSettings(decode_function, decode_memory_bytes, readable))
        self._keepers = [Keeper(self._jobs, settings, self._note_isolation, self._count_lost) for _ in range(workers)]

    async def decode(self, request: DecodeRequest, *, timeout_s: float) -> Decoded:
        """Like ``dimml.media.decode``, in a worker, within ``timeout_s``.

        A track whose decoding kills a worker, outlasts its time or its memory is ``unusable`` with the reason
        ``decoder_crashed``, ``decode_timeout`` or ``decode_memory``; where there are other tracks, they are tried
        again without it. Raises what ``dimml.media.decode`` raises, and UnavailableError where no worker was free
        in time or none can be started. Where the caller is cancelled, a worker that does not end soon is killed.
        """
        end = time.monotonic() + timeout_s
        trying = attempts(request, end, lambda: self._closed)
        step: Step | Decoded = next(trying)
        while not isinstance(step, Decoded):
            outcome: Outcome | UnavailableError
            try:
                job = self._submit((step[0],), step[1], end)
                async with asyncio.timeout(end - time.monotonic() + _GRACE_S):
                    outcome = only(await asyncio.wrap_future(job.future))
            except asyncio.CancelledError:
                if not job.future.cancel():
                    asyncio.get_running_loop().call_later(PATIENCE_S, self._abandon, job)
                raise
            except TimeoutError:
                outcome = too_late(job)
            except UnavailableError as error:
                outcome = error
            step = advance(trying, outcome)
        return step

    def decode_blocking(self, request: DecodeRequest, *, timeout_s: float) -> Decoded:
        """``decode`` for callers without an event loop; from any thread."""
        end = time.monotonic() + timeout_s
        trying = attempts(request, end, lambda: self._closed)
        step: Step | Decoded = next(trying)
        while not isinstance(step, Decoded):
            outcome: Outcome | UnavailableError
            try:
                outcome = only(self._wait_for((step[0],), step[1], end))
            except UnavailableError as error:
                outcome = error
            step = advance(trying, outcome)
        return step

    def decode_several(self, requests: Sequence[DecodeRequest], *, limit_s: float, timeout_s: float) -> list[Answered]:
        """Decode, in one worker, requests so quick that the way there and back would cost much of the time; blocking.

        Answers to the first so many of them, at least one: an error is an answer, a Lost is a request to be decoded
        alone, by ``decode_blocking``, which finds out what is to blame. Where the worker is lost, or has not done
        within ``limit_s`` what was to take no time, that is all of them. Raises UnavailableError where no worker was
        free within ``timeout_s``.
        """
        answers = self._wait_for(requests, limit_s, time.monotonic() + timeout_s)
        return [Answered(answers, 0.0) for _ in requests] if isinstance(answers, Lost) else answers

    def map(self, requests: Iterable[DecodeRequest], *, timeout_s: float) -> Iterator[Decoded | DimmlError]:
        """One result for each request, in order; a request's error is its result. ``requests`` is read lazily.

        ``timeout_s`` counts for each request from when a worker could take it.
        """

        def one(request: DecodeRequest) -> Decoded | DimmlError:
            try:
                return self.decode_blocking(request, timeout_s=timeout_s)
            except DimmlError as error:
                return error

        # One thread per worker: a request waits here, where its time does not run, rather than in the queue.
        with ThreadPoolExecutor(len(self._keepers), "dimml-decode-map") as threads:
            running: deque[Future[Decoded | DimmlError]] = deque()
            for request in requests:
                running.append(threads.submit(one, request))
                if len(running) >= 2 * len(self._keepers):
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()

    def stream(
        self, request: DecodeRequest, plan: WindowPlan, first: int, *, timeout_s: float
    ) -> Generator[WindowDecoded | Lost]:
        """``decode_windows`` in a worker, ``timeout_s`` for each chunk of windows. A Lost, where
        the worker is, is the last item; ``dimml.media.workers.timeline`` goes on after it.

        Raises what ``decode_windows`` raises, and UnavailableError. Closing the iterator ends the worker's part.
        """
        job = StreamJob(WindowsRequest(request, plan, first), timeout_s)
        with self._lock:
            if self._closed:
                raise UnavailableError("the decode pool is closed")
            self._jobs.put(job)
        return job.items()

    def warm_up(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Block until all workers are ready. Raises UnavailableError where one is not."""
        end = time.monotonic() + timeout_s
        for keeper in self._keepers:
            if not keeper.started.wait(max(0.0, end - time.monotonic())) or not keeper.alive:
                raise UnavailableError("a decode worker could not be started")

    @property
    def workers_lost(self) -> int:
        """Workers that died, or were killed for being late or busy for nobody, since the pool began."""
        return self._lost

    @property
    def isolation(self) -> Isolation | None:
        """How the workers are shut in; None before the first has started."""
        return self._isolation

    def close(self) -> None:
        """Kill the workers. Requests still running or waiting get UnavailableError. Calling it again does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        for keeper in self._keepers:
            keeper.close()
        for _ in self._keepers:
            self._jobs.put(None)
        for keeper in self._keepers:
            keeper.join()
        while not self._jobs.empty():
            job = self._jobs.get()
            if isinstance(job, StreamJob):
                job.put(UnavailableError("the decode pool is closed"))
            elif job is not None and job.future.set_running_or_notify_cancel():
                job.future.set_exception(UnavailableError("the decode pool is closed"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _wait_for(self, requests: Sequence[DecodeRequest], limit_s: float, end: float) -> list[Answered] | Lost:
        """What a worker makes of them, by ``end``. Raises UnavailableError."""
        job = self._submit(requests, limit_s, end)
        try:
            return job.future.result(end - time.monotonic() + _GRACE_S)
        except TimeoutError:
            outcome = too_late(job)
        if isinstance(outcome, UnavailableError):
            raise outcome
        return outcome

    def _submit(self, requests: Sequence[DecodeRequest], limit_s: float, end: float) -> Job:
        job = Job(requests, limit_s, end)
        with self._lock:
            if self._closed:
                raise UnavailableError("the decode pool is closed")
            self._jobs.put(job)
        return job

    def _abandon(self, job: Job) -> None:
        for keeper in self._keepers:
            keeper.abandon(job)

    def _note_isolation(self, isolation: Isolation) -> None:
        with self._lock:
            known, self._isolation = self._isolation, isolation
        if isolation != known:
            logger.log(logging.WARNING if isolation.missing else logging.INFO, "decode workers: %s", isolation)

    def _count_lost(self) -> None:
        with self._lock:
            self._lost += 1
