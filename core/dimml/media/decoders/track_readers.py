"""Decoding one track into the windows that want it, from packets that somebody hands over.

A reader knows neither file nor container: ``feed`` takes packets in the order of decoding, ``ready`` gives the windows
that are filled since, in order, and ``rest`` what is left when the track has ended. Windows come from an iterator and
may overlap; no more than the open ones is held. What was found by scanning a file first (``packet_index``) is of use
where there is a file; without it, as in a recording that is still being made, readers note what they are fed.
"""

from __future__ import annotations

import bisect
import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, Generic, TypeVar

import cv2
from av.video.reformatter import VideoReformatter

from dimml.errors import TooLargeError
from dimml.media.decoders.container import UNREADABLE
from dimml.media.decoders.mixing import Sound, frame_sound
from dimml.media.decoders.packet_index import TrackIndex
from dimml.media.decoders.time_range import Window
from dimml.media.decoders.track_buffers import PictureStretch, SoundStretch
from dimml.media.decoders.video import EPSILON_S, Picture, check_pixels
from dimml.media.types import MediaLimits
from dimml.modality import Flow, Frames

#: Sound decoded ahead of the window and thrown away: codecs need some to settle (Opus 80 ms, MP3 up to 10 frames).
PREROLL_S: Final = 0.25

Stretch = TypeVar("Stretch", SoundStretch, PictureStretch)


class TrackReader(Generic[Stretch]):
    """Decodes one stream's packets. Times are seconds on the container's clock unless said otherwise.

    ``index`` None: nothing is known of the track but what is fed.
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
        self._open: deque[Stretch] = deque()
        self._next: Stretch | None = self._following()
        self._started = False
        self._failed = False

    @property
    def done(self) -> bool:
        """Whether more packets add nothing, once ``ready`` was emptied."""
        return self._failed or (self._next is None and not self._open)

    @property
    def waits(self) -> bool:
        """Whether only more packets help: nothing is ready, and the reader is not done."""
        return not self._failed and (not self._open[0].done if self._open else self._next is not None)

    def packet_time_s(self, packet: Any) -> float | None:
        """Presentation time of a packet, None where it carries none."""
        pts = packet.pts if packet.pts is not None else packet.dts
        return None if pts is None else pts * self.tick_s

    def feed(self, packet: Any) -> None:
        """Decode one packet; one that does not decode is passed over."""
        time_s = self.packet_time_s(packet)
        if not self._started and time_s is not None and time_s < self.from_s - EPSILON_S:
            return
        self._started = True
        if not self._scanned and time_s is not None and packet.size:
            self._index.note(time_s)
        self._decode(packet)

    def flush(self) -> None:
        """The track has ended or broken off: take what the decoder still holds."""
        self._decode(None)

    def ready(self) -> Iterator[Stretch]:
        """Windows that are filled, in order."""
        while self._open and self._open[0].done:
            yield self._closed()

    def rest(self) -> Iterator[Stretch]:
        """The track has ended: every other window, in order, as far as it was filled."""
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

    def take(self, frame: Any) -> None:
        """One decoded frame, in order of presentation."""
        raise NotImplementedError

    def _stretch(self, window: Window) -> Stretch:
        raise NotImplementedError

    def _finish(self, stretch: Stretch) -> None:
        """Nothing more comes for this window."""

    def _following(self) -> Stretch | None:
        window = next(self._windows, None)
        return None if window is None else self._stretch(window)

    def _open_next(self) -> None:
        if self._next is not None:
            self._open.append(self._next)
            self._next = self._following()

    def _closed(self) -> Stretch:
        stretch = self._open.popleft()
        stretch.close()
        if not self._scanned:
            oldest = self._open[0] if self._open else self._next
            self._index.forget(-math.inf if oldest is None else oldest.begin_s)
        return stretch


class SoundReader(TrackReader[SoundStretch]):
    """Fills windows with sound."""

    def __init__(self, stream: Any, index: TrackIndex | None, zero_s: float, windows: Iterable[Window]) -> None:
        super().__init__(stream, index, zero_s, windows)
        if index is not None and self._next is not None:
            self.from_s = first_sound_s(index, self._next.begin_s)
        self._rate_hz: int | None = None
        #: When the next frame begins that does not say so itself.
        self._at_s = -math.inf

    def _stretch(self, window: Window) -> SoundStretch:
        return SoundStretch(window, self._index, self.zero_s)

    def take(self, frame: Any) -> None:
        """Write a frame into every window that it may belong to."""
        sound = self._sound(frame)
        if sound is None:
            return
        first, self._rate_hz = self._rate_hz is None, frame.sample_rate
        time_s = None if frame.pts is None else frame.pts * self.tick_s - self.zero_s
        if time_s is not None:
            self._at_s = time_s
        end_s = self._at_s + len(sound) / frame.sample_rate
        # Whatever comes first belongs to the first window, or it would not have been fed.
        while self._next is not None and ((first and not self._open) or self._belongs(self._next, end_s)):
            self._open_next()
        try:
            for stretch in self._open:
                if not stretch.done:
                    stretch.write(sound, frame.sample_rate, time_s)
        except ValueError:
            self._failed = True
            return
        self._at_s = end_s

    def _belongs(self, stretch: SoundStretch, end_s: float) -> bool:
        """Whether a reader of this window alone would take the frame that ends then."""
        if self._scanned:
            return self._at_s + EPSILON_S >= first_sound_s(self._index, stretch.begin_s) - self.zero_s
        return end_s > stretch.begin_s - self.zero_s - PREROLL_S

    def _sound(self, frame: Any) -> Sound | None:
        """A frame's sound; None where it is of no use."""
        if self._rate_hz is not None and frame.sample_rate != self._rate_hz:
            # A stream that changes its rate midway stays silent for that part rather than at a wrong pitch.
            return None
        try:
            return frame_sound(frame)
        except MemoryError:
            raise
        except UNREADABLE:
            return None


