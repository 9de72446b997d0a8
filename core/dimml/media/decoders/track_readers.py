"""Decoding one track's packets into windows.

A reader knows neither file nor container: ``feed`` takes packets in the order of decoding, ``ready`` yields the windows
that are complete, in order, and ``rest`` the others when the track has ended. Windows come from an iterator and may
overlap; only open ones are held. For a file, readers use the times that a scan has found (``packet_index``); without
a scan, as in a recording that is still being made, they note the times of the packets they are fed.
"""

from __future__ import annotations

import bisect
import math
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Final, Generic, TypeVar

from dimml.media.decoders.container import UNREADABLE
from dimml.media.decoders.mixing import Layout, Sound, frame_sound
from dimml.media.decoders.packet_index import TrackIndex
from dimml.media.decoders.streams.splices import move_stamps
from dimml.media.decoders.time_range import Window
from dimml.media.decoders.track_buffers import PictureSegment, SoundSegment
from dimml.media.decoders.video import EPSILON_S

#: Sound decoded ahead of the window and thrown away: codecs need some to settle (Opus 80 ms, MP3 up to 10 frames).
PREROLL_S: Final = 0.25

Segment = TypeVar("Segment", SoundSegment, PictureSegment)


class TrackReader(Generic[Segment]):
    """Decoder of one stream's packets. Times are seconds on the container's clock unless stated otherwise.

    ``index`` is None for a track that was not scanned.
    """

    def __init__(self, stream: Any, index: TrackIndex | None, zero_s: float, windows: Iterable[Window]) -> None:
        self.stream = stream
        self.zero_s = zero_s
        self.tick_s = float(stream.time_base or 0)
        self._scanned = index is not None
        self._index = TrackIndex() if index is None else index
        #: The first packet to decode; a seek that lands after it has failed.
        self.from_s = -math.inf
        self._windows = iter(windows)
        self._open: deque[Segment] = deque()
        self._next: Segment | None = self._following()
        self._fed = 0
        self._started = False
        self._failed = False

    @property
    def done(self) -> bool:
        """Whether no more packets are needed, once ``ready`` is exhausted."""
        return self._failed or (self._next is None and not self._open)

    @property
    def waits(self) -> bool:
        """Whether more packets are needed: no window is ready, and the reader is not done."""
        return not self._failed and (not self._open[0].done if self._open else self._next is not None)

    @property
    def spliced(self) -> bool:
        """Whether stamps are corrected by the number of their packet, so that reading must begin at the start."""
        return bool(self._index.shifts)

    @property
    def seek_s(self) -> float:
        """Where to seek to: no later than the first packet to decode, by decoding and by presentation time."""
        return self.from_s - self._index.lead_s

    def packet_time_s(self, packet: Any) -> float | None:
        """Presentation time of a packet, None without one."""
        pts = packet.pts if packet.pts is not None else packet.dts
        return None if pts is None else pts * self.tick_s

    def feed(self, packet: Any) -> None:
        """Decode one packet; skip one that does not decode. One without data flushes the decoder."""
        if self._index.shifts:
            move_stamps(packet, self._fed, self._index.shifts)
            self._fed += packet.size > 0
        time_s = self.packet_time_s(packet)
        if not self._started and time_s is not None and time_s < self.from_s - EPSILON_S:
            return
        self._started = True
        if not self._scanned and time_s is not None and packet.size:
            self._note(packet, time_s)
        self._decode(packet)

    def flush(self) -> None:
        """Take the delayed frames out of the decoder: the track has ended or broken off."""
        self._decode(None)

    def ready(self) -> Iterator[Segment]:
        """Yield complete windows, in order."""
        while self._open and self._open[0].done:
            yield self._closed()

    def rest(self) -> Iterator[Segment]:
        """Yield all other windows, in order, as far as they were filled: the track has ended."""
        while self._open or self._next is not None:
            if not self._open:
                self._open_next()
            self._finish(self._open[0])
            yield self._closed()

    def _decode(self, packet: Any) -> None:
        try:
            frames = self.stream.codec_context.decode(packet)
        except MemoryError:
            raise
        except UNREADABLE:
            return
        for frame in frames:
            if self._failed:
                return
            self.take(frame)

    def _note(self, packet: Any, time_s: float) -> None:
        """Add a packet of a track that was not scanned to the index."""
        self._index.note(time_s)

    def take(self, frame: Any) -> None:
        """Add one decoded frame; they come in order of presentation."""
        raise NotImplementedError

    def _segment(self, window: Window) -> Segment:
        raise NotImplementedError

    def _finish(self, segment: Segment) -> None:
        """Complete a window whose track has ended."""

    def _following(self) -> Segment | None:
        window = next(self._windows, None)
        return None if window is None else self._segment(window)

    def _open_next(self) -> None:
        if self._next is not None:
            self._open.append(self._next)
            self._next = self._following()

    def _closed(self) -> Segment:
        segment = self._open.popleft()
        segment.close()
        if not self._scanned:
            oldest = self._open[0] if self._open else self._next
            self._index.forget(-math.inf if oldest is None else oldest.begin_s)
        return segment


