"""Steps of a call that need none of its resources: damage on request, time, and errors of the engine for the caller."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from time import perf_counter
from typing import TypeVar

from dimml.engine import EngineError
from dimml.errors import DeadlineExceededError, UnavailableError
from dimml.explanation.damage import Damage, damaged
from dimml.media.types import Decoded

logger = logging.getLogger(__name__)

T = TypeVar("T")


async def damage_in_time(work: Callable[[], T], end: float) -> T:
    """Run ``work`` in a thread. Raises DeadlineExceededError if it is not done by ``end``."""
    try:
        async with asyncio.timeout(end - perf_counter()):
            return await asyncio.to_thread(work)
    except TimeoutError:
        raise DeadlineExceededError("the request's time ran out while its rows were damaged") from None


def damage_tracks(decoded: Decoded, damages: Sequence[Damage]) -> None:
    """Do to the rows of a recording what ``predict`` does to them before the encoders: to those that are ok."""
    rows = {
        name: track.row[None] for name, track in decoded.tracks.items() if track.status.ok and track.row is not None
    }
    for name, row in damaged(rows, damages).items():
        decoded.tracks[name] = replace(decoded.tracks[name], row=row[0])


def span_of(decoded: Decoded) -> tuple[float, float] | None:
    """Return the range of the media that was decoded, or None for media without time."""
    if decoded.start_s is None or decoded.end_s is None or decoded.end_s <= decoded.start_s:
        return None
    return decoded.start_s, decoded.end_s


async def bounded(call: Awaitable[T], end: float) -> T:
    """Await a direct engine call; raise a caller's error in place of the engine's."""
    try:
        async with asyncio.timeout(end - perf_counter()):
            return await call
    except TimeoutError:
        raise DeadlineExceededError("the model was late") from None
    except EngineError as error:
        logger.warning("%s", error)
        raise UnavailableError(f"the model failed: {error.reason.value}") from error
