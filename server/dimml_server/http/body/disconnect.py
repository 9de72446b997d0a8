"""Cancel work when its client disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import Request

T = TypeVar("T")

#: nginx's status for a client that disconnected before it was answered; it appears in the access log only.
CLIENT_CLOSED_REQUEST = 499


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T | None:
    """Return the result of ``work``, or None if the client disconnected first and ``work`` has been cancelled.

    The request's body must have been read: the next message can only be the disconnect.
    """
    # A time limit that nothing but the disconnect sets: it cancels the work in this task, and no other cancellation.
    while_there = asyncio.timeout(None)
    watching = asyncio.ensure_future(_end_at_disconnect(request, while_there))
    try:
        async with while_there:
            return await work
    except TimeoutError:
        if not while_there.expired():
            raise
        return None
    finally:
        watching.cancel()


async def _end_at_disconnect(request: Request, while_there: asyncio.Timeout) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    while_there.reschedule(asyncio.get_running_loop().time())
