"""One decode worker and the thread that looks after it: starts it, feeds it, and replaces it when it is lost."""

from __future__ import annotations

import json
import logging
import os
import pickle
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Final

from dimml.errors import DimmlError, UnavailableError
from dimml.media.isolation import Isolation
from dimml.media.types import Decoded, DecodeRequest
from dimml.media.worker import EXIT_OUT_OF_MEMORY, Broke, OutOfMemory, Ready, Reply
from dimml.status import Reason

logger = logging.getLogger(__name__)

#: A worker imports FFmpeg and OpenCV; a loaded machine takes seconds.
START_TIMEOUT_S: Final = 60.0
#: From the end of a worker's pipe to its own.
_EXIT_TIMEOUT_S: Final = 1.0
#: A worker may run for so long although nobody waits for it any more: less than it takes to replace it.
PATIENCE_S: Final = 0.5

# The parent's import path, so that whatever it could import, the worker can.
_BOOTSTRAP: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from dimml.media.worker import main; main(int(sys.argv[2]), int(sys.argv[3]))"
)
_WORKER_ENVIRONMENT: Final = {
    # Each malloc arena reserves 64 MB of address space, which is what is limited.
    "MALLOC_ARENA_MAX": "2",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
#: Of each direction of a worker's pipe; the kernel caps it at net.core.wmem_max.
_PIPE_BYTES: Final = 2**20


@dataclass(frozen=True, slots=True)
class Lost:
    """No reply that can be used: the worker died, outlasted its time, or ran out of memory."""

    reason: Reason


Outcome = Decoded | Lost


@dataclass(slots=True)
class Job:
    """One request for one worker. ``limit_s`` counts from when it is handed over, ``end`` is monotonic time."""

    request: DecodeRequest
    limit_s: float
    end: float
    future: Future[Outcome] = field(default_factory=Future)
    #: The caller's, so that what is logged of a job can be told to be of its request.
    context: Context = field(default_factory=copy_context)


def _wide_pipe() -> tuple[Connection, Connection]:
    """A two-way pipe whose buffers take a whole reply where the kernel allows it, so that writing one is one step."""
    ends = socket.socketpair()
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _PIPE_BYTES)
    ours, theirs = (Connection(end.detach()) for end in ends)
    return ours, theirs


