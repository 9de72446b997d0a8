"""Thread that supervises one decode worker: starts it, hands it jobs, and replaces it when it is lost."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable

from dimml.errors import DimmlError, UnavailableError
from dimml.media.sandbox.sandbox import Isolation
from dimml.media.workers.jobs import DecodeJob, Job, StreamJob
from dimml.media.workers.messages import DecodeResult, Lost
from dimml.media.workers.process import WorkerProcess
from dimml.status import Reason

logger = logging.getLogger(__name__)


class Supervisor:
    """Thread that runs ``jobs`` one at a time in its worker; a None among the jobs ends it.

    ``settings`` are pickled ``WorkerSettings``. ``on_ready`` is called for every worker that has started, ``on_lost``
    for every one that died or had to be killed.
    """

    def __init__(
        self,
        jobs: queue.SimpleQueue[Job | None],
        settings: bytes,
        on_ready: Callable[[Isolation], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._jobs = jobs
        self._settings = settings
        self._on_ready = on_ready
        self._on_lost = on_lost
        self._lock = threading.Lock()
        self._worker: WorkerProcess | None = None
        self._job: DecodeJob | None = None
        self._closed = False
        #: Set when the first start has succeeded or failed.
        self.started = threading.Event()
        # The thread that starts a worker must outlive it: the kernel counts the thread as the parent that dies.
        self._thread = threading.Thread(target=self._run, name="dimml-decode", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the worker's process runs, idle or busy."""
        worker = self._worker
        return worker is not None and worker.alive

    def close(self) -> None:
        """Kill the worker, even in the middle of a request, and start no other."""
        with self._lock:
            self._closed = True
            if self._worker is not None:
                self._worker.kill()

    def abandon(self, job: DecodeJob) -> None:
        """Kill the worker if it runs this job."""
        with self._lock:
            if self._job is job and self._worker is not None:
                self._job = None  # The thread sees by this that the worker was killed.
                self._worker.kill()

    def join(self) -> None:
        """Wait for the thread to end, which takes a None among the jobs."""
        self._thread.join()

    def _run(self) -> None:
        while True:
            if self._worker is not None:
                self._worker.drain()
            self._ensure_worker()
            self.started.set()
            job = self._jobs.get()
            if job is None:
                break
            if isinstance(job, StreamJob):
                self._stream(job)
                continue
            if not job.future.set_running_or_notify_cancel():
                continue
            try:
                results = self._decode(job)
            except UnavailableError as error:
                job.future.set_exception(error)
            except BaseException as error:
                # A bug costs the worker, whose state is unknown, and not this thread.
                with self._lock:
                    self._job = None
                self._discard()
                job.future.set_exception(error)
            else:
                job.future.set_result(results)
        self._discard()

    def _decode(self, job: DecodeJob) -> list[DecodeResult] | Lost:
        worker = self._ensure_worker()
        if worker is None:
            raise UnavailableError("no decode worker could be started")
        left_s = job.end - time.monotonic()
        if left_s <= 0.0:
            raise UnavailableError("no decode worker was free in time")
        with self._lock:
            self._job = job
        results = job.context.run(worker.run, job.requests, min(job.limit_s, left_s))
        with self._lock:
            killed, self._job = self._job is None, None
        # One that was killed may not be dead yet. One that answered and then died is seen before the next job.
        if killed or not (isinstance(results, list) or worker.alive):
            if self._closed:
                raise UnavailableError("the decode pool is closed")
            self._discard()
        return results

    def _stream(self, job: StreamJob) -> None:
        worker = self._ensure_worker()
        if worker is None:
            job.put(UnavailableError("no decode worker could be started"))
            return
        try:
            for item in worker.stream(job.request, job.limit_s):
                if not job.put(item):
                    # The caller has stopped, and the worker is in the middle of the recording.
                    worker.kill()
                    break
        except DimmlError as error:
            job.put(error)
        except BaseException:
            logger.exception("a decode worker's windows could not be read")
            self._discard()
            job.put(Lost(Reason.DECODER_CRASHED))
            job.put(None)
        else:
            job.put(None)
        if job.stopped or not worker.alive:
            self._discard()

    def _ensure_worker(self) -> WorkerProcess | None:
        """Return the worker, started anew if it has died; None if it cannot be started."""
        if self.alive:
            return self._worker
        self._discard()
        with self._lock:
            if self._closed:
                return None
            try:
                self._worker = WorkerProcess(self._settings)
            except OSError:
                logger.exception("a decode worker could not be started")
                return None
        try:
            self._on_ready(self._worker.wait_ready())
        except (EOFError, OSError):
            if not self._closed:
                logger.exception("a decode worker ended while it started")
            self._discard()
        return self._worker

    def _discard(self) -> None:
        with self._lock:
            worker, self._worker = self._worker, None
            closed = self._closed
        if worker is not None:
            worker.dispose()
            if not closed:
                self._on_lost()
