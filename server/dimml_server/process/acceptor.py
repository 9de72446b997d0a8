"""Taking connections from a listening socket that other processes share."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Final

logger = logging.getLogger(__name__)

#: Head start of a process that is freer; past it, the first to see the connection takes it.
_HEAD_START_S: Final = 0.01
#: Pause after the system refused a connection, as it does if too many files are open.
_PAUSE_S: Final = 0.1


class Acceptor:
    """Takes connections one by one, unless another process is freer: then that one may take it first.

    All processes wait on one socket, and the kernel wakes them all. Left alone, those that are quickest to wake would
    get most of the connections, and keep them.
    """

    def __init__(self, listener: socket.socket, freer_elsewhere: Callable[[], bool]) -> None:
        self._listener = listener
        self._freer_elsewhere = freer_elsewhere
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._opening: set[asyncio.Task[object]] = set()
        self._make: Callable[[], asyncio.Protocol] | None = None
        self._tls: ssl.SSLContext | None = None

    def begin(self, make: Callable[[], asyncio.Protocol], tls: ssl.SSLContext | None) -> None:
        """Take connections from now on, each with a protocol from ``make``."""
        self._make, self._tls = make, tls
        self._listener.setblocking(False)
        self._loop.add_reader(self._listener, self._arrived)

    def close(self) -> None:
        """Take no more connections."""
        if self._make is not None:
            self._pause()
            self._make = None
        self._listener.close()

    def _pause(self) -> None:
        self._loop.remove_reader(self._listener)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _resume_in(self, delay_s: float) -> None:
        self._pause()
        self._timer = self._loop.call_later(delay_s, self._resume)

    def _resume(self) -> None:
        self._timer = None
        self._take()
        if self._timer is None and self._make is not None:
            self._loop.add_reader(self._listener, self._arrived)

    def _arrived(self) -> None:
        if self._freer_elsewhere():
            self._resume_in(_HEAD_START_S)
        else:
            self._take()

    def _take(self) -> None:
        if self._make is None:
            return
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # Another process took it, or the caller has gone.
        except OSError:
            logger.exception("a connection cannot be taken")
            self._resume_in(_PAUSE_S)
            return
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opening: asyncio.Task[object] = self._loop.create_task(
            self._open(connection, self._make, self._tls), name="accept"
        )
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)

    async def _open(
        self, connection: socket.socket, make: Callable[[], asyncio.Protocol], tls: ssl.SSLContext | None
    ) -> None:
        try:
            await self._loop.connect_accepted_socket(make, connection, ssl=tls)
        except OSError as error:  # A handshake that failed, or a caller that has gone.
            logger.debug("a connection was not opened: %s", error)
            connection.close()
