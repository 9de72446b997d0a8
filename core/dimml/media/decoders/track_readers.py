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
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, Generic, NoReturn, TypeVar

import cv2
from av.video.frame import PictureType
from av.video.reformatter import VideoReformatter

from dimml.errors import TooLargeError
from dimml.media.decoders.container import UNREADABLE
from dimml.media.decoders.mixing import Layout, Sound, frame_sound
from dimml.media.decoders.packet_index import TrackIndex
from dimml.media.decoders.streams.orientation import h264_header
from dimml.media.decoders.streams.splices import move_stamps
from dimml.media.decoders.time_range import Window
from dimml.media.decoders.track_buffers import PictureSegment, SoundSegment
from dimml.media.decoders.video import EPSILON_S, Picture, check_pixels, display_matrix
from dimml.media.types import MediaLimits
from dimml.modality import Flow, Frames

#: Sound decoded ahead of the window and thrown away: codecs need some to settle (Opus 80 ms, MP3 up to 10 frames).
PREROLL_S: Final = 0.25

#: Pictures that need others before them. A decoder that does not say what a picture is gives ``I``.
_PREDICTED: Final = frozenset({PictureType.P, PictureType.B, PictureType.S, PictureType.SP})

Segment = TypeVar("Segment", SoundSegment, PictureSegment)


#: Codecs of which FFmpeg can leave out the pictures that no other needs. VP8, VP9 and AV1 have few of them.
_LEAVING_OUT: Final = frozenset({"h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4"})


class ReadAgainError(Exception):
    """Something that the index says of the pictures is not so. It is corrected there: another reader gets it right."""


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


class PictureReader(TrackReader[PictureSegment]):
    """Fills the rows of all modalities that come from the picture.

    Raises TooLargeError for pictures above ``max_pixels``, or more than ``max_frames_decoded`` to be decoded up to the
    end of the first window. ``take`` and ``rest`` raise ReadAgainError, before the first window, where packets were
    passed over and no keyframe had been decoded by the time the window begins: H.263+ in Matroska and AVI has such
    flags, and a keyframe may be damaged. After that, too many pictures are no error: none of the track is used.

    With ``shown_only``, for a single window and packets that have the times of their pictures, those that are neither
    shown nor needed by others are left out. ``ready`` and ``rest`` raise ReadAgainError where one that should be shown
    did not come, since the one in its place may have been left out.
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
        shown_only: bool = False,
    ) -> None:
        self._modalities = modalities
        self._header = h264_header(stream)
        self._limits = limits
        super().__init__(stream, index, zero_s, windows)
        self._converter = VideoReformatter()
        self._last: Picture | None = None
        #: The window of which only what is shown is decoded, the times of that, and those that have not come yet.
        self._only: PictureSegment | None = None
        self._shown: frozenset[float] = frozenset()
        self._awaited: set[float] = set()
        #: Whether the decoder leaves out pictures that no other needs; an earlier reader may have made it do so.
        self._leaving_out = False
        stream.codec_context.skip_frame = "DEFAULT"
        #: Whether a keyframe was decoded, or decoding began with the first packet, before which there is nothing.
        self._proven = True
        check_pixels(stream.codec_context.width, stream.codec_context.height, limits)
        if index is None or self._next is None:
            return
        self.from_s = first_picture_s(index, self._next.begin_s)
        self._proven = not index.times_s or self.from_s <= index.times_s[0]
        count = index.packets_between(self.from_s, self._next.last_wanted_s)
        if count > limits.max_frames_decoded and index.retreated:
            self._failed = True
        elif count > limits.max_frames_decoded:
            raise TooLargeError(
                f"{count} pictures would have to be decoded, more than max_frames_decoded = "
                f"{limits.max_frames_decoded}; ask for a shorter range with start_s and end_s"
            )
        # Without reordering there is nothing to leave out, or the times are not those of the pictures.
        if shown_only and index.reordered and not index.unreliable and stream.codec_context.name in _LEAVING_OUT:
            self._only, self._shown = self._next, self._next.shown_times()
            self._awaited = set(self._shown)

    def _segment(self, window: Window) -> PictureSegment:
        return PictureSegment(window, self._modalities, self._index, self.zero_s)

    def _note(self, packet: Any, time_s: float) -> None:
        super()._note(packet, time_s)
        if self._header is not None and packet.is_keyframe:
            self._index.note_orientation(time_s, packet, self._header)

    def _decode(self, packet: Any) -> None:
        if self._only is not None and packet is not None and packet.size:
            time_s = self.packet_time_s(packet)
            wanted = time_s is None or time_s in self._shown or packet.is_keyframe
            if wanted is self._leaving_out:
                self._leaving_out = not wanted
                self.stream.codec_context.skip_frame = "DEFAULT" if wanted else "NONREF"
            if time_s is not None:
                self._only.see(time_s)
        super()._decode(packet)

    def take(self, frame: Any) -> None:
        """Show the previous picture up to the time of this one, in every open window."""
        picture = self._picture(frame)
        if picture is None:
            return
        at_s = self.zero_s + picture.time_s
        if not self._proven:
            if self._next is not None and self._next.begin_s < at_s - EPSILON_S:
                self._retreat()
            self._proven = bool(frame.key_frame) or frame.pict_type not in _PREDICTED
        while self._next is not None and self._next.begin_s < at_s:
            self._open_next()
        last, self._last = self._last, picture
        for segment in self._open:
            if self._only is None:
                segment.see(at_s)
            if last is not None:
                self._show(segment, last, picture)

    def _picture(self, frame: Any) -> Picture | None:
        """Make a picture of a frame, no earlier than the one before; None for a damaged frame."""
        if frame.is_corrupt:
            return None
        check_pixels(frame.width, frame.height, self._limits)
        last = self._last
        time_s = None if frame.pts is None else frame.pts * self.tick_s - self.zero_s
        if self._awaited and frame.pts is not None:
            self._awaited.discard(frame.pts * self.tick_s)
        if time_s is None:
            time_s = 0.0 if last is None else last.time_s + self._index.frame_s
        time_s = time_s if last is None else max(time_s, last.time_s)
        at_s = self.zero_s + time_s + EPSILON_S
        if self._header is not None and (matrix := display_matrix(frame)) is not None:
            self._index.note_matrix(at_s, matrix)
        return Picture(frame, time_s, self._converter, self._index.orientation_at(at_s))

    def _retreat(self) -> NoReturn:
        self._index.retreat(self.from_s)
        raise ReadAgainError

    def _closed(self) -> PictureSegment:
        if self._awaited and not self._failed:
            self._index.unreliable = True
            raise ReadAgainError
        return super()._closed()

    def _finish(self, segment: PictureSegment) -> None:
        """Show the last picture to the end of the window."""
        if not self._proven and not self._failed:
            self._retreat()
        if self._last is not None:
            self._show(segment, self._last, None)

    def _show(self, segment: PictureSegment, picture: Picture, following: Picture | None) -> None:
        try:
            segment.show(picture, following)
        except MemoryError:
            raise
        except (*UNREADABLE, cv2.error):
            # A pixel format that cannot be converted to RGB: no more pictures of this track.
            self._failed, self._last = True, None


def first_picture_s(index: TrackIndex, wanted_s: float) -> float:
    """Time of the packet to begin with, so that the picture at ``wanted_s`` is correct: a keyframe, if there is one."""
    keyframe_s = index.keyframe_before(wanted_s)
    if keyframe_s is None:
        keyframe_s = index.times_s[0] if index.times_s else -math.inf
    return keyframe_s
