"""The way between a decode worker and its parent: a pair of sockets, and every step of the parent's bounded in time.

A worker that a hostile file has taken over must not hold the thread that looks after it: by saying nothing, by saying
one byte a second, by saying more than was asked, or by not listening.

A message is the bytes of its text and of its rows (``_HEAD``), then the two; a row begins at a multiple of
``ALIGNMENT``.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import numpy.typing as npt

ALIGNMENT: Final = 8
_HEAD: Final = struct.Struct("<QQ")
_TIMEVAL: Final = struct.Struct("ll")
#: The kernel's shortest time limit.
_LEAST_S: Final = 1e-5
#: Of each direction; the kernel caps it at net.core.wmem_max.
_BUFFER_BYTES: Final = 2**20


class MalformedReplyError(Exception):
    """No reply that a sound worker would send."""


def make_pipe() -> tuple[ParentEnd, socket.socket]:
    """Both ends, with buffers that take a whole reply where the kernel allows it, so that writing one is one step."""
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
    return ParentEnd(ours), theirs


class ParentEnd:
    """For one thread. All methods raise OSError where the worker is gone, TimeoutError among them.

    The socket blocks, with the kernel's own time limits, so that waiting for all of a message is one call.
    """

    def __init__(self, end: socket.socket) -> None:
        self._socket = end

    def send(self, text: bytes, limit_s: float) -> None:
        """Say something, within ``limit_s`` in all."""
        end = time.monotonic() + limit_s
        left = memoryview(_HEAD.pack(len(text), 0) + text)
        while left:
            self._limit(socket.SO_SNDTIMEO, end)
            with _timed():
                left = left[self._socket.send(left) :]

    def wait(self, limit_s: float) -> bool:
        """Whether something comes within ``limit_s``, be it the end."""
        self._limit(socket.SO_RCVTIMEO, time.monotonic() + max(limit_s, _LEAST_S))
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        return True

    def receive(self, *, most_text: int, most_rows: int, limit_s: float) -> tuple[bytearray, npt.NDArray[np.uint8]]:
        """Text and rows of the next message, ``limit_s`` for all of it.

        Raises EOFError at the end, MalformedReplyError where it says that it is larger than it may be.
        """
        end = time.monotonic() + limit_s
        head = bytearray(_HEAD.size)
        self._fill(memoryview(head), end)
        text_bytes, rows_bytes = _HEAD.unpack(head)
        if text_bytes > most_text or rows_bytes > most_rows:
            raise MalformedReplyError(f"{text_bytes} bytes of text, {rows_bytes} of rows")
        text = bytearray(text_bytes)
        self._fill(memoryview(text), end)
        try:
            rows = np.empty(rows_bytes, np.uint8)
        except MemoryError:
            raise MalformedReplyError(f"no memory here for {rows_bytes} bytes of rows") from None
        self._fill(rows.data, end)
        return text, rows

    def close(self) -> None:
        """Let go of it."""
        self._socket.close()

    def _fill(self, left: memoryview, end: float) -> None:
        while left:
            self._limit(socket.SO_RCVTIMEO, end)
            with _timed():
                count = self._socket.recv_into(left, 0, socket.MSG_WAITALL)
            if count == 0:
                raise EOFError
            left = left[count:]

    def _limit(self, option: int, end: float) -> None:
        left_s = end - time.monotonic()
        if left_s <= 0.0:
            raise TimeoutError("the message did not end in time")
        # 0 would be no limit at all.
        seconds, microseconds = divmod(max(round(left_s * 1e6), 1), 1_000_000)
        self._socket.setsockopt(socket.SOL_SOCKET, option, _TIMEVAL.pack(seconds, microseconds))


@contextmanager
def _timed() -> Iterator[None]:
    """The kernel says that a time limit has passed as it would say that nothing can be done at once."""
    try:
        yield
    except BlockingIOError:
        raise TimeoutError("the message did not end in time") from None


class WorkerEnd:
    """The other end, in the worker, which waits as long as it takes. Raises OSError where the parent is gone."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def receive(self) -> bytes:
        """Text of the next message. Raises EOFError at the end."""
        text_bytes, _ = _HEAD.unpack(self._read(_HEAD.size))
        return bytes(self._read(text_bytes))

    def send(self, text: bytes, rows: Sequence[npt.NDArray[Any]]) -> None:
        """Say something, with rows that are contiguous."""
        pieces: list[bytes | memoryview] = [text]
        size = 0
        for row in rows:
            padding = -row.nbytes % ALIGNMENT
            pieces += [row.data.cast("B"), bytes(padding)]
            size += row.nbytes + padding
        left = [memoryview(piece) for piece in (_HEAD.pack(len(text), size), *pieces) if len(piece)]
        while left:
            written = os.writev(self._descriptor, left[: os.sysconf("SC_IOV_MAX")])
            while left and written >= len(left[0]):
                written -= len(left.pop(0))
            if written:
                left[0] = left[0][written:]

    def _read(self, size: int) -> bytearray:
        buffer = bytearray(size)
        left = memoryview(buffer)
        while left:
            count = os.readv(self._descriptor, [left])
            if count == 0:
                raise EOFError
            left = left[count:]
        return buffer
