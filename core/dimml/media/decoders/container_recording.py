"""A container file: scanned, then read by track readers into windows."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from itertools import chain
from typing import Any, BinaryIO

from dimml.media.decoders.container import UNREADABLE, best_stream, open_container
from dimml.media.decoders.packet_index import ContainerIndex, scan
from dimml.media.decoders.signal_status import Tracks, all_because, judged_sound, picture_tracks
from dimml.media.decoders.source import opened
from dimml.media.decoders.time_range import Window
from dimml.media.decoders.track_buffers import PictureStretch, SoundStretch
from dimml.media.decoders.track_readers import PictureReader, SoundReader
from dimml.media.decoders.video import EPSILON_S
from dimml.media.types import DecodeRequest, Source
from dimml.modality import Modality, Waveform
from dimml.status import Reason

Reader = SoundReader | PictureReader


class ContainerRecording:
    """Windows of a container. ``duration_s`` None: nothing of it can be read.

    With ``alone``, one window is asked for: both tracks are read in one pass that begins just before it. Otherwise
    each track is read through a container of its own, from the start, so that it depends on no other's place in the
    file and no more than the open windows is held.
    """

    def __init__(
        self,
        stack: ExitStack,
        source: Source,
        file: BinaryIO,
        demuxer: str,
        *,
        modalities: Sequence[Modality],
        request: DecodeRequest,
        alone: bool,
    ) -> None:
        self._stack, self._source, self._file, self._demuxer = stack, source, file, demuxer
        self._request, self._alone = request, alone
        self.duration_s: float | None = None
        #: How long one picture lasts.
        self.frame_s = 0.0
        self._readable: list[Modality] = []
        self._lost: Tracks = {}
        container = open_container(file, demuxer, request.limits)
        if container is None:
            self._lost = all_because(Reason.UNDECODABLE, modalities)
            return
        stack.callback(container.close)
        streams = _streams(container)
        self._index = scan(container, [stream for stream in streams.values() if stream is not None])
        for modality in modalities:
            kind = _kind(modality)
            reason = _unreadable(container, streams[kind], kind, self._index)
            if reason is None:
                self._readable.append(modality)
            else:
                self._lost |= all_because(reason, [modality])
        if self._readable:
            self.duration_s = self._index.duration_s
        if (video := streams["video"]) is not None:
            self.frame_s = self._index.tracks[video.index].frame_s
        self._scanned, self._streams = container, streams
        if not alone:
            # Nothing may look at its streams from here on.
            container.close()

    def tracks(self, windows: Sequence[Window]) -> Iterator[Tracks]:
        """Every modality's track of each window, in order."""
        kinds = sorted({_kind(modality) for modality in self._readable})
        if self._alone:
            passes = [self._one_pass(kinds, windows)] if kinds else []
        else:
            passes = [self._pass_from_start([kind], windows) for kind in kinds]
        for _ in windows:
            tracks: Tracks = dict(self._lost)
            for one in passes:
                tracks |= next(one)
            yield tracks

    def _one_pass(self, kinds: Sequence[str], windows: Sequence[Window]) -> Iterator[Tracks]:
        """All tracks from just before the first window."""
        readers = self._readers(self._streams, kinds, windows)
        if readers is not None and _seek(self._scanned, readers):
            with suppress(SeekMissedError):
                yield from self._filled(read_windows(self._scanned, readers, verify=True))
                return
        self._scanned.close()
        # The seek missed, or this container cannot seek: from the very start, passing over what comes before.
        yield from self._pass_from_start(kinds, windows)

    def _pass_from_start(self, kinds: Sequence[str], windows: Sequence[Window]) -> Iterator[Tracks]:
        file = self._file
        if not self._alone:
            file, _ = self._stack.enter_context(opened(self._source, self._request.limits.max_bytes))
        container = open_container(file, self._demuxer, self._request.limits)
        readers = None
        if container is not None:
            self._stack.callback(container.close)
            readers = self._readers(_streams(container), kinds, windows)
        if readers is None:
            for _ in windows:
                yield all_because(Reason.UNDECODABLE, [m for m in self._readable if _kind(m) in kinds])
            return
        yield from self._filled(read_windows(container, readers, drain=not self._alone))

    def _readers(
        self, streams: Mapping[str, Any], kinds: Sequence[str], windows: Sequence[Window]
    ) -> list[Reader] | None:
        """A reader of each kind of track; None where a stream that was there is not there again."""
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

    def _filled(self, windows: Iterator[Sequence[SoundStretch | PictureStretch]]) -> Iterator[Tracks]:
        for stretches in windows:
            tracks: Tracks = {}
            for stretch in stretches:
                tracks |= self._tracks_of(stretch)
            yield tracks

    def _tracks_of(self, stretch: SoundStretch | PictureStretch) -> Tracks:
        if isinstance(stretch, SoundStretch):
            heard = [modality for modality in self._readable if isinstance(modality, Waveform)]
            return {modality.name: judged_sound(modality, stretch.row(modality), self._request) for modality in heard}
        if stretch.decoded:
            return picture_tracks(stretch.rows, self._request, stretch.pictures)
        return all_because(Reason.UNDECODABLE, [row.modality for row in stretch.rows])


