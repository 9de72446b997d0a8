"""Calls between two processes, over a real pair of sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from dimml.errors import BundleError, DimmlError, NotFoundError, QueueFullError, RequestError, UnavailableError
from dimml_server.processes.channel import Channel, ChannelClosedError, Handler


async def echo(method: str, arguments: dict[str, Any]) -> Any:
    return {"method": method, **arguments}


@asynccontextmanager
async def pair(one: Handler, other: Handler) -> AsyncIterator[tuple[Channel, Channel]]:
    ends = socket.socketpair()
    channels = Channel(one), Channel(other)
    running = [asyncio.ensure_future(channel.run(end)) for channel, end in zip(channels, ends, strict=True)]
    try:
        yield channels
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def test_both_sides_call_at_once_and_large_answers_arrive() -> None:
    async def scenario() -> None:
        async with pair(echo, echo) as (one, other):
            text = "\N{GREEK SMALL LETTER ALPHA}" * 10**6
            calls = [one.call("a", number=number) for number in range(50)] + [other.call("b", text=text)]
            *answers, last = await asyncio.gather(*calls)
            assert [answer["number"] for answer in answers] == list(range(50))
            assert last == {"method": "b", "text": text}

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "error",
    [
        NotFoundError("no such", field="model"),
        QueueFullError("full", retry_after_s=3.5),
        RequestError("bad", field="split"),
    ],
    ids=lambda error: error.code,
)
def test_an_error_arrives_as_what_it_was(error: DimmlError) -> None:
    async def raising(method: str, arguments: dict[str, Any]) -> Any:
        raise error from BundleError("the cause")

    async def scenario() -> None:
        async with pair(echo, raising) as (one, _):
            with pytest.raises(DimmlError) as raised:
                await one.call("x")
            assert type(raised.value) is type(error)
            assert (raised.value.message, raised.value.field) == (error.message, error.field)
            assert getattr(raised.value, "retry_after_s", None) == getattr(error, "retry_after_s", None)

    asyncio.run(scenario())


def test_a_fault_is_logged_and_says_nothing_of_itself(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(method: str, arguments: dict[str, Any]) -> Any:
        raise ZeroDivisionError("secret")

    async def scenario() -> None:
        async with pair(echo, broken) as (one, _):
            with pytest.raises(UnavailableError) as raised:
                await one.call("x")
            assert "secret" not in raised.value.message

    asyncio.run(scenario())
    assert "ZeroDivisionError" in caplog.text


def test_the_end_of_the_other_side_ends_calls() -> None:
    async def scenario() -> None:
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        channel = Channel(echo)
        running = asyncio.ensure_future(channel.run(ours))
        waiting = asyncio.ensure_future(channel.call("x"))
        await asyncio.get_running_loop().sock_recv(theirs, 1)  # It has been sent.
        theirs.close()
        with pytest.raises(ChannelClosedError):
            await waiting
        await running
        with pytest.raises(ChannelClosedError):
            await channel.call("y")

    asyncio.run(scenario())


def test_a_call_that_is_given_up_leaves_the_channel_usable() -> None:
    release = asyncio.Event()

    async def late(method: str, arguments: dict[str, Any]) -> Any:
        if method == "late":
            await release.wait()
        return method

    async def scenario() -> None:
        async with pair(echo, late) as (one, _):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await one.call("late")
            release.set()
            assert await one.call("next") == "next"

    asyncio.run(scenario())
