"""Work of this process that should not take the processor from requests: in one thread of low priority at a time."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

#: Lower still, and a thread that holds the interpreter's lock for a moment would hold it for long.
NICE: Final = 10


async def at_low_priority(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """As ``asyncio.to_thread``, in a thread of its own that only this call has.

    Threads that ``function`` starts have the low priority for good: an unprivileged process cannot raise it again.
    """
    with_low_priority = ThreadPoolExecutor(1, "dimml-background", initializer=_give_way)
    try:
        return await asyncio.wrap_future(with_low_priority.submit(function, *args, **kwargs))
    finally:
        with_low_priority.shutdown(wait=False)


def _give_way() -> None:
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
