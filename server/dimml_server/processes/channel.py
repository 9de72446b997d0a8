"""Calls between a parent and one of its processes, in both directions, over a pair of sockets.

A message is its length (``_LENGTH``) and a JSON object: ``id`` with ``method`` and ``arguments``, or ``id`` with
``result`` or ``error``.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from itertools import count
from typing import Any, Final

from dimml import errors
from dimml.errors import BundleError, DimmlError, QueueFullError, UnavailableError

logger = logging.getLogger(__name__)

_LENGTH: Final = struct.Struct("<I")

#: Answers a call by the name of its method and its arguments. Raises DimmlError.
Handler = Callable[[str, dict[str, Any]], Awaitable[Any]]


class ChannelClosedError(Exception):
    """Raised by calls to a process that has ended."""


class Channel:
    """One end of a channel. Lives in one event loop; ``handle`` answers the calls of the other side."""

    def __init__(self, handle: Handler) -> None:
        self._handle = handle
        self._opened = asyncio.Event()
        self._writer: asyncio.StreamWriter | None = None
        self._ids = count()
        #: Messages received so far: none comes from a process that hangs.
        self.received = 0
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._answering: set[asyncio.Task[None]] = set()

    async def run(self, end: socket.socket) -> None:
        """Serve this end of the channel until the other is closed."""
        reader, self._writer = await asyncio.open_connection(sock=end)
        self._opened.set()
        try:
            while True:
                (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
                self._received(json.loads(await reader.readexactly(length)))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writer.close()
            self._writer = None
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(ChannelClosedError())
            for task in self._answering:
                task.cancel()

    async def call(self, method: str, /, **arguments: Any) -> Any:
        """Call the other side, once ``run`` has opened this one; return its result.

        Raises the other side's DimmlError, and ChannelClosedError.
        """
        await self._opened.wait()
        number = next(self._ids)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            self._send({"id": number, "method": method, "arguments": arguments})
            return await answer
        finally:
            del self._waiting[number]

    def _received(self, message: dict[str, Any]) -> None:
        self.received += 1
        if "method" in message:
            task = asyncio.get_running_loop().create_task(self._answer(message))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)
            return
        waiting = self._waiting.get(message["id"])
        if waiting is None or waiting.done():
            return  # Its caller has gone.
        if "error" in message:
            waiting.set_exception(_error_of(message["error"]))
        else:
            waiting.set_result(message["result"])

    async def _answer(self, message: Mapping[str, Any]) -> None:
        method = message["method"]
        try:
            answer: dict[str, Any] = {"result": await self._handle(method, message["arguments"])}
        except DimmlError as error:
            answer = {"error": _error_fields(error)}
        except ChannelClosedError:
            answer = {"error": _error_fields(UnavailableError("a serving process has ended; try again"))}
        except Exception:
            logger.exception("call %s of another process", method)
            answer = {"error": _error_fields(UnavailableError("an internal error; the log says more"))}
        try:
            self._send({"id": message["id"], **answer})
        except ChannelClosedError:
            logger.debug("the answer of %s has no reader", method)

    def _send(self, message: Mapping[str, Any]) -> None:
        if self._writer is None:
            raise ChannelClosedError
        text = json.dumps(message).encode()
        self._writer.write(_LENGTH.pack(len(text)) + text)


def _error_fields(error: DimmlError) -> dict[str, Any]:
    return {
        "kind": type(error).__name__,
        "message": error.message,
        "field": error.field,
        "retry_after_s": getattr(error, "retry_after_s", None),
        "of_bundle": isinstance(error.__cause__, BundleError),
    }


def _error_of(fields: Mapping[str, Any]) -> DimmlError:
    """Make the error that the other side raised, of its own class."""
    kind: type[DimmlError] = getattr(errors, fields["kind"])
    if issubclass(kind, QueueFullError):
        return kind(fields["message"], retry_after_s=fields["retry_after_s"])
    error: DimmlError = kind(fields["message"], field=fields["field"])
    if fields["of_bundle"]:
        error.__cause__ = BundleError(fields["message"])
    return error
