"""Channel between a decode worker and its parent: a pair of sockets; each step of the parent is bounded in time.

A worker that a hostile file has taken over must not hold up its supervisor: not by sending nothing, one byte a second,
or more than was asked for, and not by not reading.

A message is a head (``_HEAD``: the sizes of text and rows in bytes), the text, and the rows, each of which begins at a
multiple of ``ALIGNMENT`` bytes.
"""

from __future__ import annotations

import math
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
#: Send buffer of each direction; the kernel caps it at net.core.wmem_max.
_BUFFER_BYTES: Final = 2**20
#: Longer limits are rounded up to whole seconds.
_ROUNDED_FROM_S: Final = 5.0


class MalformedReplyError(Exception):
    """Reply that a sound worker would not send."""


def make_channel() -> tuple[ParentEnd, socket.socket]:
    """Return both ends, with buffers for a whole reply if the kernel allows it, so that writing one is one step."""
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
    return ParentEnd(ours), theirs


class ParentEnd:
    """The parent's end, for one thread. Methods raise OSError if the worker has ended, TimeoutError if it is too slow.

    The socket blocks, with the kernel's own time limits, so that waiting for all of a message is one call.
    """

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        #: The kernel's time limits as they are set, by option.
        self._limits: dict[int, bytes] = {}

    def send(self, text: bytes, limit_s: float) -> None:
        """Send a message without rows, within ``limit_s`` in all."""
        end = time.monotonic() + limit_s
        left = _pieces(_HEAD.pack(len(text), 0), text)
        while left:
            left = _after(left, self._within(end, socket.SO_SNDTIMEO, partial(self._socket.sendmsg, left)))

    def wait(self, limit_s: float) -> bool:
        """Return whether a message, or the end of the channel, comes within ``limit_s``."""
        self._limit(socket.SO_RCVTIMEO, limit_s)
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        return True

    def receive(self, *, most_text: int, most_rows: int, limit_s: float) -> tuple[bytearray, npt.NDArray[np.uint8]]:
        """Return text and rows (uint8) of the next message, which must be complete within ``limit_s``.

        ``most_text`` and ``most_rows`` are bytes. Raises EOFError at the end of the channel, and MalformedReplyError
        for a message that announces more than it may have.
        """
        end = time.monotonic() + limit_s
        head = bytearray(_HEAD.size)
        self._fill(_pieces(head), end)
        text_bytes, rows_bytes = _HEAD.unpack(head)
        if text_bytes > most_text or rows_bytes > most_rows:
            raise MalformedReplyError(f"{text_bytes} bytes of text, {rows_bytes} of rows")
        text = bytearray(text_bytes)
        try:
            rows = np.empty(rows_bytes, np.uint8)
        except MemoryError:
            raise MalformedReplyError(f"no memory here for {rows_bytes} bytes of rows") from None
        self._fill(_pieces(text, rows.data), end)
        return text, rows

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _fill(self, left: list[memoryview], end: float) -> None:
        def step() -> int:
            return self._socket.recvmsg_into(left, 0, socket.MSG_WAITALL)[0]

        while left:
            count = self._within(end, socket.SO_RCVTIMEO, step)
            if count == 0:
                raise EOFError
            left = _after(left, count)

    def _within(self, end: float, option: int, step: Callable[[], int]) -> int:
        """Run one step of a transfer that must be over by ``end``; ``option`` is the time limit that the step obeys."""
        left_s = end - time.monotonic()
        if left_s > 0.0:
            self._limit(option, left_s)
            with suppress(BlockingIOError):  # Raised once the kernel's time limit has passed.
                return step()
        raise TimeoutError("the message did not end in time")

    def _limit(self, option: int, limit_s: float) -> None:
        if limit_s > _ROUNDED_FROM_S:
            limit_s = math.ceil(limit_s)  # Which is the same from one message to the next.
        # 0 would be no limit at all.
        seconds, microseconds = divmod(max(round(limit_s * 1e6), 1), 1_000_000)
        value = _TIMEVAL.pack(seconds, microseconds)
        if self._limits.get(option) != value:
            self._socket.setsockopt(socket.SOL_SOCKET, option, value)
            self._limits[option] = value


class WorkerEnd:
    """The worker's end, which waits without a time limit. Methods raise OSError if the parent has ended."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def receive(self) -> bytearray:
        """Return the text of the next message. Raises EOFError at the end of the channel."""
        text_bytes, _ = _HEAD.unpack(self._read(_HEAD.size))
        return self._read(text_bytes)

    def send(self, text: bytes, rows: Sequence[npt.NDArray[Any]]) -> None:
        """Send a message; rows must be contiguous."""
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


def _pieces(*buffers: bytes | bytearray | memoryview) -> list[memoryview]:
    """Return views of the buffers that are not empty."""
    return [memoryview(buffer) for buffer in buffers if len(buffer)]


def _after(pieces: list[memoryview], written: int) -> list[memoryview]:
    """Return what is left of ``pieces`` after ``written`` bytes."""
    for done, piece in enumerate(pieces):
        if written < len(piece):
            return [piece[written:], *pieces[done + 1 :]]
        written -= len(piece)
    return []
