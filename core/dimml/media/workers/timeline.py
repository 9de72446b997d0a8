"""Decode a recording's windows in a worker; if a track costs the worker, go on without that track."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Final

from dimml.media.decoders.time_range import WindowDecoded, WindowPlan, judged_part
from dimml.media.types import Decoded, DecodeRequest, all_because
from dimml.media.workers.blame import tracks_of
from dimml.media.workers.messages import Lost
from dimml.media.workers.pool import DecodePool
from dimml.modality import Modality
from dimml.status import Reason

#: Failures after which all tracks are given up if none alone is to blame.
_MAX_FAILURES: Final = 3


def decode_timeline(
    pool: DecodePool, request: DecodeRequest, plan: WindowPlan, *, timeout_s: float
) -> Iterator[WindowDecoded]:
    """Yield every window of a recording, however many workers that costs; ``timeout_s`` is for a chunk of windows.

    If a worker is lost, each track is tried alone from that window on. The one to blame is unusable from there to the
    recording's end, with the reason, and the others go on. Raises what ``decode_windows`` raises.
    """
    lost: dict[str, Reason] = {}
    number, failures = 0, 0
    last: WindowDecoded | None = None
    while len(lost) < len(request.modalities):
        alive = replace(request, modalities=tuple(m for m in request.modalities if m.name not in lost))
        crash: Lost | None = None
        with closing(pool.stream(alive, plan, number, timeout_s=timeout_s)) as items:
            for item in items:
                if isinstance(item, Lost):
                    crash = item
                    break
                yield _with_lost(item, request, lost)
                number, last = item.number + 1, item
        if crash is None:
            return
        groups = tracks_of(alive)
        guilty = [(groups[0], crash)]
        if len(groups) > 1:
            # One chunk of each alone, from the window that was next.
            tried = [
                (group, _try_alone(pool, alive, group, plan, first=number, timeout_s=timeout_s)) for group in groups
            ]
            guilty = [(group, failure) for group, failure in tried if failure is not None]
        failures += 1
        if not guilty and failures >= _MAX_FAILURES:
            guilty = [(group, crash) for group in groups]
        for group, failure in guilty:
            lost |= {modality.name: failure.reason for modality in group}
    yield from _all_lost(request, plan, number, last, lost)


def _try_alone(
    pool: DecodePool, request: DecodeRequest, group: list[Modality], plan: WindowPlan, *, first: int, timeout_s: float
) -> Lost | None:
    """Decode the first window of these modalities alone; return the ``Lost`` if there is one."""
    alone = replace(request, modalities=tuple(group))
    with closing(pool.stream(alone, plan, first, timeout_s=timeout_s)) as items:
        item = next(iter(items), None)
    return item if isinstance(item, Lost) else None


def _with_lost(item: WindowDecoded, request: DecodeRequest, lost: dict[str, Reason]) -> WindowDecoded:
    tracks = dict(item.decoded.tracks)
    for modality in request.modalities:
        if modality.name in lost:
            tracks |= all_because(lost[modality.name], [modality])
    ordered = {modality.name: tracks[modality.name] for modality in request.modalities}
    return replace(item, decoded=replace(item.decoded, tracks=ordered))


def _all_lost(
    request: DecodeRequest, plan: WindowPlan, number: int, last: WindowDecoded | None, lost: dict[str, Reason]
) -> Iterator[WindowDecoded]:
    """Yield the windows from ``number`` on, without any track; one without times if their number is not known."""
    nothing = WindowDecoded(0, 1, None, None, Decoded())
    if last is None or last.span is None:
        yield _with_lost(nothing, request, lost)
        return
    for later in range(number, last.count):
        window = plan.window(last.span, later)
        part = judged_part(window, request.clip_s)
        decoded = Decoded({}, round(part.start_s, 6), round(part.end_s, 6))
        yield _with_lost(WindowDecoded(later, last.count, window, last.span, decoded), request, lost)
