"""Cancel work when its client disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final, TypeVar

from starlette.requests import Request

T = TypeVar("T")

#: nginx's status for a client that disconnected before it was answered; it appears in the access log only.
CLIENT_CLOSED_REQUEST = 499


#: Key of a request's scope for a function that takes what to call once the client has gone, or None for nothing.
#: Without it a task of its own waits for the disconnect.
WHEN_GONE: Final = "dimml.when_gone"


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T | None:
    """Return the result of ``work``, or None if the client disconnected first and ``work`` has been cancelled.

    The request's body must have been read: the next message can only be the disconnect.
    """
    # A time limit that nothing but the disconnect sets: it cancels the work in this task, and no other cancellation.
    while_there = asyncio.timeout(None)
    when_gone: Callable[[Callable[[], None] | None], None] | None = request.scope.get(WHEN_GONE)
    watching = None if when_gone else asyncio.ensure_future(_end_at_disconnect(request, while_there))
    try:
        async with while_there:
            if when_gone is not None:
                when_gone(partial(_end, while_there))
            return await work
    except TimeoutError:
        if not while_there.expired():
            raise
        return None
    finally:
        if watching is not None:
            watching.cancel()
        elif when_gone is not None:
            when_gone(None)


async def _end_at_disconnect(request: Request, while_there: asyncio.Timeout) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    _end(while_there)


def _end(while_there: asyncio.Timeout) -> None:
    while_there.reschedule(asyncio.get_running_loop().time())
