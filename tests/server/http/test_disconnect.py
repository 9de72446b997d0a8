"""Work for a client that is there, that leaves, and that is cut off by the server."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from starlette.requests import Request
from starlette.types import Message

from dimml_server.http.body.disconnect import unless_gone


async def tasks_end() -> None:
    """Wait until this is the only task left."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        assert not (await asyncio.wait(others, timeout=5.0))[1]


class Client:
    """The receiving end of one request whose body has been read."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()
        #: How the work ended.
        self.ended: list[str] = []

    async def receive(self) -> Message:
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
        return unless_gone(Request({"type": "http"}, self.receive), work)


def test_work_ends_with_its_result_its_error_or_its_client() -> None:
    async def scenario() -> None:
        client, release = Client(), asyncio.Event()
        asyncio.get_running_loop().call_soon(release.set)
        assert await client.unless_gone(client.work(release)) == "answer"
        await tasks_end()

        async def late() -> str:
            await asyncio.sleep(0)
            raise TimeoutError("of the work itself")

        with pytest.raises(TimeoutError, match="of the work itself"):
            await client.unless_gone(late())
        await tasks_end()

        asyncio.get_running_loop().call_soon(client.gone.set)
        assert await client.unless_gone(client.work(asyncio.Event())) is None
        assert client.ended == ["done", "cancelled"]
        # The task goes on as if nothing had been cancelled.
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await asyncio.sleep(0)
        await tasks_end()

    asyncio.run(scenario())


def test_a_cancelled_server_task_cancels_the_work() -> None:
    async def scenario() -> None:
        client = Client()
        serving = asyncio.create_task(client.unless_gone(client.work(asyncio.Event())))
        await asyncio.sleep(0)
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        assert client.ended == ["cancelled"]
        await tasks_end()

    asyncio.run(scenario())
