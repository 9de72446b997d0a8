"""What a decode worker may say to its parent, how much of it, and about what.

Nothing of it is unpickled. A worker that a hostile file has taken over is shut in (``dimml.media.sandbox``), and what
its parent reads is the one way out that is left: a pickle there would be any code, in the parent. (What such a worker
says of recordings is not to be trusted: of the one that took it over, and of those beside it in the message.)

How it is written: ``codec``; how it is sent: ``channel``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dimml.errors import DimmlError
from dimml.media.decoders.windows import WindowDecoded, WindowPlan
from dimml.media.sandbox.sandbox import Isolation
from dimml.media.types import Decoded, DecodeRequest
from dimml.media.workers.channel import ALIGNMENT, MalformedReplyError
from dimml.modality import Modality, Waveform
from dimml.status import Reason

#: A worker sends on what it has once the rows have so many bytes…
CHUNK_ROWS_BYTES: Final = 2 * 2**20
#: …or there are so many windows.
CHUNK_WINDOWS: Final = 500
#: No other request of a message is begun once they have taken so long.
SEVERAL_S: Final = 0.1
#: Of an answer, beside the times of its frames, and of some windows.
_TEXT_BYTES: Final = 256 * 2**10
_CHUNK_TEXT_BYTES: Final = 2 * 2**20
_TIME_BYTES: Final = 32
#: Exit code of a worker that could not even say that its memory was not enough.
EXIT_OUT_OF_MEMORY: Final = 71

DecodeFunction = Callable[[DecodeRequest], Decoded]


@dataclass(frozen=True, slots=True)
class WindowsRequest:
    """A recording in windows, from number ``first`` on. The answer is several ``WindowsReply``, each but the last to
    be followed by an empty message from the parent, which is how it holds the worker back."""

    request: DecodeRequest
    plan: WindowPlan
    first: int


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """First message to a worker."""

    decode_function: DecodeFunction
    decode_memory_bytes: int
    #: The only folders with recordings; None means that they may lie anywhere.
    readable: Sequence[Path] | None = None


@dataclass(frozen=True, slots=True)
class Ready:
    """First message from a worker: everything is imported, and its limits stand as far as they could be had."""

    isolation: Isolation


@dataclass(frozen=True, slots=True)
class WindowsReply:
    """Some more windows; ``done`` where they are the last."""

    windows: Sequence[WindowDecoded]
    done: bool


@dataclass(frozen=True, slots=True)
class OutOfMemory:
    """The request asked for more than ``decode_memory_bytes``."""


@dataclass(frozen=True, slots=True)
class Broke:
    """The decode function raised something that it should not; ``details`` is for the log only."""

    details: str


#: What comes of one request.
Told = Decoded | DimmlError | OutOfMemory | Broke


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one request, and the seconds that it took."""

    told: Told
    seconds: float


@dataclass(frozen=True, slots=True)
class AnswersReply:
    """To the first so many of the requests of a message."""

    answers: Sequence[Answer]


@dataclass(frozen=True, slots=True)
class Lost:
    """No reply that can be used: the worker died, outlasted its time, or ran out of memory."""

    reason: Reason


Outcome = Decoded | Lost


@dataclass(frozen=True, slots=True)
class Answered:
    """What came of one request, and the seconds that it took in the worker."""

    outcome: Outcome | DimmlError
    seconds: float


Reply = Ready | AnswersReply | WindowsReply | DimmlError | OutOfMemory | Broke


def most_together(modalities: Sequence[Modality], most: int) -> int:
    """Requests about these that a worker may answer in one message, ``most`` at the most: it begins no other once
    their rows have ``CHUNK_ROWS_BYTES``."""
    return min(most, math.ceil(CHUNK_ROWS_BYTES / max(1, _rows_bytes(modalities))))


def reply_bounds(asked: Sequence[Sequence[Modality]], *, windows: bool = False) -> dict[str, int]:
    """``most_text`` and ``most_rows`` of an answer about the modalities of each request, for ``ParentEnd.receive``."""
    rows = [_rows_bytes(modalities) + ALIGNMENT * len(modalities) for modalities in asked]
    # Every frame has a time.
    frames = [sum(m.shape[0] for m in modalities if not isinstance(m, Waveform)) for modalities in asked]
    if not windows:
        padding = ALIGNMENT * sum(map(len, asked))
        most_rows = min(sum(rows), CHUNK_ROWS_BYTES + max(rows) + padding)
        return {"most_text": sum(_TEXT_BYTES + _TIME_BYTES * count for count in frames), "most_rows": most_rows}
    (modalities,) = asked
    padding = ALIGNMENT * len(modalities) * CHUNK_WINDOWS
    return {"most_text": _CHUNK_TEXT_BYTES + _TIME_BYTES * frames[0], "most_rows": CHUNK_ROWS_BYTES + rows[0] + padding}


def check_reply(reply: Reply, asked: Sequence[Sequence[Modality]]) -> None:
    """Raise MalformedReplyError where it does not answer for each of a request's modalities, with rows of their
    shapes. ``asked`` are the modalities of each request, of which the first may be answered alone."""
    if isinstance(reply, AnswersReply):
        if not 1 <= len(reply.answers) <= len(asked):
            raise MalformedReplyError(f"{len(reply.answers)} answers to {len(asked)} requests")
        for answer, modalities in zip(reply.answers, asked, strict=False):
            _check(answer.told, modalities)
    elif isinstance(reply, WindowsReply):
        for window in reply.windows:
            _check(window.decoded, asked[0])
    elif isinstance(reply, DimmlError):
        _check(reply, asked[0])


def _check(told: Told, modalities: Sequence[Modality]) -> None:
    wanted = {modality.name: modality for modality in modalities}
    if isinstance(told, DimmlError) and not told.statuses.keys() <= wanted.keys():
        raise MalformedReplyError("statuses of modalities that were not asked for")
    if not isinstance(told, Decoded):
        return
    if told.tracks.keys() != wanted.keys():
        raise MalformedReplyError("tracks other than those that were asked for")
    for name, track in told.tracks.items():
        modality, row = wanted[name], track.row
        if track.status.ok != (row is not None):
            raise MalformedReplyError(f"{name} is {track.status}, with a row or without")
        if row is not None and (row.shape, row.dtype) != (modality.shape, modality.dtype):
            raise MalformedReplyError(f"a row of {row.dtype} {row.shape} for {name}")


def _rows_bytes(modalities: Sequence[Modality]) -> int:
    return sum(math.prod(m.shape) * m.dtype.itemsize for m in modalities)
