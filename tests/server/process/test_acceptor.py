"""Connections from one listening socket: a freer process has a head start, and none is lost if it does not take it."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import uvloop

from dimml_server.process.acceptor import Acceptor
from support.certificates import Authority
from support.waiting import wait_until_async


class Hello(asyncio.Protocol):
    """Sends the name of the process that took the connection."""

    def __init__(self, name: bytes) -> None:
        self._name = name

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.write(self._name)  # type: ignore[attr-defined]  # uvloop's are not asyncio's
        transport.close()


@asynccontextmanager
async def processes(
    *freer_elsewhere: Callable[[], bool], tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[tuple[str, int], list[Acceptor]]]:
    """Acceptors on one socket, as each of several processes has one; the address."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    acceptors = [Acceptor(listener.dup(), freer) for freer in freer_elsewhere]
    for number, acceptor in enumerate(acceptors):
        acceptor.begin(lambda number=number: Hello(str(number).encode()), tls)  # type: ignore[misc]
    try:
        yield listener.getsockname()[:2], acceptors
    finally:
        for acceptor in acceptors:
            acceptor.close()
        listener.close()


async def who_answers(address: tuple[str, int], tls: ssl.SSLContext | None = None) -> str:
    reader, writer = await asyncio.open_connection(*address, ssl=tls)
    try:
        return (await reader.read()).decode()
    finally:
        writer.close()


def run(scenario: Callable[[], object]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())  # type: ignore[arg-type]


def test_a_process_that_is_freer_takes_the_connection() -> None:
    async def scenario() -> None:
        async with processes(lambda: True, lambda: False) as (address, _):
            assert {await who_answers(address) for _ in range(10)} == {"1"}

    run(scenario)


def test_if_the_freer_one_does_not_another_takes_it() -> None:
    async def scenario() -> None:
        async with processes(lambda: True) as (address, _):
            assert [await who_answers(address) for _ in range(5)] == ["0"] * 5

    run(scenario)


def test_many_at_once_are_all_taken() -> None:
    async def scenario() -> None:
        async with processes(lambda: True, lambda: True) as (address, _):
            answers = await asyncio.gather(*(who_answers(address) for _ in range(50)))
            assert len(answers) == 50
            assert set(answers) <= {"0", "1"}

    run(scenario)


def test_one_that_stops_leaves_what_comes_to_the_other() -> None:
    async def scenario() -> None:
        async with processes(lambda: False, lambda: True) as (address, acceptors):
            assert await who_answers(address) == "0"
            acceptors[0].close()
            assert [await who_answers(address) for _ in range(3)] == ["1"] * 3

    run(scenario)


def test_tls_and_a_handshake_that_fails(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.sign("server")
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(pair.certificate, pair.key)
    client = ssl.create_default_context(cafile=str(authority.ca))

    async def scenario() -> None:
        async with processes(lambda: False, tls=server) as (address, _):
            _, plain = await asyncio.open_connection(*address)
            plain.write(b"GET / HTTP/1.1\r\n\r\n")
            await plain.drain()
            assert await who_answers(address, client) == "0"
            plain.close()

    run(scenario)


def test_no_file_left_for_a_connection_is_waited_out() -> None:
    """The system refuses the first accept, as it does if too many files are open; the connection is not lost."""
    refused: list[OSError] = []

    class Refusing(socket.socket):
        def accept(self) -> tuple[socket.socket, object]:
            if not refused:
                refused.append(OSError(24, "Too many open files"))
                raise refused[0]
            return super().accept()

    async def scenario() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        address = listener.getsockname()
        acceptor = Acceptor(Refusing(fileno=listener.detach()), lambda: False)
        acceptor.begin(lambda: Hello(b"0"), None)
        answer = asyncio.ensure_future(who_answers(address))
        await wait_until_async(answer.done, 10.0)
        assert answer.result() == "0"
        acceptor.close()

    run(scenario)
    assert refused
