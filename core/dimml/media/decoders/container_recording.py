"""Windows of a container file: its packets are scanned first, then fed to track readers."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import chain
from typing import Any, BinaryIO, Final

from dimml.media.decoders.container import UNREADABLE, best_stream, open_container
from dimml.media.decoders.file_type import FileType
from dimml.media.decoders.framing.promised_length import avi_promise_s, drop_partial_packet, is_cut_off, truncations
from dimml.media.decoders.packet_index import ContainerIndex, scan
from dimml.media.decoders.signal_status import Tracks, all_because, checked_sound, picture_tracks, unread
from dimml.media.decoders.source import opened
from dimml.media.decoders.time_range import Window
from dimml.media.decoders.track_buffers import PictureSegment, SoundSegment
from dimml.media.decoders.track_readers import FalseKeyframeError, PictureReader, SoundReader
from dimml.media.decoders.unread_formats import CONVERT, sound_codec
from dimml.media.decoders.video import EPSILON_S
from dimml.media.types import DecodeRequest, Source, Truncation
from dimml.modality import Modality, Waveform
from dimml.status import Reason

#: Demuxers whose times differ after a seek. Most pictures of a program stream carry no time; FFmpeg derives it from the
#: packets before, and was seen to be half a picture off without them.
#: Of MP3, the time after a seek is a guess from the bit rate.
_READ_FROM_START: Final = frozenset({"mpeg", "mp3"})

Reader = SoundReader | PictureReader


class ContainerRecording:
    """Reader of a container's windows.

    With ``alone``, a single window is read: both tracks in one pass that begins just before it. Otherwise each track
    is read from the start through a container of its own, so that only open windows are held in memory, however far
    apart the tracks are interleaved. ``duration_s`` is None if no track can be read.
    """

    def __init__(
        self,
        stack: ExitStack,
        source: Source,
        file: BinaryIO,
        file_type: FileType,
        *,
        modalities: Sequence[Modality],
        request: DecodeRequest,
        alone: bool,
        promised_s: float | None = None,
    ) -> None:
        """Open and scan. ``promised_s``: the length that the header of a sound file promises."""
        self._stack, self._source, self._file, self._file_type = stack, source, file, file_type
        self._request, self._alone = request, alone
        self.duration_s: float | None = None
        #: Mean duration of a picture, 0 without pictures.
        self.frame_s = 0.0
        self._readable: list[Modality] = []
        self.unreadable: Tracks = {}
        self.truncations: Mapping[str, Truncation] = {}
        demuxer = file_type.demuxer
        cut_off = promised_s is not None or is_cut_off(file, demuxer)
        if cut_off and demuxer == "avi":
            promised_s = avi_promise_s(file)
        container = open_container(file, demuxer, request.limits)
        if container is None:
            because, about = _unopened(file, file_type)
            self.unreadable = unread(because, modalities, about, sound_only=file_type.sound_only)
            return
        stack.callback(container.close)
        streams = _streams(container)
        self._index = scan(container, [stream for stream in streams.values() if stream is not None])
        if cut_off:
            drop_partial_packet(self._index, demuxer, promised_s)
            found = truncations(container, demuxer, self._index, promised_s)
            by_kind = {kind: found[one.index] for kind, one in streams.items() if one and one.index in found}
            self.truncations = {m.name: by_kind[_kind(m)] for m in modalities if _kind(m) in by_kind}
        for modality in modalities:
            kind = _kind(modality)
            why = _why_unreadable(container, streams[kind], kind, self._index)
            if why is None:
                self._readable.append(modality)
                continue
            detail = None
            if why is Reason.UNDECODABLE:
                why, detail = _undecoded(file, file_type, kind)
            self.unreadable |= all_because(why, [modality], detail)
        if self._readable:
            self.duration_s = self._index.duration_s
        if (video := streams["video"]) is not None:
            self.frame_s = self._index.tracks[video.index].frame_s
        self._scanned, self._streams = container, streams
        if not alone:
            # Its streams must not be used after this.
            container.close()

    def tracks(self, windows: Sequence[Window]) -> Iterator[Tracks]:
        """Yield the tracks of each window, in order, by name of the modality."""
        kinds = sorted({_kind(modality) for modality in self._readable})
        if self._alone:
            passes = [self._one_pass(kinds, windows)] if kinds else []
        else:
            passes = [self._pass_from_start([kind], windows) for kind in kinds]
        for _ in windows:
            tracks: Tracks = dict(self.unreadable)
            for one in passes:
                tracks |= next(one)
            yield tracks

    def _one_pass(self, kinds: Sequence[str], windows: Sequence[Window]) -> Iterator[Tracks]:
        """Read all tracks in one pass from just before the first window."""
        seekable = self._file_type.demuxer not in _READ_FROM_START
        while seekable:
            readers = self._readers(self._streams, kinds, windows)
            if readers is None or not _seek(self._scanned, readers):
                break
            try:
                yield from self._filled(read_windows(self._scanned, readers, verify=True))
            except SeekMissedError:
                break
            except FalseKeyframeError:
                continue
            return
        self._scanned.close()
        # The seek missed, or this container cannot seek: from the very start, passing over what comes before.
        yield from self._pass_from_start(kinds, windows)

    def _pass_from_start(self, kinds: Sequence[str], windows: Sequence[Window]) -> Iterator[Tracks]:
        file = self._file
        if not self._alone:
            file, _ = self._stack.enter_context(opened(self._source, self._request.limits.max_bytes))
        while (container := open_container(file, self._file_type.demuxer, self._request.limits)) is not None:
            self._stack.callback(container.close)
            readers = self._readers(_streams(container), kinds, windows)
            if readers is None:
                break
            try:
                yield from self._filled(read_windows(container, readers))
            except FalseKeyframeError:
                container.close()
                continue
            return
        for _ in windows:
            yield all_because(Reason.UNDECODABLE, [m for m in self._readable if _kind(m) in kinds])

    def _readers(
        self, streams: Mapping[str, Any], kinds: Sequence[str], windows: Sequence[Window]
    ) -> list[Reader] | None:
        """Make a reader for each kind of track; None if a reopened file no longer shows a stream."""
        readers: list[Reader] = []
        for kind in kinds:
            stream = streams[kind]
            if stream is None or stream.index not in self._index.tracks:
                return None
            index, zero_s = self._index.tracks[stream.index], self._index.zero_s
            if kind == "audio":
                readers.append(SoundReader(stream, index, zero_s, windows))
            else:
                pictured = [modality for modality in self._readable if not isinstance(modality, Waveform)]
                limits = self._request.limits
                readers.append(PictureReader(stream, index, zero_s, windows, modalities=pictured, limits=limits))
        return readers

    def _filled(self, windows: Iterator[Sequence[SoundSegment | PictureSegment]]) -> Iterator[Tracks]:
        for segments in windows:
            tracks: Tracks = {}
            for segment in segments:
                tracks |= self._tracks_of(segment)
            yield tracks

    def _tracks_of(self, segment: SoundSegment | PictureSegment) -> Tracks:
        if isinstance(segment, SoundSegment):
            heard = [modality for modality in self._readable if isinstance(modality, Waveform)]
            if segment.absent is not None:
                return all_because(segment.absent, heard)
            return {modality.name: checked_sound(modality, segment.row(modality), self._request) for modality in heard}
        if not segment.decoded:
            return all_because(Reason.UNDECODABLE, [row.modality for row in segment.rows])
        tracks: Tracks = {}
        for row in segment.rows:
            reason = segment.off_screen(row)
            if reason is None:
                tracks |= picture_tracks([row], self._request, segment.pictures)
            else:
                tracks |= all_because(reason, [row.modality])
        return tracks


class SeekMissedError(Exception):
    """A seek has landed after the first packet that is needed."""


def read_windows(
    container: Any, readers: Sequence[Reader], *, verify: bool = False
) -> Iterator[Sequence[SoundSegment | PictureSegment]]:
    """Feed ``readers`` from the container's current position; yield each window's segments, one of each reader.

    Raises FalseKeyframeError before the first window, and with ``verify`` SeekMissedError if a stream begins too late.
    """
    filled: list[deque[Any]] = [deque() for _ in readers]
    pending = {reader.stream.index: (reader, ready) for reader, ready in zip(readers, filled, strict=True)}
    unseen = set(pending) if verify else set()
    try:
        for packet in container.demux(*(reader.stream for reader in readers)):
            # Packets that flush a decoder carry index 0, whatever their stream.
            index = packet.stream.index
            if index not in pending:
                continue
            reader, ready = pending[index]
            if index in unseen:
                unseen.discard(index)
                time_s = reader.packet_time_s(packet)
                if time_s is None or time_s > reader.from_s + EPSILON_S:
                    raise SeekMissedError
            reader.feed(packet)
            if reader.waits:
                continue
            ready.extend(reader.ready())
            while all(filled):
                yield [segments.popleft() for segments in filled]
            if reader.done:
                del pending[index]
                if not pending:
                    break
    except MemoryError:
        raise
    except UNREADABLE:
        for reader, _ in pending.values():
            reader.flush()
    rest = [chain(ready, reader.rest()) for reader, ready in zip(readers, filled, strict=True)]
    yield from zip(*rest, strict=True)


def _streams(container: Any) -> dict[str, Any]:
    return {kind: best_stream(container, kind) for kind in ("audio", "video")}


def _kind(modality: Modality) -> str:
    """Name FFmpeg's type of stream that a modality is decoded from."""
    return "audio" if isinstance(modality, Waveform) else "video"