def first_sound_s(index: TrackIndex, begin_s: float) -> float:
    """The packet to begin with so that sound from ``begin_s`` on is right."""
    position = max(0, bisect.bisect_right(index.times_s, begin_s - PREROLL_S) - 1)
    return index.times_s[position] if index.times_s else -math.inf


class PictureReader(TrackReader[PictureStretch]):
    """Fills the rows of all modalities that come from the picture.

    Raises TooLargeError for pictures above ``max_pixels``, or more than ``max_frames_decoded`` to be decoded up to the
    end of the first window.
    """

    def __init__(
        self,
        stream: Any,
        index: TrackIndex | None,
        zero_s: float,
        windows: Iterable[Window],
        *,
        modalities: Sequence[Frames | Flow],
        limits: MediaLimits,
    ) -> None:
        self._modalities = modalities
        self._limits = limits
        super().__init__(stream, index, zero_s, windows)
        self._converter = VideoReformatter()
        self._last: Picture | None = None
        check_pixels(stream.codec_context.width, stream.codec_context.height, limits)
        if index is None or self._next is None:
            return
        self.from_s = first_picture_s(index, self._next.begin_s)
        count = index.packets_between(self.from_s, self._next.last_wanted_s)
        if count > limits.max_frames_decoded:
            raise TooLargeError(
                f"{count} pictures would have to be decoded, more than max_frames_decoded = "
                f"{limits.max_frames_decoded}; ask for a shorter range with start_s and end_s"
            )

    def _stretch(self, window: Window) -> PictureStretch:
        return PictureStretch(window, self._modalities, self._index, self.zero_s)

    def take(self, frame: Any) -> None:
        """Show the picture before this one, until this one's time, in every window that it may belong to."""
        picture = self._picture(frame)
        if picture is None:
            return
        at_s = self.zero_s + picture.time_s
        while self._next is not None and self._next.begin_s < at_s:
            self._open_next()
        last, self._last = self._last, picture
        for stretch in self._open:
            stretch.see(at_s)
            if last is not None:
                self._show(stretch, last, picture)

    def _picture(self, frame: Any) -> Picture | None:
        """A frame as a picture, at or after the time of the one before; None where it is damaged."""
        if frame.is_corrupt:
            return None
        check_pixels(frame.width, frame.height, self._limits)
        last = self._last
        time_s = None if frame.pts is None else frame.pts * self.tick_s - self.zero_s
        if time_s is None:
            time_s = 0.0 if last is None else last.time_s + self._index.frame_s
        return Picture(frame, time_s if last is None else max(time_s, last.time_s), self._converter)

    def _finish(self, stretch: PictureStretch) -> None:
        """The last picture stays to the end."""
        if self._last is not None:
            self._show(stretch, self._last, None)

    def _show(self, stretch: PictureStretch, picture: Picture, following: Picture | None) -> None:
        try:
            stretch.show(picture, following)
        except MemoryError:
            raise
        except (*UNREADABLE, cv2.error):
            # A pixel format that cannot become RGB: this track shows nothing from here on.
            self._failed, self._last = True, None


def first_picture_s(index: TrackIndex, wanted_s: float) -> float:
    """The packet to begin with so that the picture on screen at ``wanted_s`` is right: a keyframe, if there is one."""
    keyframe_s = index.keyframe_before(wanted_s)
    if keyframe_s is None:
        keyframe_s = index.times_s[0] if index.times_s else -math.inf
    return keyframe_s