class SeekMissedError(Exception):
    """The first packet after a seek comes after the first one that is needed."""


def read_windows(
    container: Any, readers: Sequence[Reader], *, verify: bool = False, drain: bool = False
) -> Iterator[Sequence[SoundStretch | PictureStretch]]:
    """Feed ``readers`` from where the container stands: each window's stretches, one of each reader, once there.

    With ``verify``, raises SeekMissedError before anything else where a stream begins too late. ``drain``: take what
    decoders still hold at the end.
    """
    filled: list[deque[Any]] = [deque() for _ in readers]
    pending = {reader.stream.index: (reader, ready) for reader, ready in zip(readers, filled, strict=True)}
    unseen = set(pending) if verify else set()
    try:
        for packet in container.demux(*(reader.stream for reader in readers)):
            # Packets that flush carry index 0, whatever their stream: without ``drain``, a track of another index loses
            # what its decoder still holds. To drain always is another ``DECODER_VERSION``.
            if packet.stream_index not in pending:
                continue
            reader, ready = pending[packet.stream_index]
            if packet.stream_index in unseen:
                unseen.discard(packet.stream_index)
                time_s = reader.packet_time_s(packet)
                if time_s is None or time_s > reader.from_s + EPSILON_S:
                    raise SeekMissedError
            reader.feed(packet)
            if reader.waits:
                continue
            ready.extend(reader.ready())
            while all(filled):
                yield [stretches.popleft() for stretches in filled]
            if reader.done:
                del pending[packet.stream_index]
                if not pending:
                    break
        if drain:
            for reader, _ in pending.values():
                reader.flush()
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
    """FFmpeg's word for the track that a modality comes from."""
    return "audio" if isinstance(modality, Waveform) else "video"


def _unreadable(container: Any, stream: Any | None, kind: str, index: ContainerIndex) -> Reason | None:
    """Why a track cannot even be tried."""
    if stream is not None:
        return None if index.tracks[stream.index].packets else Reason.EMPTY
    # A stream without a decoder is there, but nobody can read it.
    undecoded = any(s.type == kind and s.codec_context is None for s in container.streams)
    return Reason.UNDECODABLE if undecoded else Reason.NO_TRACK


def _seek(container: Any, readers: Sequence[Reader]) -> bool:
    """Whether the container could be set to just before what the readers need; by the picture where there is one."""
    target = next((reader for reader in readers if isinstance(reader, PictureReader)), readers[0])
    from_s = min(reader.from_s for reader in readers)
    if target.tick_s == 0.0 or from_s == -math.inf:
        return False
    try:
        container.seek(round(from_s / target.tick_s), stream=target.stream)
    except MemoryError:
        raise
    except UNREADABLE:
        return False
    return True
