"""Background work that must not take the processor from requests: each call runs in a low-priority thread."""

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

#: With a still lower priority, a thread that holds the interpreter's lock could be descheduled for long while holding
#: it.
NICE: Final = 10


async def at_low_priority(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a function like ``asyncio.to_thread``, in a low-priority thread that is used for this call only.

    Threads that ``function`` starts keep the low priority: an unprivileged process cannot raise it again.
    """
    with_low_priority = ThreadPoolExecutor(1, "dimml-background", initializer=_give_way)
    try:
        return await asyncio.wrap_future(with_low_priority.submit(function, *args, **kwargs))
    finally:
        with_low_priority.shutdown(wait=False)


def _give_way() -> None:
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
