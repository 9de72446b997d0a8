"""Reading one container's sound and pictures together: one pass, from just before the window to its end."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from typing import Any, Final

import cv2
from av.video.reformatter import VideoReformatter

from dimml.errors import TooLargeError
from dimml.media.decoders.audio import FloatArray, mono_samples
from dimml.media.decoders.container import UNREADABLE
from dimml.media.decoders.packet_index import TrackIndex
from dimml.media.decoders.time_range import Window
from dimml.media.decoders.track_buffers import PictureStretch, SoundStretch
from dimml.media.decoders.video import EPSILON_S, Picture, PictureRow, check_pixels
from dimml.media.types import MediaLimits
from dimml.modality import Flow, Frames, Waveform

#: Sound decoded ahead of the window and thrown away: codecs need some to settle (Opus 80 ms, MP3 up to 10 frames).
PREROLL_S: Final = 0.25


class TrackReader:
    """Decodes one stream's packets. Times are seconds on the container's clock unless said otherwise."""

    def __init__(self, stream: Any, index: TrackIndex, zero_s: float, from_s: float) -> None:
        self.stream = stream
        self.index = index
        self.zero_s = zero_s
        #: The first packet to decode; a seek that lands after it has failed.
        self.from_s = from_s
        self.tick_s = float(stream.time_base or 0)
        self.done = False
        self._started = False

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
        self._decode(packet)

    def flush(self) -> None:
        """The container broke off: take what the decoder still holds."""
        self._decode(None)

    def _decode(self, packet: Any) -> None:
        try:
            frames = self.stream.codec_context.decode(packet)
        except MemoryError:
            raise
        except UNREADABLE:
            return
        for frame in frames:
            if self.done:
                return
            self.take(frame)

    def take(self, frame: Any) -> None:
        """One decoded frame, in order of presentation."""
        raise NotImplementedError


class SoundReader(TrackReader):
    """Fills one window's stretch of sound."""

    def __init__(self, stream: Any, index: TrackIndex, zero_s: float, window: Window) -> None:
        super().__init__(stream, index, zero_s, first_sound_s(index, zero_s + window.start_s))
        self._stretch = SoundStretch(window, index, zero_s)

    def take(self, frame: Any) -> None:
        """Write a frame of sound at its place."""
        try:
            heard = self.hear(frame, self._stretch.rate_hz)
            if heard is not None:
                self._stretch.write(*heard)
        except ValueError:
            self.done = True
            return
        self.done = self._stretch.full

    def hear(self, frame: Any, rate_hz: int | None) -> tuple[FloatArray, int, float | None] | None:
        """A frame's mono sound, its rate and its time from the recording's start; None where it is of no use."""
        if rate_hz is not None and frame.sample_rate != rate_hz:
            # A stream that changes its rate midway stays silent for that part rather than at a wrong pitch.
            return None
        time_s = None if frame.pts is None else frame.pts * self.tick_s - self.zero_s
        try:
            return mono_samples(frame), frame.sample_rate, time_s
        except MemoryError:
            raise
        except UNREADABLE:
            return None

    def row(self, modality: Waveform) -> Any | None:
        """The modality's row; None where sound was due in the window and none could be decoded."""
        return self._stretch.row(modality)


def first_sound_s(index: TrackIndex, begin_s: float) -> float:
    """The packet to begin with so that sound from ``begin_s`` on is right."""
    position = max(0, bisect.bisect_right(index.times_s, begin_s - PREROLL_S) - 1)
    return index.times_s[position] if index.times_s else -math.inf


class PictureReader(TrackReader):
    """Fills the rows of all modalities that come from the picture.

    Raises TooLargeError for pictures above ``max_pixels``, or more than ``max_frames_decoded`` to be decoded.
    """

    def __init__(
        self,
        stream: Any,
        index: TrackIndex,
        zero_s: float,
        window: Window,
        *,
        modalities: Sequence[Frames | Flow],
        limits: MediaLimits,
    ) -> None:
        self._stretch = PictureStretch(window, modalities, index, zero_s)
        super().__init__(stream, index, zero_s, first_picture_s(index, self._stretch.first_wanted_s))
        self._limits = limits
        self._converter = VideoReformatter()
        self._last: Picture | None = None
        check_pixels(stream.codec_context.width, stream.codec_context.height, limits)
        count = index.packets_between(self.from_s, self._stretch.last_wanted_s)
        if count > limits.max_frames_decoded:
            raise TooLargeError(
                f"{count} pictures would have to be decoded, more than max_frames_decoded = "
                f"{limits.max_frames_decoded}; ask for a shorter range with start_s and end_s"
            )

    @property
    def rows(self) -> list[PictureRow]:
        """One for each modality."""
        return self._stretch.rows

    def take(self, frame: Any) -> None:
        """Show the picture before this one until this one's time."""
        picture = self.see(frame)
        if picture is None:
            return
        self._stretch.see(self.zero_s + picture.time_s)
        last, self._last = self._last, picture
        if last is not None:
            self._show(last, picture)

    def see(self, frame: Any) -> Picture | None:
        """A frame as a picture, at or after the time of the one before; None where it is damaged."""
        if frame.is_corrupt:
            return None
        check_pixels(frame.width, frame.height, self._limits)
        last = self._last
        time_s = None if frame.pts is None else frame.pts * self.tick_s - self.zero_s
        if time_s is None:
            time_s = 0.0 if last is None else last.time_s + self.index.frame_s
        return Picture(frame, time_s if last is None else max(time_s, last.time_s), self._converter)

    def finish(self) -> None:
        """The last picture stays to the end."""
        if self._last is not None and not self.done:
            self._show(self._last, None)

    def _show(self, picture: Picture, following: Picture | None) -> None:
        try:
            self._stretch.show(picture, following)
        except MemoryError:
            raise
        except (*UNREADABLE, cv2.error):
            # A pixel format that cannot become RGB.
            self.done, self._last = True, None
            return
        self.done = self._stretch.done

    @property
    def decoded(self) -> bool:
        """Whether there is a picture, and not just one from before where several were due and did not decode."""
        return self._stretch.decoded


def first_picture_s(index: TrackIndex, wanted_s: float) -> float:
    """The packet to begin with so that the picture on screen at ``wanted_s`` is right: a keyframe, if there is one."""
    keyframe_s = index.keyframe_before(wanted_s)
    if keyframe_s is None:
        keyframe_s = index.times_s[0] if index.times_s else -math.inf
    return keyframe_s


def read_tracks(container: Any, readers: Sequence[TrackReader], *, verify: bool) -> bool:
    """Feed ``readers`` from where the container stands until each has what it needs.

    False, with ``verify``, where the first packet of a stream comes after the first one that is needed.
    """
    pending = {reader.stream.index: reader for reader in readers}
    unseen = set(pending) if verify else set()
    try:
        for packet in container.demux(*(reader.stream for reader in readers)):
            reader = pending.get(packet.stream_index)
            if reader is None:
                continue
            if packet.stream_index in unseen:
                unseen.discard(packet.stream_index)
                time_s = reader.packet_time_s(packet)
                if time_s is None or time_s > reader.from_s + EPSILON_S:
                    return False
            reader.feed(packet)
            if reader.done:
                del pending[packet.stream_index]
                if not pending:
                    break
    except MemoryError:
        raise
    except UNREADABLE:
        for reader in pending.values():
            reader.flush()
    return True
