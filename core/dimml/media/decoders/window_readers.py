"""Readers of a whole track that fill many stretches, one after another or overlapping."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeVar

import cv2

from dimml.media.decoders.container import UNREADABLE
from dimml.media.decoders.packet_index import TrackIndex
from dimml.media.decoders.time_range import Window
from dimml.media.decoders.track_buffers import PictureStretch, SoundStretch
from dimml.media.decoders.track_readers import PictureReader, SoundReader, first_sound_s
from dimml.media.decoders.video import EPSILON_S
from dimml.media.types import MediaLimits
from dimml.modality import Flow, Frames

Stretch_co = TypeVar("Stretch_co", covariant=True)


class _Timeline(Protocol[Stretch_co]):
    """A reader with stretches that are done, in order, and those that never will be."""

    stream: Any

    def feed(self, packet: Any) -> None: ...

    def flush(self) -> None: ...

    def ready(self) -> Iterator[Stretch_co]: ...

    def rest(self) -> Iterator[Stretch_co]: ...


class SoundTimeline(SoundReader):
    """Sound for many windows in order; at least one."""

    def __init__(self, stream: Any, index: TrackIndex, zero_s: float, windows: Sequence[Window]) -> None:
        super().__init__(stream, index, zero_s, windows[0])
        self._windows = deque(windows)
        self._open: deque[SoundStretch] = deque()
        self._rate_hz: int | None = None
        self._at_s = -math.inf

    def take(self, frame: Any) -> None:
        """Write a frame into every window that it may belong to."""
        heard = self.hear(frame, self._rate_hz)
        if heard is None:
            return
        mono, self._rate_hz, time_s = heard
        if time_s is not None:
            self._at_s = time_s
        while self._windows and self._at_s + EPSILON_S >= self._begin_s(self._windows[0]):
            self._open.append(SoundStretch(self._windows.popleft(), self.index, self.zero_s))
        try:
            for stretch in self._open:
                stretch.write(mono, self._rate_hz, time_s)
        except ValueError:
            self.done = True
            return
        self._at_s += len(mono) / self._rate_hz

    def _begin_s(self, window: Window) -> float:
        """When the sound begins that a reader of this window alone would take."""
        return first_sound_s(self.index, self.zero_s + window.start_s) - self.zero_s

    def ready(self) -> Iterator[SoundStretch]:
        """Windows that are full, in order."""
        while self._open and self._open[0].full:
            yield self._open.popleft()

    def rest(self) -> Iterator[SoundStretch]:
        """The track has ended: the other windows as they are."""
        while self._open:
            yield self._open.popleft()
        while self._windows:
            yield SoundStretch(self._windows.popleft(), self.index, self.zero_s)


class PictureTimeline(PictureReader):
    """Pictures for many windows in order; at least one."""

    def __init__(
        self,
        stream: Any,
        index: TrackIndex,
        zero_s: float,
        windows: Sequence[Window],
        *,
        modalities: Sequence[Frames | Flow],
        limits: MediaLimits,
    ) -> None:
        super().__init__(stream, index, zero_s, windows[0], modalities=modalities, limits=limits)
        self._modalities = modalities
        self._windows = deque(windows)
        self._open: deque[PictureStretch] = deque()
        self._next: PictureStretch | None = self._following()

    def _following(self) -> PictureStretch | None:
        if not self._windows:
            return None
        return PictureStretch(self._windows.popleft(), self._modalities, self.index, self.zero_s)

    def take(self, frame: Any) -> None:
        """Show the picture before this one, until this one's time, in every window that it may belong to."""
        picture = self.see(frame)
        if picture is None:
            return
        at_s = self.zero_s + picture.time_s
        while self._next is not None and self._next.first_wanted_s < at_s - EPSILON_S:
            self._open.append(self._next)
            self._next = self._following()
        last, self._last = self._last, picture
        for stretch in self._open:
            stretch.see(at_s)
            if last is not None:
                self._show_in(stretch, last, picture)

    def _show_in(self, stretch: PictureStretch, picture: Any, following: Any | None) -> None:
        try:
            stretch.show(picture, following)
        except MemoryError:
            raise
        except (*UNREADABLE, cv2.error):
            # A pixel format that cannot become RGB: this track shows nothing from here on.
            self.done, self._last = True, None

    def ready(self) -> Iterator[PictureStretch]:
        """Windows whose frames are all there, in order."""
        while self._open and self._open[0].done:
            yield self._open.popleft()

    def rest(self) -> Iterator[PictureStretch]:
        """The track has ended, and its last picture stays."""
        while self._next is not None:
            self._open.append(self._next)
            self._next = self._following()
            yield from self._ended()
        yield from self._ended()

    def _ended(self) -> Iterator[PictureStretch]:
        while self._open:
            stretch = self._open.popleft()
            if self._last is not None:
                self._show_in(stretch, self._last, None)
            yield stretch


def stretches(container: Any, timeline: _Timeline[Stretch_co]) -> Iterator[Stretch_co]:
    """Read the track from the container's start; every window's stretch, in order, as soon as it is done."""
    try:
        for packet in container.demux(timeline.stream):
            timeline.feed(packet)
            yield from timeline.ready()
    except MemoryError:
        raise
    except UNREADABLE:
        timeline.flush()
    yield from timeline.rest()
