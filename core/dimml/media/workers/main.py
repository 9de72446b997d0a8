"""A decode worker: a process that reads hostile files, so that nobody else has to.

Started by ``dimml.media.workers.pool``; it takes messages from a pipe, of several requests or of one for windows, and
answers each with a reply, or several of windows. It leaves when the pipe closes, and dies with its parent.
"""

from __future__ import annotations

import logging
import os
import pickle
import resource
import signal
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import av
import cv2

from dimml.errors import DimmlError
from dimml.media.decoders.windows import WindowDecoded, decode_windows
from dimml.media.sandbox.sandbox import isolate
from dimml.media.types import Decoded, DecodeRequest
from dimml.media.workers.channel import WorkerEnd
from dimml.media.workers.codec import encode_reply
from dimml.media.workers.messages import (
    CHUNK_ROWS_BYTES,
    CHUNK_WINDOWS,
    EXIT_OUT_OF_MEMORY,
    SEVERAL_S,
    Answer,
    AnswersReply,
    Broke,
    DecodeFunction,
    OutOfMemory,
    Ready,
    Told,
    WindowsReply,
    WindowsRequest,
)

#: Windows are also sent on once the first of them has waited so long.
_CHUNK_S: Final = 0.5


def main(descriptor: int) -> None:
    """Serve requests from the pipe behind ``descriptor`` until it closes."""
    # The parent decides when a worker ends: Ctrl-C at the terminal, or SIGTERM to the whole service, must not cut
    # off a request that the parent still wants to answer.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    pipe = WorkerEnd(descriptor)
    try:
        settings = _request(pipe)
        _quieten()
        _limit(settings.decode_memory_bytes)
        pipe.send(*encode_reply(Ready(isolate(settings.readable))))
        while True:
            _answer(pipe, settings.decode_function)
    except (EOFError, ConnectionError):
        return
    except MemoryError:
        # Not even the request or the reply fits, and half of it may still be in the pipe.
        os._exit(EXIT_OUT_OF_MEMORY)


def _request(pipe: WorkerEnd) -> Any:
    return pickle.loads(pipe.receive())  # noqa: S301 (our own parent's)


def _answer(pipe: WorkerEnd, decode_function: DecodeFunction) -> None:
    asked = _request(pipe)
    try:
        if isinstance(asked, WindowsRequest):
            _stream(pipe, asked)
            return
        message = encode_reply(_several(asked, decode_function))
    except DimmlError as error:
        message = encode_reply(error)
    except MemoryError:
        message = encode_reply(OutOfMemory())
    except Exception:
        message = encode_reply(Broke(traceback.format_exc()))
    pipe.send(*message)


def _several(requests: Sequence[DecodeRequest], decode_function: DecodeFunction) -> AnswersReply:
    """The first, and as many more as are quick, and whose rows are few."""
    answers: list[Answer] = []
    size, spent_s = 0, 0.0
    for request in requests:
        if answers and (spent_s >= SEVERAL_S or size >= CHUNK_ROWS_BYTES):
            break
        began = time.monotonic()
        told = _told(request, decode_function)
        answers.append(Answer(told, time.monotonic() - began))
        spent_s += answers[-1].seconds
        if isinstance(told, Decoded):
            size += _rows_bytes(told)
    return AnswersReply(answers)


def _told(request: DecodeRequest, decode_function: DecodeFunction) -> Told:
    try:
        return decode_function(request)
    except DimmlError as error:
        # What raised it holds on to what it had read, and another request is decoded before this one is answered.
        error.__traceback__ = error.__context__ = error.__cause__ = None
        return error
    except MemoryError:
        return OutOfMemory()
    except Exception:
        return Broke(traceback.format_exc())


def _stream(pipe: WorkerEnd, wanted: WindowsRequest) -> None:
    """All windows in chunks; never more than one chunk ahead of the parent."""
    chunk: list[WindowDecoded] = []
    size, began = 0, time.monotonic()
    for window in decode_windows(wanted.request, wanted.plan, wanted.first):
        full = size >= CHUNK_ROWS_BYTES or len(chunk) >= CHUNK_WINDOWS
        if chunk and (full or time.monotonic() - began >= _CHUNK_S):
            pipe.send(*encode_reply(WindowsReply(chunk, done=False)))
            pipe.receive()
            chunk, size, began = [], 0, time.monotonic()
        chunk.append(window)
        size += _rows_bytes(window.decoded)
    pipe.send(*encode_reply(WindowsReply(chunk, done=True)))


def _rows_bytes(decoded: Decoded) -> int:
    return sum(track.row.nbytes for track in decoded.tracks.values() if track.row is not None)


def _quieten() -> None:
    """Nothing that libraries say about a client's file belongs into the server's log."""
    av.logging.set_level(av.logging.PANIC)
    logging.disable(logging.CRITICAL)
    cv2.setNumThreads(1)
    # Some C libraries (libpng, mpg123) write to stderr with no way to turn it off.
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)


def _limit(decode_memory_bytes: int) -> None:
    """Bound the address space to what it is now and ``decode_memory_bytes`` more; leave no core dumps behind.

    After the imports only: set earlier, or tighter, libraries segfault or cannot start their threads.
    """
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + decode_memory_bytes
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
