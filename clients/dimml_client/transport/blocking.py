"""Blocking clients run the same coroutines as those in an event loop, over transports that never suspend."""

from __future__ import annotations

import time
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run_blocking(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends, without an event loop, and return its result. Raises what it raises."""
    try:
        work.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    work.close()
    raise AssertionError("a coroutine of a blocking transport suspended")


async def sleep_blocking(seconds: float) -> None:
    """Sleep without suspending."""
    time.sleep(seconds)  # noqa: ASYNC251 - run by run_blocking, where there is no event loop
