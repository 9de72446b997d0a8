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
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

ALIGNMENT: Final = 8
_HEAD: Final = struct.Struct("<QQ")
_TIMEVAL: Final = struct.Struct("ll")
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
        left = _pieces(_HEAD.pack(len(text), 0), text)
        while left:
            left = _after(left, self._within(end, socket.SO_SNDTIMEO, partial(self._socket.sendmsg, left)))

    def wait(self, limit_s: float) -> bool:
        """Whether something comes within ``limit_s``, be it the end."""
        self._limit(socket.SO_RCVTIMEO, limit_s)
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
            step = partial(self._socket.recv_into, left, 0, socket.MSG_WAITALL)
            count = self._within(end, socket.SO_RCVTIMEO, step)
            if count == 0:
                raise EOFError
            left = left[count:]

    def _within(self, end: float, option: int, step: Callable[[], int]) -> int:
        """One step on the way to ``end``; ``option`` is the time limit that it obeys."""
        left_s = end - time.monotonic()
        if left_s > 0.0:
            self._limit(option, left_s)
            with suppress(BlockingIOError):  # So the kernel says that its time limit has passed.
                return step()
        raise TimeoutError("the message did not end in time")

    def _limit(self, option: int, limit_s: float) -> None:
        # 0 would be no limit at all.
        seconds, microseconds = divmod(max(round(limit_s * 1e6), 1), 1_000_000)
        self._socket.setsockopt(socket.SOL_SOCKET, option, _TIMEVAL.pack(seconds, microseconds))


class WorkerEnd:
    """The other end, in the worker, which waits as long as it takes. Raises OSError where the parent is gone."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def receive(self) -> bytearray:
        """Text of the next message. Raises EOFError at the end."""
        text_bytes, _ = _HEAD.unpack(self._read(_HEAD.size))
        return self._read(text_bytes)

    def send(self, text: bytes, rows: Sequence[npt.NDArray[Any]]) -> None:
        """Say something, with rows that are contiguous."""
        padded = [piece for row in rows for piece in (row.data.cast("B"), bytes(-row.nbytes % ALIGNMENT))]
        left = _pieces(_HEAD.pack(len(text), sum(map(len, padded))), text, *padded)
        while left:
            left = _after(left, os.writev(self._descriptor, left[: os.sysconf("SC_IOV_MAX")]))

    def _read(self, size: int) -> bytearray:
        buffer = bytearray(size)
        left = memoryview(buffer)
        while left:
            count = os.readv(self._descriptor, [left])
            if count == 0:
                raise EOFError
            left = left[count:]
        return buffer


def _pieces(*buffers: bytes | memoryview) -> list[memoryview]:
    """What there is to write."""
    return [memoryview(buffer) for buffer in buffers if len(buffer)]


def _after(pieces: list[memoryview], written: int) -> list[memoryview]:
    """What is left to write of them."""
    for done, piece in enumerate(pieces):
        if written < len(piece):
            return [piece[written:], *pieces[done + 1 :]]
        written -= len(piece)
    return []
