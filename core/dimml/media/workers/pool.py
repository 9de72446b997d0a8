"""Pool of decode workers: a file that hangs or kills a decoder costs one worker process, never the server.

Own code rather than pebble: its pool shares one pipe among all workers and is broken for good once an idle worker
is killed (tried, 5.1: every later task fails), and it notices a dead or late worker only every 0.1 s. Here each
worker has a channel and a thread of its own; a round trip costs well under a millisecond.
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
from dimml.media.decoders.time_range import WindowDecoded, WindowPlan
from dimml.media.sandbox.sandbox import Isolation
from dimml.media.types import Decoded, DecodeRequest
from dimml.media.workers.blame import Attempt, advance, attempts, only_outcome
from dimml.media.workers.jobs import DecodeJob, Job, StreamJob, await_within
from dimml.media.workers.messages import (
    DecodeFunction,
    DecodeResult,
    Lost,
    Outcome,
    WindowsRequest,
    WorkerSettings,
)
from dimml.media.workers.process import PATIENCE_S, START_TIMEOUT_S
from dimml.media.workers.supervisor import Supervisor
from dimml.status import Reason
from dimml.system.files import StrPath

logger = logging.getLogger(__name__)

DECODE_MEMORY_BYTES: Final = 1536 * 2**20
#: A supervisor answers within this time after a job's deadline.
_GRACE_S: Final = 0.25


def classify_missed_deadline(job: DecodeJob) -> Lost | UnavailableError:
    """Classify a job that missed its deadline.

    ``Lost`` if a worker is running it (its supervisor kills that worker, if late on a busy machine), otherwise no
    worker was free.
    """
    if job.future.cancel():
        return UnavailableError("no decode worker was free in time")
    return Lost(Reason.DECODE_TIMEOUT)


class DecodePool:
    """Worker processes that run ``dimml.media.decode``, with a time limit per request and a memory limit per worker.

    ``decode_memory_bytes`` is what a worker may use beyond what its imports took. ``readable`` are the only folders
    from which workers may read recordings, if the kernel can enforce it; None means that recordings may lie anywhere.
    ``decode_function`` replaces it and must be importable by name; tests pass one that crashes. A context manager;
    workers start at once, in the background.
    """

    def __init__(
        self,
        workers: int,
        *,
        decode_memory_bytes: int = DECODE_MEMORY_BYTES,
        readable: Sequence[StrPath] | None = None,
        decode_function: DecodeFunction | None = None,
    ) -> None:
        if workers < 1:
            raise ValueError(f"workers must be at least 1, got {workers}")
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._lost = 0
        self._isolation: Isolation | None = None
        self._closed = False
        folders = None if readable is None else [Path(folder) for folder in readable]
        # Pickled here, so that a function that cannot be pickled is an error of the caller and not of the workers.
        settings = pickle.dumps(WorkerSettings(decode_function, decode_memory_bytes, folders))
        self._supervisors = [
            Supervisor(self._jobs, settings, self._note_isolation, self._count_lost) for _ in range(workers)
        ]

    async def decode(self, request: DecodeRequest, *, timeout_s: float) -> Decoded:
        """Decode in a worker, within ``timeout_s``, what ``dimml.media.decode`` decodes in this process.

        A track whose decoding kills a worker, or exceeds its time or its memory, is ``unusable`` with the reason
        ``decoder_crashed``, ``decode_timeout`` or ``decode_memory``; other tracks are tried again without it. If the
        caller is cancelled, a worker that does not finish soon is killed. Raises what ``dimml.media.decode`` raises,
        and UnavailableError if no worker was free in time or none can be started.
        """
        end = time.monotonic() + timeout_s
        tries = attempts(request, end, lambda: self._closed)
        attempt: Attempt | Decoded = next(tries)
        while not isinstance(attempt, Decoded):
            outcome: Outcome
            try:
                job = self._submit((attempt.request,), attempt.limit_s, end)
                outcome = only_outcome(await await_within(job.future, end - time.monotonic() + _GRACE_S))
            except asyncio.CancelledError:
                if not job.future.cancel():
                    asyncio.get_running_loop().call_later(PATIENCE_S, self._abandon, job)
                raise
            except TimeoutError:
                outcome = classify_missed_deadline(job)
            except UnavailableError as error:
                outcome = error
            attempt = advance(tries, outcome)
        return attempt

    def decode_blocking(self, request: DecodeRequest, *, timeout_s: float) -> Decoded:
        """Do what ``decode`` does, for callers without an event loop; from any thread."""
        end = time.monotonic() + timeout_s
        tries = attempts(request, end, lambda: self._closed)
        attempt: Attempt | Decoded = next(tries)
        while not isinstance(attempt, Decoded):
            outcome: Outcome
            try:
                outcome = only_outcome(self._wait_for((attempt.request,), attempt.limit_s, end))
            except UnavailableError as error:
                outcome = error
            attempt = advance(tries, outcome)
        return attempt

    def decode_several(
        self, requests: Sequence[DecodeRequest], *, limit_s: float, timeout_s: float
    ) -> list[DecodeResult]:
        """Decode, in one worker, requests so quick that a round trip each would cost much of the time; blocking.

        Returns results of the first requests, at least one. A request whose outcome is ``Lost`` must be decoded alone,
        by ``decode_blocking``, which finds the track to blame; if the worker is lost, or exceeds ``limit_s``, those are
        all requests. Raises UnavailableError if no worker was free within ``timeout_s``.
        """
        results = self._wait_for(requests, limit_s, time.monotonic() + timeout_s)
        return [DecodeResult(results, 0.0) for _ in requests] if isinstance(results, Lost) else results

    def map(self, requests: Iterable[DecodeRequest], *, timeout_s: float) -> Iterator[Decoded | DimmlError]:
        """Yield ``Decoded``, or the error, of each request, in order. ``requests`` is read lazily.

        ``timeout_s`` counts for each request from when a worker could take it.
        """

        def one(request: DecodeRequest) -> Decoded | DimmlError:
            try:
                return self.decode_blocking(request, timeout_s=timeout_s)
            except DimmlError as error:
                return error

        # One thread per worker: a request waits here, where its time does not run, rather than in the queue.
        with ThreadPoolExecutor(len(self._supervisors), "dimml-decode-map") as threads:
            running: deque[Future[Decoded | DimmlError]] = deque()
            for request in requests:
                running.append(threads.submit(one, request))
                if len(running) >= 2 * len(self._supervisors):
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()

    def stream(
        self, request: DecodeRequest, plan: WindowPlan, first: int, *, timeout_s: float
    ) -> Generator[WindowDecoded | Lost]:
        """Run ``decode_windows`` in a worker, ``timeout_s`` for each chunk of windows.

        If the worker is lost, the last item is a ``Lost``; ``dimml.media.workers.timeline`` goes on after it. Closing
        the iterator stops the worker. Raises what ``decode_windows`` raises, and UnavailableError.
        """
        job = StreamJob(WindowsRequest(request, plan, first), timeout_s)
        with self._lock:
            if self._closed:
                raise UnavailableError("the decode pool is closed")
            self._jobs.put(job)
        return job.items()

    def warm_up(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Block until all workers are ready. Raises UnavailableError if one is not in time."""
        end = time.monotonic() + timeout_s
        for supervisor in self._supervisors:
            if not supervisor.started.wait(max(0.0, end - time.monotonic())) or not supervisor.alive:
                raise UnavailableError("a decode worker could not be started")

    @property
    def workers_lost(self) -> int:
        """Workers lost since start: crashed, timed out, or killed after their caller was cancelled."""
        return self._lost

    @property
    def workers_running(self) -> int:
        """Workers whose process runs, idle or busy."""
        return sum(supervisor.alive for supervisor in self._supervisors)

    @property
    def isolation(self) -> Isolation | None:
        """Layers of the sandbox that hold for the workers; None before the first has started."""
        return self._isolation

    def close(self) -> None:
        """Kill the workers. Requests that run or wait get UnavailableError. A second call does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        for supervisor in self._supervisors:
            supervisor.close()
        for _ in self._supervisors:
            self._jobs.put(None)
        for supervisor in self._supervisors:
            supervisor.join()
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

    def _wait_for(self, requests: Sequence[DecodeRequest], limit_s: float, end: float) -> list[DecodeResult] | Lost:
        """Submit the requests and block until there are results, or until ``end``. Raises UnavailableError."""
        job = self._submit(requests, limit_s, end)
        try:
            return job.future.result(end - time.monotonic() + _GRACE_S)
        except TimeoutError:
            outcome = classify_missed_deadline(job)
        if isinstance(outcome, UnavailableError):
            raise outcome
        return outcome

    def _submit(self, requests: Sequence[DecodeRequest], limit_s: float, end: float) -> DecodeJob:
        job = DecodeJob(requests, limit_s, end)
        with self._lock:
            if self._closed:
                raise UnavailableError("the decode pool is closed")
            self._jobs.put(job)
        return job

    def _abandon(self, job: DecodeJob) -> None:
        for supervisor in self._supervisors:
            supervisor.abandon(job)

    def _note_isolation(self, isolation: Isolation) -> None:
        with self._lock:
            known, self._isolation = self._isolation, isolation
        if isolation != known:
            logger.log(logging.WARNING if isolation.missing else logging.INFO, "decode workers: %s", isolation)

    def _count_lost(self) -> None:
        with self._lock:
            self._lost += 1
