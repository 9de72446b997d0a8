"""The transport beneath a connection, on uvloop."""

from __future__ import annotations

import asyncio

import uvloop

from dimml_server.http.connection.protocol import LenientTransport


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


def test_what_is_written_after_the_end_is_dropped() -> None:
    async def write() -> None:
        transport = LenientTransport(await _closed_transport())
        assert transport.is_closing()
        transport.write(b"too late")
        assert transport.get_write_buffer_size() == 0

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(write())