class SoundReader(TrackReader[SoundSegment]):
    """Reader of a sound track."""

    def __init__(self, stream: Any, index: TrackIndex | None, zero_s: float, windows: Iterable[Window]) -> None:
        super().__init__(stream, index, zero_s, windows)
        if index is not None and self._next is not None:
            self.from_s = first_sound_s(index, self._next.begin_s)
        self._rate_hz: int | None = None
        self._layout: Layout | None = None
        #: Start of the next frame that has no time stamp.
        self._at_s = -math.inf

    def _segment(self, window: Window) -> SoundSegment:
        return SoundSegment(window, self._index, self.zero_s, self.tick_s)

    def take(self, frame: Any) -> None:
        """Write a frame into every window that it may overlap."""
        sound = self._sound(frame)
        if sound is None:
            return
        first, self._rate_hz = self._rate_hz is None, frame.sample_rate
        time_s = None if frame.pts is None else frame.pts * self.tick_s - self.zero_s
        if time_s is not None:
            self._at_s = time_s
        end_s = self._at_s + len(sound) / frame.sample_rate
        # The first frame belongs to the first window, or it would not have been fed.
        while self._next is not None and ((first and not self._open) or self._belongs(self._next, end_s)):
            self._open_next()
        try:
            for segment in self._open:
                if not segment.done:
                    segment.write(sound, frame.sample_rate, time_s)
        except ValueError:
            self._failed = True
            return
        self._at_s = end_s

    def _belongs(self, segment: SoundSegment, end_s: float) -> bool:
        """Whether a reader of this window alone would take the current frame, which ends at ``end_s``."""
        if self._scanned:
            return self._at_s + EPSILON_S >= first_sound_s(self._index, segment.begin_s) - self.zero_s
        return end_s > segment.begin_s - self.zero_s - PREROLL_S

    def _sound(self, frame: Any) -> Sound | None:
        """Read a frame's sound; None if it cannot be used."""
        if self._rate_hz is not None and frame.sample_rate != self._rate_hz:
            # A stream that changes its rate midway stays silent for that part rather than at a wrong pitch.
            return None
        try:
            sound = frame_sound(frame, self._layout)
        except MemoryError:
            raise
        except UNREADABLE:
            return None
        self._layout = sound.layout
        return sound


def first_sound_s(index: TrackIndex, begin_s: float) -> float:
    """Time of the packet to begin with, so that sound is correct from ``begin_s`` on."""
    position = max(0, bisect.bisect_right(index.times_s, begin_s - max(PREROLL_S, index.settling_s)) - 1)
    return index.times_s[position] if index.times_s else -math.inf
