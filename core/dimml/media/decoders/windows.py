"""A long recording as a row of windows: each track is decoded once, and no more than the open windows is held.

Beside these rows, memory grows with the number of packets alone (some 50 bytes for each): their times are scanned
first, as for a single stretch. A window's rows are those that ``decode`` gives for the same range.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import repeat
from typing import Any, BinaryIO

from dimml.errors import InvalidParameterError
from dimml.media.decoders.audio import SoundFile
from dimml.media.decoders.container import best_stream, open_container
from dimml.media.decoders.file_type import FileType, identify
from dimml.media.decoders.packet_index import ContainerIndex, scan
from dimml.media.decoders.recording import by_source, decode, opened, stream_kind, unreadable
from dimml.media.decoders.signal_status import Tracks, all_because, judged, picture_tracks
from dimml.media.decoders.time_range import END_TOLERANCE_S, Window, check_range
from dimml.media.decoders.window_readers import PictureTimeline, SoundTimeline, stretches
from dimml.media.types import Decoded, DecodeRequest, Source
from dimml.modality import Modality, Waveform
from dimml.status import Reason


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """Windows of ``window_s`` seconds, one every ``stride_s``. The last one ends with the recording."""

    window_s: float
    stride_s: float

    def count(self, span: Window) -> int:
        """How many windows cover ``span``; at least one. What is left at the end has to be worth a window."""
        seconds = span.seconds - END_TOLERANCE_S
        # As many as begin before the end, but none after the first that reaches it.
        return max(1, min(math.ceil(seconds / self.stride_s), 1 + math.ceil((seconds - self.window_s) / self.stride_s)))

    def window(self, span: Window, number: int) -> Window:
        """The window of this number, from 0."""
        start_s = span.start_s + number * self.stride_s
        return Window(start_s, min(start_s + self.window_s, span.end_s))


@dataclass(slots=True)
class WindowDecoded:
    """One window of ``count``; ``window`` and ``span`` are None where the recording has no time: a picture, or
    nothing that decodes. There is one such "window" then."""

    number: int
    count: int
    window: Window | None
    span: Window | None
    decoded: Decoded


def judged_part(window: Window, clip_s: float) -> Window:
    """The middle ``clip_s`` seconds of a window, or all of a shorter one."""
    spare_s = max(0.0, window.seconds - clip_s) / 2.0
    return Window(window.start_s + spare_s, window.end_s - spare_s)


def decode_windows(request: DecodeRequest, plan: WindowPlan, first: int = 0) -> Iterator[WindowDecoded]:
    """Windows from number ``first`` on. The limit on seconds does not apply.

    Raises what ``decode`` raises, before the first window.
    """
    check_range(request)
    with ExitStack() as stack:
        sources = [_Source(stack, source, modalities, request) for source, modalities in by_source(request)]
        ends = [source.duration_s for source in sources if source.duration_s is not None]
        if not ends:
            yield WindowDecoded(0, 1, None, None, decode(request))
            return
        span = Window(request.start_s or 0.0, min(max(ends), request.end_s or math.inf))
        if span.seconds <= 0.0 and span.start_s > 0.0:
            raise InvalidParameterError(
                f"start_s ({span.start_s:g}) is past the end of the media ({max(ends):.3f} s)", field="start_s"
            )
        count = plan.count(span)
        parts = [judged_part(plan.window(span, number), request.clip_s) for number in range(first, count)]
        missing = all_because(Reason.NOT_SENT, [m for m in request.modalities if m.name not in request.sources])
        timelines = [source.tracks(parts) for source in sources]
        for number in range(first, count):
            tracks: Tracks = dict(missing)
            for timeline in timelines:
                tracks |= next(timeline)
            part = parts[number - first]
            ordered = {modality.name: tracks[modality.name] for modality in request.modalities}
            decoded = Decoded(ordered, round(part.start_s, 6), round(part.end_s, 6))
            yield WindowDecoded(number, count, plan.window(span, number), span, decoded)


class _Source:
    """One recording of a request, open for as long as the stack is. ``duration_s`` None: it has no time."""

    def __init__(
        self, stack: ExitStack, source: Source, modalities: Sequence[Modality], request: DecodeRequest
    ) -> None:
        self._stack = stack
        self._source = source
        self._modalities = modalities
        self._request = request
        self.duration_s: float | None = None
        self._sound: SoundFile | None = None
        self._index: ContainerIndex | None = None
        self._file, size = stack.enter_context(opened(source, request.limits.max_bytes))
        self._file_type = identify(self._file) if size else None
        if self._file_type is None or self._file_type.kind in ("image", "flow"):
            return
        if self._file_type.kind == "sound" and self._file_type.demuxer != "ogg" and self._open_sound():
            return
        container = open_container(self._file, self._file_type.demuxer, request.limits)
        if container is None:
            return
        with container:
            self._streams = {kind: best_stream(container, kind) for kind in ("audio", "video")}
            self._index = scan(container, [stream for stream in self._streams.values() if stream is not None])
            self._unreadable = {
                m.name: unreadable(container, self._streams[stream_kind(m)], stream_kind(m), self._index)
                for m in modalities
            }
        if any(reason is None for reason in self._unreadable.values()):
            self.duration_s = self._index.duration_s

    def _open_sound(self) -> bool:
        try:
            sound = SoundFile(self._file)
        except (OSError, ValueError, RuntimeError):
            # FFmpeg reads some that libsndfile, whose errors are RuntimeErrors, does not.
            return False
        self._stack.callback(sound.close)
        if not sound.empty:
            self._sound, self.duration_s = sound, sound.duration_s
        return True

    def tracks(self, parts: Sequence[Window]) -> Iterator[Tracks]:
        """Every modality's track of each part of time, in order. Past its own end a source has no track."""
        if self.duration_s is None:
            # A picture, a flow, or nothing that decodes: the same at all times.
            request = DecodeRequest(
                modalities=tuple(self._modalities),
                sources={modality.name: self._source for modality in self._modalities},
                clip_s=self._request.clip_s,
                limits=self._request.limits,
                quality=self._request.quality,
            )
            always = decode(request).tracks
            for _ in parts:
                yield dict(always)
            return
        inside = [part for part in parts if part.start_s < self.duration_s or part.start_s == 0.0]
        timelines = [self._sound_file(inside)] if self._sound is not None else self._container(inside)
        for _ in inside:
            tracks: Tracks = {}
            for timeline in timelines:
                tracks |= next(timeline)
            yield tracks
        for _ in range(len(parts) - len(inside)):
            yield all_because(Reason.NO_TRACK, self._modalities)

    def _sound_file(self, parts: Sequence[Window]) -> Iterator[Tracks]:
        heard = [modality for modality in self._modalities if isinstance(modality, Waveform)]
        others = all_because(Reason.NO_TRACK, [m for m in self._modalities if not isinstance(m, Waveform)])
        sound = self._sound
        for part in parts:
            try:
                buffer = None if sound is None else sound.read(part)
            except (OSError, ValueError, RuntimeError):
                buffer = None
            yield others | {
                m.name: judged(m, None if buffer is None else buffer.row(m), (), self._request) for m in heard
            }

    def _container(self, parts: Sequence[Window]) -> list[Iterator[Tracks]]:
        lost = {name: reason for name, reason in self._unreadable.items() if reason is not None}
        readable = [modality for modality in self._modalities if modality.name not in lost]
        names = {modality.name: modality for modality in self._modalities}
        constant: Tracks = {}
        for name, reason in lost.items():
            constant |= all_because(reason, [names[name]])
        timelines: list[Iterator[Tracks]] = [repeat(constant)]
        for kind in ("audio", "video"):
            of_kind = [modality for modality in readable if stream_kind(modality) == kind]
            if of_kind:
                # Each track through a container of its own, so that it depends on no other's place in the file.
                timelines.append(self._track(kind, of_kind, parts))
        return timelines

    def _track(self, kind: str, modalities: Sequence[Modality], parts: Sequence[Window]) -> Iterator[Tracks]:
        file, _ = self._stack.enter_context(opened(self._source, self._request.limits.max_bytes))
        container = _container_of(file, self._file_type, self._request)
        stream = None if container is None else best_stream(container, kind)
        if container is None or stream is None or self._index is None:
            for _ in parts:
                yield all_because(Reason.UNDECODABLE, modalities)
            return
        index = self._index.tracks[stream.index]
        with container:
            if kind == "audio":
                sound = SoundTimeline(stream, index, self._index.zero_s, parts)
                for heard in stretches(container, sound):
                    yield {
                        m.name: judged(m, heard.row(m), (), self._request)
                        for m in modalities
                        if isinstance(m, Waveform)
                    }
                return
            pictured = [modality for modality in modalities if not isinstance(modality, Waveform)]
            pictures = PictureTimeline(
                stream, index, self._index.zero_s, parts, modalities=pictured, limits=self._request.limits
            )
            for seen in stretches(container, pictures):
                if seen.decoded:
                    yield picture_tracks(seen.rows, self._request)
                else:
                    yield all_because(Reason.UNDECODABLE, pictured)


def _container_of(file: BinaryIO, file_type: FileType | None, request: DecodeRequest) -> Any | None:
    return None if file_type is None else open_container(file, file_type.demuxer, request.limits)
