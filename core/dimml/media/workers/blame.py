"""Find the track that costs a worker: decode all tracks together, then, if the worker was lost, each track alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from dimml.errors import DimmlError, UnavailableError
from dimml.media.types import Decoded, DecodedTrack, DecodeRequest
from dimml.media.workers.messages import DecodeResult, Lost, Outcome
from dimml.modality import Modality, Track
from dimml.status import ModalityStatus, Reason

#: Share of the time that the first attempt may take if there are tracks to try alone after it.
FIRST_TRY_SHARE: Final = 0.5
#: The quickest to decode first.
_ORDER: Final[Mapping[Track, int]] = {"audio": 0, "data": 1, "video": 2}


class Attempt(NamedTuple):
    """A request to run next, and the seconds that it may run."""

    request: DecodeRequest
    limit_s: float


Attempts = Generator[Attempt, Outcome, Decoded]


def attempts(request: DecodeRequest, end: float, closed: Callable[[], bool]) -> Attempts:
    """Yield what to run next until ``request`` is answered; send the outcome of each, get ``Decoded`` returned.

    All tracks together first. Then each alone, sound first since it is the quickest, one after another: a bad file must
    not take several workers away from good ones. ``end`` is monotonic time; ``closed`` returns whether the pool is
    closed, so that an UnavailableError is final. Raises the DimmlError that an attempt ends in; an UnavailableError
    only of the first attempt or of a closed pool.
    """
    groups = tracks_of(request)
    left_s = end - time.monotonic()
    outcome = yield Attempt(request, left_s * FIRST_TRY_SHARE if len(groups) > 1 else left_s)
    if isinstance(outcome, DimmlError):
        raise outcome
    if isinstance(outcome, Decoded):
        return outcome
    if len(groups) == 1:
        return _merge(request, [(groups[0], outcome)])
    outcomes: list[tuple[Sequence[Modality], Decoded | Lost]] = []
    for position, group in enumerate(groups):
        share_s = (end - time.monotonic()) / (len(groups) - position)
        if share_s <= 0.0:
            outcomes.append((group, Lost(Reason.DECODE_TIMEOUT)))
            continue
        alone = yield Attempt(replace(request, modalities=tuple(group)), share_s)
        if isinstance(alone, UnavailableError) and not closed():
            # This request has already cost a worker: an answer of "try again later" would cost another.
            alone = Lost(Reason.DECODE_TIMEOUT)
        if isinstance(alone, DimmlError):
            raise alone
        outcomes.append((group, alone))
    return _merge(request, outcomes)


def only_outcome(results: list[DecodeResult] | Lost) -> Outcome:
    """Return the outcome of a job of one request."""
    return results if isinstance(results, Lost) else results[0].outcome


def advance(tries: Attempts, outcome: Outcome) -> Attempt | Decoded:
    """Return the next attempt after ``outcome``, or the answer. Raises what ``attempts`` raises."""
    try:
        return tries.send(outcome)
    except StopIteration as stop:
        answer: Decoded = stop.value
        return answer


def tracks_of(request: DecodeRequest) -> list[list[Modality]]:
    """Group the modalities that come from the same track of the same source; sound first, pictures last."""
    groups: dict[tuple[int, int], list[Modality]] = {}
    for modality in request.modalities:
        source = request.sources.get(modality.name)
        if source is not None:
            groups.setdefault((_ORDER[modality.track], id(source)), []).append(modality)
    return [groups[key] for key in sorted(groups, key=lambda key: key[0])] or [[]]


def _merge(request: DecodeRequest, outcomes: Sequence[tuple[Sequence[Modality], Decoded | Lost]]) -> Decoded:
    """Join the tracks that were decoded alone; those of a ``Lost`` are unusable for its reason."""
    tracks: dict[str, DecodedTrack] = {}
    timed: Decoded | None = None
    durations = [one.duration_s for _, one in outcomes if isinstance(one, Decoded) and one.duration_s is not None]
    for group, outcome in outcomes:
        if isinstance(outcome, Lost):
            tracks |= {modality.name: DecodedTrack(ModalityStatus.because(outcome.reason)) for modality in group}
        else:
            tracks |= outcome.tracks
            if timed is None and outcome.start_s is not None:
                timed = outcome
    missing = DecodedTrack(ModalityStatus.because(Reason.NOT_SENT))
    return Decoded(
        tracks={modality.name: tracks.get(modality.name, missing) for modality in request.modalities},
        start_s=None if timed is None else timed.start_s,
        end_s=None if timed is None else timed.end_s,
        duration_s=max(durations, default=None),
    )
