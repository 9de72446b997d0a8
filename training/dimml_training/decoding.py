"""Many clips through ``dimml.media`` in worker processes, a bounded number at a time."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import TypeVar

from dimml.errors import DimmlError
from dimml.media import Decoded, DecodeRequest, decode

Item = TypeVar("Item")


def _decode(request: DecodeRequest) -> Decoded | DimmlError:
    try:
        return decode(request)
    except DimmlError as error:
        return error


def decoded(
    items: Iterable[Item], request: Callable[[Item], DecodeRequest]
) -> Iterator[tuple[Item, Decoded | DimmlError]]:
    """Each item with what its request gave, in order of completion."""
    items = list(items)
    if not items:
        return
    workers = os.cpu_count() or 1
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        running: dict[Future[Decoded | DimmlError], Item] = {}
        for item in items:
            if len(running) >= 2 * workers:
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                yield from ((running.pop(future), future.result()) for future in done)
            running[pool.submit(_decode, request(item))] = item
        done, _ = wait(running)
        yield from ((running[future], future.result()) for future in done)
