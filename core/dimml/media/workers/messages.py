"""Messages between a decode worker and its parent, and the bounds that a reply must keep.

Nothing that a worker sends is unpickled. A worker that a hostile file has taken over is confined by
``dimml.media.sandbox``, and its reply is the one way out that is left: a pickle there could run any code in the
parent. (The contents of such a worker's reply are not to be trusted: neither about the recording that took it over, nor
about those beside it in the message.)

How a reply is written: ``codec``; how it is sent: ``channel``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dimml.errors import DimmlError
from dimml.media.decoders.time_range import WindowDecoded, WindowPlan
from dimml.media.sandbox.sandbox import Isolation
from dimml.media.types import Decoded, DecodeRequest
from dimml.media.workers.channel import ALIGNMENT, MalformedReplyError
from dimml.modality import Modality
from dimml.status import Reason

#: A worker sends on what it has once the rows have so many bytes…
CHUNK_ROWS_BYTES: Final = 2 * 2**20
#: …or there are so many windows.
CHUNK_WINDOWS: Final = 500
#: No other request of a message is begun once they have taken so long.
SEVERAL_S: Final = 0.1
#: Bounds on the text of one result, and of one chunk of windows, without the times of frames.
_TEXT_BYTES: Final = 256 * 2**10
_CHUNK_TEXT_BYTES: Final = 2 * 2**20
_TIME_BYTES: Final = 32
#: Exit code of a worker whose memory was not enough even to report that.
EXIT_OUT_OF_MEMORY: Final = 71

DecodeFunction = Callable[[DecodeRequest], Decoded]


@dataclass(frozen=True, slots=True)
class WindowsRequest:
    """A recording in windows, from number ``first`` on.

    The answer is several ``WindowsReply``. After each but the last the worker waits for an empty message from the
    parent, which is how the parent holds it back.
    """

    request: DecodeRequest
    plan: WindowPlan
    first: int


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """First message to a worker."""

    #: In place of ``dimml.media.decode``.
    decode_function: DecodeFunction | None
    decode_memory_bytes: int
    #: The only folders with recordings; None means that they may lie anywhere.
    readable: Sequence[Path] | None = None


@dataclass(frozen=True, slots=True)
class Ready:
    """First message from a worker: its imports are done, and it is isolated as far as the kernel allows."""

    isolation: Isolation


@dataclass(frozen=True, slots=True)
class Lost:
    """No usable outcome: the worker crashed, was too late, or ran out of memory, or the decoder raised a bug.

    ``details`` is a worker's traceback, for the log only.
    """

    reason: Reason
    details: str = field(default="", compare=False)


#: What one request ends in: its rows, the error to raise to the caller, or neither.
Outcome = Decoded | DimmlError | Lost


@dataclass(frozen=True, slots=True)
class DecodeResult:
    """Outcome of one request, and the seconds that the worker spent on it."""

    outcome: Outcome
    seconds: float


@dataclass(frozen=True, slots=True)
class WindowsReply:
    """Next windows of a recording; ``done`` if they are the last."""

    windows: Sequence[WindowDecoded]
    done: bool


#: A list has the results of the first requests of a message, in order. An error or a ``Lost`` is the reply to the whole
#: message.
Reply = Ready | list[DecodeResult] | WindowsReply | DimmlError | Lost


def most_together(modalities: Sequence[Modality], most: int) -> int:
    """Return how many requests for these modalities a worker may answer in one message, at most ``most``.

    A worker begins no further request once the rows have ``CHUNK_ROWS_BYTES``.
    """
    return min(most, math.ceil(CHUNK_ROWS_BYTES / max(1, _rows_bytes(modalities))))


def reply_bounds(asked: Sequence[Sequence[Modality]], *, windows: bool = False) -> dict[str, int]:
    """Return ``most_text`` and ``most_rows``, in bytes, for ``ParentEnd.receive``.

    ``asked`` has the modalities of each request; ``windows`` is set for one request in windows.
    """
    rows = [_rows_bytes(modalities) + ALIGNMENT * len(modalities) for modalities in asked]
    # Every frame has a time.
    frames = [sum(m.shape[0] for m in modalities if m.track == "video") for modalities in asked]
    if not windows:
        padding = ALIGNMENT * sum(map(len, asked))
        most_rows = min(sum(rows), CHUNK_ROWS_BYTES + max(rows) + padding)
        return {"most_text": sum(_TEXT_BYTES + _TIME_BYTES * count for count in frames), "most_rows": most_rows}
    (modalities,) = asked
    padding = ALIGNMENT * len(modalities) * CHUNK_WINDOWS
    return {"most_text": _CHUNK_TEXT_BYTES + _TIME_BYTES * frames[0], "most_rows": CHUNK_ROWS_BYTES + rows[0] + padding}


def check_reply(reply: Reply, asked: Sequence[Sequence[Modality]]) -> None:
    """Check that a reply covers each modality of each request it answers, with rows of their shapes and dtypes.

    ``asked`` has the modalities of each request; the reply may answer only the first of them. Raises
    MalformedReplyError.
    """
    if isinstance(reply, list):
        if not 1 <= len(reply) <= len(asked):
            raise MalformedReplyError(f"{len(reply)} answers to {len(asked)} requests")
        for result, modalities in zip(reply, asked, strict=False):
            _check(result.outcome, modalities)
    elif isinstance(reply, WindowsReply):
        for window in reply.windows:
            _check(window.decoded, asked[0])
    elif isinstance(reply, DimmlError):
        _check(reply, asked[0])


def _check(outcome: Outcome, modalities: Sequence[Modality]) -> None:
    wanted = {modality.name: modality for modality in modalities}
    if isinstance(outcome, DimmlError) and not outcome.statuses.keys() <= wanted.keys():
        raise MalformedReplyError("statuses of modalities that were not asked for")
    if not isinstance(outcome, Decoded):
        return
    if outcome.tracks.keys() != wanted.keys():
        raise MalformedReplyError("tracks other than those that were asked for")
    for name, track in outcome.tracks.items():
        modality, row = wanted[name], track.row
        if track.status.ok != (row is not None):
            raise MalformedReplyError(f"{name} is {track.status}, with a row or without")
        if row is not None and (row.shape, row.dtype) != (modality.shape, modality.dtype):
            raise MalformedReplyError(f"a row of {row.dtype} {row.shape} for {name}")


def _rows_bytes(modalities: Sequence[Modality]) -> int:
    return sum(math.prod(m.shape) * m.dtype.itemsize for m in modalities)
