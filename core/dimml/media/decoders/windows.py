"""A long recording as a series of windows: each track is decoded once, and only open windows are held.

Besides, memory grows with the number of packets alone (some 50 bytes each), whose times are scanned first as for a
single range. The rows of a window are those that ``decode`` gives for the same range.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from dimml.errors import InvalidParameterError
from dimml.media.decoders.recording import Recording, decode, decode_source, open_recording, with_truncations
from dimml.media.decoders.signal_status import Tracks
from dimml.media.decoders.source import by_source
from dimml.media.decoders.time_range import Window, WindowDecoded, WindowPlan, check_range, judged_part
from dimml.media.types import Decoded, DecodeRequest, Source, all_because
from dimml.modality import Modality
from dimml.status import Reason


def decode_windows(request: DecodeRequest, plan: WindowPlan, first: int = 0) -> Iterator[WindowDecoded]:
    """Windows from number ``first`` on. The limit on seconds does not apply.

    Raises what ``decode`` raises, before the first window.
    """
    check_range(request)
    with ExitStack() as stack:
        sources = by_source(request)
        recordings = [open_recording(stack, source, of_it, request, alone=False) for source, of_it in sources]
        ends = [recording.duration_s for recording in recordings if recording.duration_s is not None]
        if not ends:
            yield WindowDecoded(0, 1, None, None, decode(request))
            return
        span = Window(request.start_s or 0.0, min(max(ends), request.end_s or math.inf))
        if span.seconds <= 0.0 and span.start_s > 0.0:
            raise InvalidParameterError(
                f"start_s ({span.start_s:g}) is past the end of the media ({max(ends):.3f} s)", field="start_s"
            )
        count = plan.count(span)
        plan.check(count)
        parts = [judged_part(plan.window(span, number), request.clip_s) for number in range(first, count)]
        missing = all_because(Reason.NOT_SENT, [m for m in request.modalities if m.name not in request.sources])
        timelines = [
            _timeline(recording, source, modalities, request, parts)
            for recording, (source, modalities) in zip(recordings, sources, strict=True)
        ]
        for number in range(first, count):
            tracks: Tracks = dict(missing)
            for timeline in timelines:
                tracks |= next(timeline)
            part = parts[number - first]
            ordered = {modality.name: tracks[modality.name] for modality in request.modalities}
            decoded = Decoded(ordered, round(part.start_s, 6), round(part.end_s, 6))
            yield WindowDecoded(number, count, plan.window(span, number), span, decoded)


def _timeline(
    recording: Recording,
    source: Source,
    modalities: Sequence[Modality],
    request: DecodeRequest,
    parts: Sequence[Window],
) -> Iterator[Tracks]:
    """Yield the tracks of each part of time, in order; past its own end a recording's tracks have ended."""
    end_s = recording.duration_s
    if end_s is None:
        always, _, _ = decode_source(source, modalities, request)
        for _ in parts:
            yield dict(always)
        return
    inside = [part for part in parts if part.start_s < end_s or part.start_s == 0.0]
    for tracks in recording.tracks(inside):
        yield with_truncations(tracks, recording)
    for _ in parts[len(inside) :]:
        yield all_because(Reason.TRACK_ENDED, modalities) | recording.unreadable
