"""What to try with a request that may cost a worker: everything together, then each track alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from typing import Final

from dimml.errors import DimmlError, UnavailableError
from dimml.media.types import Decoded, DecodedTrack, DecodeRequest
from dimml.media.workers.messages import Answered, Lost, Outcome
from dimml.modality import Modality, Waveform
from dimml.status import ModalityStatus, Reason

#: Share of the time that the first try may take where there are tracks to try alone after it.
FIRST_TRY_SHARE: Final = 0.5

#: A request, and the seconds that it may run.
Step = tuple[DecodeRequest, float]
Attempts = Generator[Step, Outcome, Decoded]


def attempts(request: DecodeRequest, end: float, closed: Callable[[], bool]) -> Attempts:
    """What to try, as (request, seconds it may run), until there is an answer; sent the outcome of each.

    All tracks together first. Then each alone, sound first since it is the quickest, one after another: a bad
    file must not take several workers away from good ones. ``end`` is monotonic time; ``closed`` says whether an
    UnavailableError is for good.
    """
    groups = tracks_of(request)
    left_s = end - time.monotonic()
    outcome = yield request, left_s * FIRST_TRY_SHARE if len(groups) > 1 else left_s
    if isinstance(outcome, Decoded):
        return outcome
    if len(groups) == 1:
        return _assembled(request, [(groups[0], outcome)])
    outcomes: list[tuple[Sequence[Modality], Outcome]] = []
    for position, group in enumerate(groups):
        share_s = (end - time.monotonic()) / (len(groups) - position)
        if share_s <= 0.0:
            outcomes.append((group, Lost(Reason.DECODE_TIMEOUT)))
            continue
        try:
            alone = yield replace(request, modalities=tuple(group)), share_s
        except UnavailableError:
            if closed():
                raise
            # This request has already cost a worker: to say "try again later" would cost another.
            alone = Lost(Reason.DECODE_TIMEOUT)
        outcomes.append((group, alone))
    return _assembled(request, outcomes)


def only(answers: list[Answered] | Lost) -> Outcome:
    """Of one request. Raises the DimmlError that is its answer."""
    if isinstance(answers, Lost):
        return answers
    outcome = answers[0].outcome
    if isinstance(outcome, DimmlError):
        raise outcome
    return outcome


def advance(trying: Attempts, outcome: Outcome | UnavailableError) -> Step | Decoded:
    """What to try after ``outcome``, or the answer. Raises the UnavailableError where nothing can be tried."""
    try:
        return trying.throw(outcome) if isinstance(outcome, UnavailableError) else trying.send(outcome)
    except StopIteration as stop:
        answer: Decoded = stop.value
        return answer


def tracks_of(request: DecodeRequest) -> list[list[Modality]]:
    """Modalities that come from the same track of the same source; sound first."""
    groups: dict[tuple[bool, int], list[Modality]] = {}
    for modality in request.modalities:
        source = request.sources.get(modality.name)
        if source is not None:
            groups.setdefault((not isinstance(modality, Waveform), id(source)), []).append(modality)
    return [groups[key] for key in sorted(groups, key=lambda key: key[0])] or [[]]


def _assembled(request: DecodeRequest, outcomes: Sequence[tuple[Sequence[Modality], Outcome]]) -> Decoded:
    tracks: dict[str, DecodedTrack] = {}
    judged: Decoded | None = None
    for group, outcome in outcomes:
        if isinstance(outcome, Lost):
            tracks |= {modality.name: DecodedTrack(ModalityStatus.because(outcome.reason)) for modality in group}
        else:
            tracks |= outcome.tracks
            if judged is None and outcome.start_s is not None:
                judged = outcome
    missing = DecodedTrack(ModalityStatus.because(Reason.NOT_SENT))
    return Decoded(
        tracks={modality.name: tracks.get(modality.name, missing) for modality in request.modalities},
        start_s=None if judged is None else judged.start_s,
        end_s=None if judged is None else judged.end_s,
    )
