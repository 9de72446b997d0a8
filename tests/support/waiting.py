"""Waits for what gives no sign, as another process does: a bounded poll. Where there is an event, wait for that."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

#: A look costs little beside what is waited for.
EVERY_S = 0.02


def comes_true(true: Callable[[], object], limit_s: float, every_s: float = EVERY_S) -> bool:
    """Block until it is true, or until ``limit_s`` have passed; whether it is."""
    end = time.monotonic() + limit_s
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(every_s)
    return True


def wait_until(
    true: Callable[[], object],
    limit_s: float = 60.0,
    seen: Callable[[], object] | str = "",
    *,
    every_s: float = EVERY_S,
) -> None:
    """Block until it is true. Raises AssertionError past ``limit_s``, with what is ``seen`` instead."""
    assert comes_true(true, limit_s, every_s), f"not within {limit_s:g} s: {seen() if callable(seen) else seen}"


async def wait_until_async(true: Callable[[], object], limit_s: float) -> None:
    """``wait_until`` for what this thread's event loop does meanwhile."""
    end = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < end, f"not within {limit_s:g} s"
        await asyncio.sleep(EVERY_S)
