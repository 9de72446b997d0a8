"""Work for a client that is there, that leaves, and that is cut off by the server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from starlette.requests import Request
from starlette.types import Message

from dimml_server.http.body.disconnect import WHEN_GONE, unless_gone


async def tasks_end() -> None:
    """Wait until this is the only task left."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        assert not (await asyncio.wait(others, timeout=5.0))[1]


class Client:
    """The receiving end of one request whose body has been read; with ``hook``, on a connection of our own server."""

    def __init__(self, hook: bool) -> None:
        self.gone = asyncio.Event()
        self.hook = hook
        self.call: Callable[[], None] | None = None
        #: How the work ended.
        self.ended: list[str] = []

    def leave(self) -> None:
        self.gone.set()
        if self.call is not None:
            self.call()

    def when_gone(self, call: Callable[[], None] | None) -> None:
        self.call = call

    async def receive(self) -> Message:
        assert not self.hook
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def work(self, until: asyncio.Event) -> str:
        try:
            await until.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)  # Cleaning up takes a turn.
            self.ended.append("cancelled")
            raise
        self.ended.append("done")
        return "answer"

    def unless_gone(self, work: Coroutine[Any, Any, str]) -> Coroutine[Any, Any, str | None]:
        extension = {WHEN_GONE: self.when_gone} if self.hook else {}
        return unless_gone(Request({"type": "http", **extension}, self.receive), work)


@pytest.mark.parametrize("hook", [False, True])
def test_work_ends_with_its_result_its_error_or_its_client(hook: bool) -> None:
    async def scenario() -> None:
        client, release = Client(hook), asyncio.Event()
        asyncio.get_running_loop().call_soon(release.set)
        assert await client.unless_gone(client.work(release)) == "answer"
        await tasks_end()

        async def late() -> str:
            await asyncio.sleep(0)
            raise TimeoutError("of the work itself")

        with pytest.raises(TimeoutError, match="of the work itself"):
            await client.unless_gone(late())
        await tasks_end()

        asyncio.get_running_loop().call_soon(client.leave)
        assert await client.unless_gone(client.work(asyncio.Event())) is None
        assert client.ended == ["done", "cancelled"]
        assert client.call is None
        # The task goes on as if nothing had been cancelled.
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await asyncio.sleep(0)
        await tasks_end()

    asyncio.run(scenario())


@pytest.mark.parametrize("hook", [False, True])
def test_a_cancelled_server_task_cancels_the_work(hook: bool) -> None:
    async def scenario() -> None:
        client = Client(hook)
        serving = asyncio.create_task(client.unless_gone(client.work(asyncio.Event())))
        await asyncio.sleep(0)
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        assert client.ended == ["cancelled"]
        await tasks_end()

    asyncio.run(scenario())
