"""Decode worker: an isolated process that reads files which may be hostile.

Started by ``dimml.media.workers.process``. It receives messages, each of some requests or of one recording in windows,
and answers each with one reply, or with several of windows. It ends when its channel closes, and dies with its parent.
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
from dimml.media.decoders.recording import decode
from dimml.media.decoders.time_range import WindowDecoded
from dimml.media.decoders.windows import decode_windows
from dimml.media.sandbox.sandbox import isolate
from dimml.media.types import Decoded, DecodeRequest
from dimml.media.workers.channel import WorkerEnd
from dimml.media.workers.codec import encode_reply
from dimml.media.workers.messages import (
    CHUNK_ROWS_BYTES,
    CHUNK_WINDOWS,
    EXIT_OUT_OF_MEMORY,
    SEVERAL_S,
    DecodeFunction,
    DecodeResult,
    Lost,
    Outcome,
    Ready,
    WindowsReply,
    WindowsRequest,
)
from dimml.media.workers.requests import read_requests
from dimml.status import Reason

#: Windows are also sent on once the first of them has waited this long.
_CHUNK_S: Final = 0.5


def main(descriptor: int) -> None:
    """Serve requests from the socket ``descriptor`` until it closes."""
    # The parent decides when a worker ends: Ctrl-C at the terminal, or SIGTERM to the whole service, must not cut
    # off a request that the parent still wants to answer.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    channel = WorkerEnd(descriptor)
    try:
        settings = _receive(channel)
        _silence_libraries()
        _limit_memory(settings.decode_memory_bytes)
        channel.send(*encode_reply(Ready(isolate(settings.readable))))
        while True:
            _answer(channel, settings.decode_function or decode)
    except (EOFError, ConnectionError):
        return
    except MemoryError:
        # Not even the request or the reply fits, and half of it may still be in the channel.
        os._exit(EXIT_OUT_OF_MEMORY)


def _receive(channel: WorkerEnd) -> Any:
    return pickle.loads(channel.receive())  # noqa: S301 (our own parent's)


def _answer(channel: WorkerEnd, decode_function: DecodeFunction) -> None:
    asked = _receive(channel)
    try:
        if isinstance(asked, WindowsRequest):
            _stream(channel, asked)
            return
        message = encode_reply(_decode_several(read_requests(asked), decode_function))
    except DimmlError as error:
        message = encode_reply(error)
    except MemoryError:
        message = encode_reply(Lost(Reason.DECODE_MEMORY))
    except Exception:
        message = encode_reply(Lost(Reason.DECODER_CRASHED, traceback.format_exc()))
    channel.send(*message)


def _decode_several(requests: Sequence[DecodeRequest], decode_function: DecodeFunction) -> list[DecodeResult]:
    """Decode the first request, and further ones until they took ``SEVERAL_S`` or have ``CHUNK_ROWS_BYTES``."""
    results: list[DecodeResult] = []
    size, spent_s = 0, 0.0
    for request in requests:
        if results and (spent_s >= SEVERAL_S or size >= CHUNK_ROWS_BYTES):
            break
        began = time.monotonic()
        outcome = _decode(request, decode_function)
        results.append(DecodeResult(outcome, time.monotonic() - began))
        spent_s += results[-1].seconds
        if isinstance(outcome, Decoded):
            size += _rows_bytes(outcome)
    return results


def _decode(request: DecodeRequest, decode_function: DecodeFunction) -> Outcome:
    try:
        return decode_function(request)
    except DimmlError as error:
        # What raised it holds on to what it had read, and another request is decoded before this one is answered.
        error.__traceback__ = error.__context__ = error.__cause__ = None
        return error
    except MemoryError:
        return Lost(Reason.DECODE_MEMORY)
    except Exception:
        return Lost(Reason.DECODER_CRASHED, traceback.format_exc())


def _stream(channel: WorkerEnd, wanted: WindowsRequest) -> None:
    """Send all windows in chunks, never more than one chunk ahead of the parent."""
    chunk: list[WindowDecoded] = []
    size, began = 0, time.monotonic()
    for window in decode_windows(wanted.request, wanted.plan, wanted.first):
        full = size >= CHUNK_ROWS_BYTES or len(chunk) >= CHUNK_WINDOWS
        if chunk and (full or time.monotonic() - began >= _CHUNK_S):
            channel.send(*encode_reply(WindowsReply(chunk, done=False)))
            channel.receive()
            chunk, size, began = [], 0, time.monotonic()
        chunk.append(window)
        size += _rows_bytes(window.decoded)
    channel.send(*encode_reply(WindowsReply(chunk, done=True)))


def _rows_bytes(decoded: Decoded) -> int:
    return sum(track.row.nbytes for track in decoded.tracks.values() if track.row is not None)


def _silence_libraries() -> None:
    """Keep messages of libraries about a client's file out of the server's log."""
    av.logging.set_level(av.logging.PANIC)
    logging.disable(logging.CRITICAL)
    cv2.setNumThreads(1)
    # Some C libraries (libpng, mpg123) write to stderr with no way to turn it off.
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)


def _limit_memory(decode_memory_bytes: int) -> None:
    """Limit the address space to its present size and ``decode_memory_bytes`` more; leave no core dumps behind.

    Call this after the imports: set earlier, or tighter, libraries segfault or cannot start their threads.
    """
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + decode_memory_bytes
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
