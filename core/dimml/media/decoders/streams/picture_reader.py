"""Decoding a picture track's packets into windows: from a keyframe, and of a single window only what is shown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final, NoReturn

import cv2
from av.video.frame import PictureType
from av.video.reformatter import VideoReformatter

from dimml.errors import TooLargeError
from dimml.media.decoders.container import UNREADABLE
from dimml.media.decoders.packet_index import TrackIndex
from dimml.media.decoders.streams.orientation import h264_header
from dimml.media.decoders.time_range import Window
from dimml.media.decoders.track_buffers import PictureSegment
from dimml.media.decoders.track_readers import TrackReader
from dimml.media.decoders.video import EPSILON_S, Picture, check_pixels, display_matrix
from dimml.media.types import MediaLimits
from dimml.modality import Flow, Frames

#: Pictures that need others before them. A decoder that does not say what a picture is gives ``I``.
_PREDICTED: Final = frozenset({PictureType.P, PictureType.B, PictureType.S, PictureType.SP})
#: Codecs of which FFmpeg can leave out the pictures that no other needs. VP8, VP9 and AV1 have few of them.
_LEAVING_OUT: Final = frozenset({"h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4"})


class ReadAgainError(Exception):
    """Something that the index says of the pictures is not so. It is corrected there: another reader gets it right."""


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
