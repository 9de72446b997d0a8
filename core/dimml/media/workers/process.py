"""A decode worker as its parent sees it: a process, a pipe, and what can go wrong with them."""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Final

from dimml.errors import DimmlError
from dimml.media.decoders.windows import WindowDecoded
from dimml.media.sandbox.sandbox import Isolation
from dimml.media.types import DecodeRequest
from dimml.media.workers.channel import MalformedReplyError, make_pipe
from dimml.media.workers.codec import read_reply
from dimml.media.workers.messages import (
    EXIT_OUT_OF_MEMORY,
    Answered,
    AnswersReply,
    Broke,
    Lost,
    Outcome,
    OutOfMemory,
    Ready,
    Reply,
    Told,
    WindowsReply,
    WindowsRequest,
    check_reply,
    reply_bounds,
)
from dimml.modality import Modality
from dimml.status import Reason
from dimml.system.child_process import start_python_child
from dimml.system.outbound import quiet_environment

logger = logging.getLogger(__name__)

#: A worker imports FFmpeg and OpenCV; a loaded machine takes seconds.
START_TIMEOUT_S: Final = 60.0
#: From the end of a worker's pipe to its own.
_EXIT_TIMEOUT_S: Final = 1.0
#: A worker may run for so long although nobody waits for it any more: less than it takes to replace it.
PATIENCE_S: Final = 0.5

_WORKER_ENVIRONMENT: Final = {
    # Each malloc arena reserves 64 MB of address space, which is what is limited.
    "MALLOC_ARENA_MAX": "2",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
#: For taking in a request or a reply, once it has begun; milliseconds in truth.
_TRANSFER_S: Final = 10.0


class WorkerProcess:
    """A worker, just started; ``wait_ready`` before anything else. ``settings`` are pickled WorkerSettings.

    Raises OSError where no process can be started.
    """

    def __init__(self, settings: bytes) -> None:
        self._settings = settings
        #: How long to wait for a reply that its caller did not wait for, and what it is about.
        self._late: tuple[float, Sequence[Sequence[Modality]]] | None = None
        self._pipe, theirs = make_pipe()
        with theirs, ExitStack() as unless_started:
            unless_started.callback(self._pipe.close)
            self._process = start_python_child(
                "dimml.media.workers.main",
                theirs.fileno(),
                environment=quiet_environment(os.environ) | _WORKER_ENVIRONMENT,
            )
            unless_started.pop_all()

    def wait_ready(self) -> Isolation:
        """Block until it has imported what it needs, and tell how it is shut in.

        Raises OSError or EOFError where it does not get there.
        """
        self._pipe.send(self._settings, START_TIMEOUT_S)
        if self._pipe.wait(START_TIMEOUT_S):
            ready = self._read([()])
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

    def run(self, requests: Sequence[DecodeRequest], limit_s: float) -> list[Answered] | Lost:
        """Answers to the first so many of the requests, at least one; ``settle`` before the next call.

        After a crash or a timeout the process is dead. It is not after a time limit so short that the caller's hurry,
        rather than the file, may be to blame.
        """
        asked = [request.modalities for request in requests]
        began = time.monotonic()
        try:
            self._ask(requests)
            if not self._pipe.wait(limit_s):
                patience_s = PATIENCE_S - limit_s
                self._late = patience_s, asked
                if patience_s <= 0.0:
                    self._process.kill()
                    self._process.wait()
                return Lost(Reason.DECODE_TIMEOUT)
            reply = self._read(asked)
        except (EOFError, OSError):
            return Lost(self._how_it_ended())
        if isinstance(reply, AnswersReply):
            waited_s = time.monotonic() - began
            return [Answered(_outcome(one.told), min(one.seconds, waited_s)) for one in reply.answers]
        return self._lost(reply)

    def stream(self, request: WindowsRequest, limit_s: float) -> Iterator[WindowDecoded | Lost]:
        """Windows as they come, ``limit_s`` for each chunk. After a Lost the process is dead or, where memory was
        not enough or decoding raised, free for the next request. Raises DimmlError where the request is at fault."""
        try:
            self._ask(request)
            done = False
            while not done:
                if not self._pipe.wait(limit_s):
                    self._process.kill()
                    self._process.wait()
                    yield Lost(Reason.DECODE_TIMEOUT)
                    return
                reply = self._read([request.request.modalities], windows=True)
                if not isinstance(reply, WindowsReply):
                    if isinstance(reply, DimmlError):
                        raise reply
                    yield self._lost(reply)
                    return
                done = reply.done
                yield from reply.windows
                if not done:
                    self._pipe.send(b"", _TRANSFER_S)
        except (EOFError, OSError):
            yield Lost(self._how_it_ended())

    def settle(self) -> None:
        """Wait a little for the reply that came too late for its caller, and drop it; where none comes, kill."""
        if self._late is None or not self.alive:
            return
        patience_s, asked = self._late
        try:
            if self._pipe.wait(patience_s):
                self._read(asked)
                self._late = None
                return
        except (EOFError, OSError):
            pass
        self._process.kill()
        self._process.wait()

    def _ask(self, request: Sequence[DecodeRequest] | WindowsRequest) -> None:
        self._pipe.send(pickle.dumps(request, protocol=pickle.HIGHEST_PROTOCOL), _TRANSFER_S)

    def _read(self, asked: Sequence[Sequence[Modality]], *, windows: bool = False) -> Reply:
        """The next reply, about the modalities of each request.

        Raises EOFError or OSError where the worker is lost, or has to be given up.
        """
        try:
            bounds = reply_bounds(asked, windows=windows)
            reply = read_reply(*self._pipe.receive(**bounds, limit_s=_TRANSFER_S))
            check_reply(reply, asked)
        except (MalformedReplyError, TimeoutError) as error:
            logger.error("a decode worker is given up, its reply makes no sense or stops half way: %s", error)  # noqa: TRY400 - no fault of ours
            self._process.kill()
            raise EOFError from error
        return reply

    def _lost(self, reply: Reply) -> Lost:
        """Why there is no answer in a reply."""
        if isinstance(reply, (OutOfMemory, Broke)):
            return _failure(reply)
        self._process.kill()  # It answered another question.
        return Lost(self._how_it_ended())

    def _how_it_ended(self) -> Reason:
        """Why the pipe broke; the process is dead afterwards."""
        try:
            code = self._process.wait(_EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        return Reason.DECODE_MEMORY if code == EXIT_OUT_OF_MEMORY else Reason.DECODER_CRASHED


def _outcome(told: Told) -> Outcome | DimmlError:
    return _failure(told) if isinstance(told, (OutOfMemory, Broke)) else told


def _failure(told: OutOfMemory | Broke) -> Lost:
    if isinstance(told, OutOfMemory):
        return Lost(Reason.DECODE_MEMORY)
    logger.error("decoding raised an unexpected error:\n%s", told.details)
    return Lost(Reason.DECODER_CRASHED)
