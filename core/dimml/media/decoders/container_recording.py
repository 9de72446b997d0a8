"""Windows of a container file: its packets are scanned first, then fed to track readers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, BinaryIO, Final

from dimml.media.decoders.container import UNREADABLE, open_container
from dimml.media.decoders.file_type import FileType
from dimml.media.decoders.framing.promised_length import avi_promise_s, drop_partial_packet, is_cut_off, truncations
from dimml.media.decoders.mixing import power
from dimml.media.decoders.packet_index import scan
from dimml.media.decoders.signal_status import Tracks, checked_sound, picture_tracks, unread
from dimml.media.decoders.source import opened
from dimml.media.decoders.streams.chosen_tracks import chosen_streams, track_words, tracks_of, why_none
from dimml.media.decoders.streams.packet_feed import Reader, SeekMissedError, packets_of, read_windows, seek
from dimml.media.decoders.streams.picture_order import CODECS, stamped_by_decoding
from dimml.media.decoders.streams.picture_reader import PictureReader, ReadAgainError
from dimml.media.decoders.time_range import Window
from dimml.media.decoders.track_buffers import PictureSegment, SoundSegment
from dimml.media.decoders.track_readers import SoundReader
from dimml.media.decoders.unread_formats import STAMPED_BY_DECODING, UNTIMED, why_mistimed, why_undecoded, why_unopened
from dimml.media.track_choice import LOUDEST, TrackChoice
from dimml.media.types import DecodedTrack, DecodeRequest, Source, Truncation, all_because
from dimml.modality import Flow, Frames, Modality, Track, Waveform
from dimml.status import ModalityStatus, Reason

#: Demuxers whose times differ after a seek. Most pictures of a program stream carry no time; FFmpeg derives it from the
#: packets before, and was seen to be half a picture off without them.
#: Of MP3, the time after a seek is a guess from the bit rate.
_READ_FROM_START: Final = frozenset({"mpeg", "mp3"})
#: Demuxers of containers in which every packet has the time of its picture.
_EXACT_TIMES: Final = frozenset({"mov", "matroska"})
_KINDS: Final[tuple[Track, ...]] = ("audio", "video")


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
        #: Which sound track each modality was made of in the latest window: its number and language.
        self.heard: dict[str, str] = {}
        demuxer = file_type.demuxer
        cut_off = promised_s is not None or is_cut_off(file, demuxer)
        if cut_off and demuxer == "avi":
            promised_s = avi_promise_s(file)
        container = open_container(file, demuxer, request.limits)
        if container is None:
            because, about = why_unopened(file, file_type)
            self.unreadable = unread(because, modalities, about, sound_only=file_type.sound_only)
            return
        stack.callback(container.close)
        streams = self._chosen(container)
        self._codecs = {
            kind: str(one.codec_context.codec.canonical_name) for kind, some in streams.items() for one in some[:1]
        }
        mistimed = {kind: why for kind, one in self._codecs.items() if (why := why_mistimed(demuxer, one)) is not None}
        if demuxer == "asf" and self._codecs.get("video") in CODECS and self._stamped_by_decoding():
            mistimed["video"] = STAMPED_BY_DECODING
        # Their times must not count as the recording's length.
        streams |= {kind: [] for kind in mistimed}
        self._index = scan(container, [*streams["audio"], *streams["video"]], keep=alone and demuxer in _EXACT_TIMES)
        if cut_off:
            drop_partial_packet(self._index, demuxer, promised_s)
            cut = truncations(container, demuxer, self._index, promised_s)
            by_kind = {kind: cut[one.index] for kind, some in streams.items() for one in some[:1] if one.index in cut}
            self.truncations = {m.name: by_kind[_kind(m)] for m in modalities if _kind(m) in by_kind}
        for modality in modalities:
            kind = _kind(modality)
            found = [self._index.tracks[stream.index] for stream in streams[kind]]
            if any(track.packets for track in found):
                if any(track.timed for track in found if track.packets):
                    self._readable.append(modality)
                else:
                    self.unreadable |= all_because(Reason.UNSUPPORTED, [modality], UNTIMED)
                continue
            why, detail = Reason.EMPTY, None
            if kind in mistimed:
                why, detail = Reason.UNSUPPORTED, mistimed[kind]
            elif not streams[kind]:
                why, detail = why_none(container, kind, self._wanted(kind))
            if why is Reason.UNDECODABLE:
                why, detail = why_undecoded(file, file_type, kind)
            self.unreadable |= all_because(why, [modality], detail)
        if self._readable:
            self.duration_s = self._index.duration_s
        for video in streams["video"]:
            self.frame_s = self._index.tracks[video.index].frame_s
        self._scanned, self._streams = container, streams
        #: Every sound track in words, by index of its stream, and those that are read.
        self._words = {one.index: track_words(container, one) for one in tracks_of(container, "audio")}
        self._sound_words: list[str] = []
        self._louder: tuple[ContainerRecording, Iterator[tuple[int, Tracks]]] | None = None
        if not alone:
            # Its streams must not be used after this.
            container.close()

    def tracks(self, windows: Sequence[Window]) -> Iterator[Tracks]:
        """Yield the tracks of each window, in order, by name of the modality."""
        kinds = [kind for kind in _KINDS if any(_kind(modality) == kind for modality in self._readable)]
        if self._alone:
            passes = [self._one_pass(kinds, windows)] if kinds else []
        else:
            passes = [self._pass_from_start([kind], windows) for kind in kinds]
        for number in range(len(windows)):
            tracks: Tracks = dict(self.unreadable)
            for one in passes:
                tracks |= next(one)
            yield self._naming_louder(self._naming_codec(tracks), windows, number)

    def _naming_codec(self, tracks: Tracks) -> Tracks:
        """Add its codec to the status of every track that was tried and does not decode."""
        for modality in self._readable:
            status = tracks[modality.name].status
            if status.reason is Reason.UNDECODABLE and status.detail is None:
                kind = _kind(modality)
                detail = (
                    f"nothing of its {'sound' if kind == 'audio' else 'picture'} track ({self._codecs[kind]}) decodes "
                    "here: it is damaged, or of a form that is not read"
                )
                tracks |= all_because(Reason.UNDECODABLE, [modality], detail)
        return tracks

    def _naming_louder(self, tracks: Tracks, windows: Sequence[Window], number: int) -> Tracks:
        """Add to a silent track's status which other sound track of the recording is not silent in this window."""
        silent = [m for m in self._heard if tracks[m.name].status.reason is Reason.SILENT]
        if not silent or len(self._words) < 2 or self._request.audio_track == LOUDEST:
            return tracks
        if self._louder is None:
            request = replace(self._request, audio_track=LOUDEST)
            recording = ContainerRecording(
                self._stack,
                self._source,
                self._file,
                self._file_type,
                modalities=self._heard,
                request=request,
                alone=self._alone,
            )
            self._louder = recording, enumerate(recording.tracks(windows[number:]), number)
        recording, following = self._louder
        louder = next(tracks for place, tracks in following if place == number)
        for modality in silent:
            if louder[modality.name].status.ok:
                own, other = self.heard[modality.name], recording.heard[modality.name]
                detail = f"sound track {own} is silent and track {other} is not: name it as audio_track"
                status = ModalityStatus.because(Reason.SILENT, detail)
                tracks[modality.name] = replace(tracks[modality.name], status=status)
        return tracks

    def _one_pass(self, kinds: Sequence[Track], windows: Sequence[Window]) -> Iterator[Tracks]:
        """Read all tracks in one pass: of the packets that the scan kept, or from just before the first window."""
        kept = self._index.packets
        possible = kept is not None or self._file_type.demuxer not in _READ_FROM_START
        while possible:
            readers = self._readers(self._streams, kinds, windows)
            if readers is None or (kept is None and not seek(self._scanned, readers)):
                break
            packets = packets_of(self._scanned, readers) if kept is None else kept
            try:
                yield from self._filled(read_windows(packets, readers, verify=kept is None))
            except SeekMissedError:
                break
            except ReadAgainError:
                for reader in readers:
                    reader.stream.codec_context.flush_buffers()
                continue
            return
        self._scanned.close()
        # The seek missed, or this container cannot seek: from the very start, passing over what comes before.
        yield from self._pass_from_start(kinds, windows)

    def _pass_from_start(self, kinds: Sequence[Track], windows: Sequence[Window]) -> Iterator[Tracks]:
        file = self._file
        if not self._alone:
            file, _ = self._stack.enter_context(opened(self._source, self._request.limits.max_bytes))
        while (container := open_container(file, self._file_type.demuxer, self._request.limits)) is not None:
            self._stack.callback(container.close)
            readers = self._readers(self._chosen(container), kinds, windows)
            if readers is None:
                break
            try:
                yield from self._filled(read_windows(packets_of(container, readers), readers))
            except ReadAgainError:
                container.close()
                continue
            return
        for _ in windows:
            yield all_because(Reason.UNDECODABLE, [m for m in self._readable if _kind(m) in kinds])

    def _readers(
        self, streams: Mapping[Track, Sequence[Any]], kinds: Sequence[Track], windows: Sequence[Window]
    ) -> list[Reader] | None:
        """Make a reader for each track of these kinds; None if a reopened file no longer shows one of a kind."""
        readers: list[Reader] = []
        zero_s = self._index.zero_s
        for kind in kinds:
            indices = [(one, self._index.tracks.get(one.index)) for one in streams[kind]]
            found = [(stream, index) for stream, index in indices if index is not None and index.packets]
            if not found:
                return None
            if kind == "audio":
                self._sound_words = [self._words[stream.index] for stream, _ in found]
                readers += [SoundReader(stream, index, zero_s, windows) for stream, index in found]
                continue
            pictured = [modality for modality in self._readable if isinstance(modality, Frames | Flow)]
            limits, shown_only = self._request.limits, self._alone and self._file_type.demuxer in _EXACT_TIMES
            readers += [
                PictureReader(stream, index, zero_s, windows, modalities=pictured, limits=limits, shown_only=shown_only)
                for stream, index in found
            ]
        return readers

    def _stamped_by_decoding(self) -> bool:
        container = open_container(self._file, self._file_type.demuxer, self._request.limits)
        if container is None:
            return False
        with container:
            try:
                return stamped_by_decoding(container.demux(self._chosen(container)["video"]))
            except MemoryError:
                raise
            except UNREADABLE:
                # Nothing whole to look at: the scan finds out what can be read.
                return False

    def _chosen(self, container: Any) -> dict[Track, list[Any]]:
        return {kind: chosen_streams(container, kind, self._wanted(kind)) for kind in _KINDS}

    def _wanted(self, kind: Track) -> TrackChoice | None:
        return self._request.audio_track if kind == "audio" else self._request.video_track

    def _filled(self, windows: Iterator[Sequence[SoundSegment | PictureSegment]]) -> Iterator[Tracks]:
        for segments in windows:
            tracks: Tracks = {}
            if sounds := [segment for segment in segments if isinstance(segment, SoundSegment)]:
                tracks = {modality.name: self._sound_track(sounds, modality) for modality in self._heard}
            for segment in segments:
                if isinstance(segment, PictureSegment):
                    tracks |= self._picture_tracks(segment)
            yield tracks

    @property
    def _heard(self) -> list[Waveform]:
        return [modality for modality in self._readable if isinstance(modality, Waveform)]

    def _sound_track(self, segments: Sequence[SoundSegment], modality: Waveform) -> DecodedTrack:
        """Make the track of a window: of several sound tracks, the one with the most power in it."""
        rows = [(n, segment.row(modality)) for n, segment in enumerate(segments) if segment.absent is None]
        if not rows:
            return DecodedTrack(ModalityStatus.because(segments[0].absent or Reason.TRACK_ENDED))
        loudest, row = max(rows, key=lambda one: power(one[1])) if len(rows) > 1 else rows[0]
        self.heard[modality.name] = self._sound_words[loudest]
        return checked_sound(modality, row, self._request)

    def _picture_tracks(self, segment: PictureSegment) -> Tracks:
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


def _kind(modality: Modality) -> Track:
    return "audio" if isinstance(modality, Waveform) else "video"
