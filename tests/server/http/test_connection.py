"""The transport beneath a connection, on uvloop."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import uvloop

from dimml_server.http.connection.protocol import BoundedConnection, LenientTransport


async def _closed_transport() -> asyncio.Transport:
    lost = asyncio.Event()

    class Protocol(asyncio.Protocol):
        def connection_lost(self, exc: Exception | None) -> None:
            lost.set()

    loop = asyncio.get_running_loop()
    async with await loop.create_server(asyncio.Protocol, "127.0.0.1", 0) as server:
        transport, _ = await loop.create_connection(Protocol, *server.sockets[0].getsockname())
        LenientTransport(transport).write(b"while it is open")
        assert transport.get_write_buffer_size() == 0
        transport.abort()
        await lost.wait()
    return transport


class Below:
    """A transport that keeps what it is given, a piece for each call."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        self.pieces.append(data)

    def writelines(self, lines: list[bytes]) -> None:
        self.pieces.append(b"".join(lines))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


def test_a_head_leaves_with_what_follows_it() -> None:
    below = Below()
    transport = LenientTransport(cast(asyncio.Transport, below))
    transport.hold_next()
    transport.write(b"head ")
    assert below.pieces == []
    transport.write(b"body")
    transport.write(b"more")
    assert below.pieces == [b"head body", b"more"]


def test_a_head_that_nothing_follows_leaves_with_the_end() -> None:
    below = Below()
    transport = LenientTransport(cast(asyncio.Transport, below))
    transport.hold_next()
    transport.write(b"head")
    transport.close()
    assert (below.pieces, below.closed) == ([b"head"], True)


def test_what_is_written_after_the_end_is_dropped() -> None:
    async def write() -> None:
        transport = LenientTransport(await _closed_transport())
        assert transport.is_closing()
        transport.write(b"too late")
        assert transport.get_write_buffer_size() == 0

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(write())


def test_a_connection_whose_reading_is_paused_is_read_for_its_end() -> None:
    """uvicorn pauses it after a large piece of a body, and nothing would say that the client has gone."""
    connection: Any = object.__new__(BoundedConnection)
    read: list[str] = []
    connection._lost, connection.flow = False, SimpleNamespace(resume_reading=lambda: read.append("again"))
    connection._when_gone(None)
    assert read == []
    connection._when_gone(lambda: read.append("gone"))
    assert read == ["again"]
    connection._lost = True
    connection._when_gone(lambda: read.append("gone"))
    assert read == ["again", "gone"]