class WorkerProcess:
    """A worker, just started; ``wait_ready`` before anything else. ``settings`` are pickled WorkerSettings.

    Raises OSError where no process can be started.
    """

    def __init__(self, settings: bytes) -> None:
        self._settings = settings
        self._patience_s: float | None = None
        self._pipe, theirs = _wide_pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _BOOTSTRAP, json.dumps(sys.path), str(theirs.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env=os.environ | _WORKER_ENVIRONMENT,
                # A group of its own: Ctrl-C at the terminal goes to the parent alone.
                start_new_session=True,
            )

    def wait_ready(self) -> Isolation:
        """Block until it has imported what it needs, and tell how it is shut in.

        Raises OSError or EOFError where it does not get there.
        """
        self._pipe.send_bytes(self._settings)
        if self._pipe.poll(START_TIMEOUT_S):
            ready = self._pipe.recv()
            if isinstance(ready, Ready):
                return ready.isolation
        raise TimeoutError(f"not ready after {START_TIMEOUT_S:g} s")

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End the process at once; from any thread."""
        self._process.kill()

    def dispose(self) -> None:
        """End the process and let go of its pipe."""
        self._process.kill()
        self._process.wait()
        self._pipe.close()

    def run(self, request: DecodeRequest, limit_s: float) -> Outcome | DimmlError:
        """The reply to one request; ``settle`` before the next. After a crash or a timeout the process is dead.

        It is not after a time limit so short that the caller's hurry, rather than the file, may be to blame.
        """
        try:
            self._pipe.send_bytes(pickle.dumps(request, protocol=pickle.HIGHEST_PROTOCOL))
            if not self._pipe.poll(limit_s):
                self._patience_s = PATIENCE_S - limit_s
                if self._patience_s <= 0.0:
                    self._process.kill()
                    self._process.wait()
                return Lost(Reason.DECODE_TIMEOUT)
            reply: Reply = pickle.loads(self._pipe.recv_bytes())  # noqa: S301 (it comes from our own worker)
        except (EOFError, OSError):
            return Lost(self._how_it_ended())
        if isinstance(reply, OutOfMemory):
            return Lost(Reason.DECODE_MEMORY)
        if isinstance(reply, Broke):
            logger.error("decoding raised an unexpected error:\n%s", reply.details)
            return Lost(Reason.DECODER_CRASHED)
        return reply

    def settle(self) -> None:
        """Wait a little for the reply that came too late for its caller, and drop it; where none comes, kill."""
        if self._patience_s is None or not self.alive:
            return
        try:
            if self._pipe.poll(self._patience_s):
                self._pipe.recv_bytes()
                self._patience_s = None
                return
        except (EOFError, OSError):
            pass
        self._process.kill()
        self._process.wait()

    def _how_it_ended(self) -> Reason:
        """Why the pipe broke; the process is dead afterwards."""
        try:
            code = self._process.wait(_EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        return Reason.DECODE_MEMORY if code == EXIT_OUT_OF_MEMORY else Reason.DECODER_CRASHED


class Keeper:
    """A thread that does ``jobs`` one at a time in its worker. A None among the jobs ends it.

    ``on_ready`` is called for every worker that has started, ``on_lost`` for every one that died or had to be killed.
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
        self._job: Job | None = None
        self._closed = False
        #: Set when the first start has worked or failed.
        self.started = threading.Event()
        # The thread that starts a worker must outlive it: the kernel counts the thread as the parent that dies.
        self._thread = threading.Thread(target=self._keep, name="dimml-decode", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether a worker waits for requests or works on one."""
        worker = self._worker
        return worker is not None and worker.alive

    def close(self) -> None:
        """Kill the worker, also in the middle of a request, and start no other."""
        with self._lock:
            self._closed = True
            if self._worker is not None:
                self._worker.kill()

    def abandon(self, job: Job) -> None:
        """Kill the worker if it works on this job."""
        with self._lock:
            if self._job is job and self._worker is not None:
                self._job = None  # Which tells the thread.
                self._worker.kill()

    def join(self) -> None:
        """Wait for the thread, which must have been sent a None."""
        self._thread.join()

    def _keep(self) -> None:
        while True:
            if self._worker is not None:
                self._worker.settle()
            self._living_worker()
            self.started.set()
            job = self._jobs.get()
            if job is None:
                break
            if not job.future.set_running_or_notify_cancel():
                continue
            try:
                outcome = self._do(job)
            except BaseException as error:
                job.future.set_exception(error)
            else:
                job.future.set_result(outcome)
        self._bury()

    def _do(self, job: Job) -> Outcome:
        worker = self._living_worker()
        if worker is None:
            raise UnavailableError("no decode worker could be started")
        left_s = job.end - time.monotonic()
        if left_s <= 0.0:
            raise UnavailableError("no decode worker was free in time")
        with self._lock:
            self._job = job
        reply = job.context.run(worker.run, job.request, min(job.limit_s, left_s))
        with self._lock:
            killed, self._job = self._job is None, None
        # One that was killed may not be dead yet.
        if killed or not worker.alive:
            if self._closed:
                raise UnavailableError("the decode pool is closed")
            self._bury()
        if isinstance(reply, DimmlError):
            raise reply
        return reply

    def _living_worker(self) -> WorkerProcess | None:
        """The worker, replaced if it died meanwhile; None where none can be started."""
        if self.alive:
            return self._worker
        self._bury()
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
            self._bury()
        return self._worker

    def _bury(self) -> None:
        with self._lock:
            worker, self._worker = self._worker, None
            closed = self._closed
        if worker is not None:
            worker.dispose()
            if not closed:
                self._on_lost()