def _why_unreadable(container: Any, stream: Any | None, kind: str, index: ContainerIndex) -> Reason | None:
    """Say why a track cannot be decoded at all; None if it can be tried."""
    if stream is not None:
        return None if index.tracks[stream.index].packets else Reason.EMPTY
    # There is such a stream, but no decoder for it.
    undecoded = any(s.type == kind and s.codec_context is None for s in container.streams)
    return Reason.UNDECODABLE if undecoded else Reason.NO_TRACK


def _unopened(file: BinaryIO, file_type: FileType) -> tuple[Reason, str]:
    """Tell a codec that is not read from damage, for a file that FFmpeg does not open; with a sentence about it."""
    codec = sound_codec(file, file_type)
    if codec is not None and file_type.demuxer == "aiff":
        return Reason.UNSUPPORTED, f"AIFF-C with {codec} is not read: {CONVERT}"
    if codec is not None and codec.endswith("RIFX"):
        return Reason.UNSUPPORTED, f"WAV with {codec} is not read: {CONVERT}"
    return Reason.UNDECODABLE, f"{file_type.name} that is damaged or cut off: nothing of it can be read"


def _undecoded(file: BinaryIO, file_type: FileType, kind: str) -> tuple[Reason, str]:
    """Tell a codec that is not read from damage, for a track without a decoder; with a sentence about it."""
    codec = sound_codec(file, file_type)
    if codec is not None:
        return Reason.UNSUPPORTED, f"{file_type.name} with {codec} is not read: {CONVERT}"
    track = "sound" if kind == "audio" else "picture"
    # FFmpeg says no more: a codec that it does not know, or no description of one.
    return Reason.UNDECODABLE, f"its {track} track names no codec that is known: if other players read it, {CONVERT}"


def _seek(container: Any, readers: Sequence[Reader]) -> bool:
    """Seek to just before what the readers need, by the picture stream if there is one. False if it cannot."""
    target = next((reader for reader in readers if isinstance(reader, PictureReader)), readers[0])
    from_s = min(reader.from_s for reader in readers)
    if target.tick_s == 0.0 or from_s == -math.inf or any(reader.spliced for reader in readers):
        return False
    try:
        container.seek(round(from_s / target.tick_s), stream=target.stream)
    except MemoryError:
        raise
    except UNREADABLE:
        return False
    return True
