"""Decode worker as its parent sees it: a process, a channel, and the ways in which either can fail."""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Final

from dimml.errors import DimmlError
from dimml.media.decoders.time_range import WindowDecoded
from dimml.media.sandbox.sandbox import Isolation
from dimml.media.types import DecodeRequest
from dimml.media.workers.channel import MalformedReplyError, make_channel
from dimml.media.workers.codec import read_reply
from dimml.media.workers.messages import (
    EXIT_OUT_OF_MEMORY,
    DecodeResult,
    Lost,
    Outcome,
    Ready,
    Reply,
    WindowsReply,
    WindowsRequest,
    check_reply,
    reply_bounds,
)
from dimml.media.workers.requests import RequestWriter
from dimml.modality import Modality
from dimml.status import Reason
from dimml.system.child_process import start_python_child
from dimml.system.outbound import quiet_environment

logger = logging.getLogger(__name__)

#: A worker imports FFmpeg and OpenCV; a loaded machine takes seconds.
START_TIMEOUT_S: Final = 60.0
#: From the end of a worker's channel to the end of its process.
_EXIT_TIMEOUT_S: Final = 1.0
#: How long a worker may go on after its caller has stopped waiting: less than it takes to replace it.
PATIENCE_S: Final = 0.5

_WORKER_ENVIRONMENT: Final = {
    # Each malloc arena reserves 64 MB of address space, which is what is limited.
    "MALLOC_ARENA_MAX": "2",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
#: For the transfer of a request or a reply, once it has begun; it takes milliseconds.
_TRANSFER_S: Final = 10.0


class WorkerProcess:
    """Worker that has just been started; call ``wait_ready`` before anything else.

    ``settings`` are pickled ``WorkerSettings``. Raises OSError if no process can be started.
    """

    def __init__(self, settings: bytes) -> None:
        self._settings = settings
        #: How long to wait on for a reply that came too late, and the modalities of its requests.
        self._late: tuple[float, Sequence[Sequence[Modality]]] | None = None
        self._writer = RequestWriter()
        self._channel, theirs = make_channel()
        with theirs, ExitStack() as unless_started:
            unless_started.callback(self._channel.close)
            self._process = start_python_child(
                "dimml.media.workers.main",
                theirs.fileno(),
                environment=quiet_environment(os.environ) | _WORKER_ENVIRONMENT,
            )
            unless_started.pop_all()

    def wait_ready(self) -> Isolation:
        """Block until the worker has done its imports; return how it is isolated.

        Raises OSError or EOFError if it ends or is not ready in time.
        """
        self._channel.send(self._settings, START_TIMEOUT_S)
        if self._channel.wait(START_TIMEOUT_S):
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
        """End the process and close its channel."""
        self._process.kill()
        self._process.wait()
        self._channel.close()

    def run(self, requests: Sequence[DecodeRequest], limit_s: float) -> list[DecodeResult] | Lost:
        """Decode; return results of the first requests, at least one. Call ``drain`` before the next call.

        After a crash or a timeout the process is dead. It is not after a time limit so short that the caller's hurry,
        rather than the file, may be to blame.
        """
        asked = [request.modalities for request in requests]
        began = time.monotonic()
        try:
            self._send(requests)
            if not self._channel.wait(limit_s):
                patience_s = PATIENCE_S - limit_s
                self._late = patience_s, asked
                if patience_s <= 0.0:
                    self._process.kill()
                    self._process.wait()
                return Lost(Reason.DECODE_TIMEOUT)
            reply = self._read(asked)
        except (EOFError, OSError):
            return Lost(self._exit_reason())
        if isinstance(reply, list):
            waited_s = time.monotonic() - began
            for result in reply:
                _log_failure(result.outcome)
            return [replace(result, seconds=min(result.seconds, waited_s)) for result in reply]
        return self._lost(reply)

    def stream(self, request: WindowsRequest, limit_s: float) -> Iterator[WindowDecoded | Lost]:
        """Yield windows as they come, ``limit_s`` for each chunk; a ``Lost`` is the last item.

        After a ``Lost`` the process is dead or, if its memory was not enough or decoding raised a bug, free for the
        next request. Raises DimmlError if the request is at fault.
        """
        try:
            self._send(request)
            done = False
            while not done:
                if not self._channel.wait(limit_s):
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
                    self._channel.send(b"", _TRANSFER_S)
        except (EOFError, OSError):
            yield Lost(self._exit_reason())

    def drain(self) -> None:
        """Wait a little for the reply that is too late for its caller, and drop it; kill the process if none comes."""
        if self._late is None or not self.alive:
            return
        patience_s, asked = self._late
        try:
            if self._channel.wait(patience_s):
                self._read(asked)
                self._late = None
                return
        except (EOFError, OSError):
            pass
        self._process.kill()
        self._process.wait()

    def _send(self, request: Sequence[DecodeRequest] | WindowsRequest) -> None:
        if isinstance(request, WindowsRequest):
            message = pickle.dumps(request, protocol=pickle.HIGHEST_PROTOCOL)
        else:
            message = self._writer.write(request)
        self._channel.send(message, _TRANSFER_S)

    def _read(self, asked: Sequence[Sequence[Modality]], *, windows: bool = False) -> Reply:
        """Return the next reply, checked against the modalities of each request.

        Raises EOFError or OSError if the worker has ended, or is killed because its reply is malformed or incomplete.
        """
        try:
            bounds = reply_bounds(asked, windows=windows)
            reply = read_reply(*self._channel.receive(**bounds, limit_s=_TRANSFER_S))
            check_reply(reply, asked)
        except (MalformedReplyError, TimeoutError) as error:
            logger.error("a decode worker is given up, its reply makes no sense or stops half way: %s", error)  # noqa: TRY400 - no fault of ours
            self._process.kill()
            raise EOFError from error
        return reply

    def _lost(self, reply: Reply) -> Lost:
        """Return the ``Lost`` of a reply without results; a reply of a wrong kind costs the process."""
        if isinstance(reply, Lost):
            _log_failure(reply)
            return reply
        self._process.kill()
        return Lost(self._exit_reason())

    def _exit_reason(self) -> Reason:
        """Wait for the process to end, kill it if it does not, and return why the channel broke."""
        try:
            code = self._process.wait(_EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        return Reason.DECODE_MEMORY if code == EXIT_OUT_OF_MEMORY else Reason.DECODER_CRASHED


def _log_failure(outcome: Outcome) -> None:
    """Log the traceback of a decoder's bug."""
    if isinstance(outcome, Lost) and outcome.reason is Reason.DECODER_CRASHED:
        logger.error("decoding raised an unexpected error:\n%s", outcome.details)
