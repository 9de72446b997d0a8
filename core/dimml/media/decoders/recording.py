"""From recordings to rows, in this process. Servers call it through ``dimml.media.workers.pool``."""

from __future__ import annotations

import io
import math
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

import soundfile

from dimml.errors import TooLargeError, UnreadableError
from dimml.media.decoders.audio import SoundFile
from dimml.media.decoders.container import UNREADABLE, best_stream, open_container
from dimml.media.decoders.file_type import FileType, identify
from dimml.media.decoders.flow_file import FlowFile
from dimml.media.decoders.image import decode_image
from dimml.media.decoders.packet_index import ContainerIndex, scan
from dimml.media.decoders.signal_status import Tracks, all_because, judged, picture_tracks
from dimml.media.decoders.time_range import Window, check_range, judged_window
from dimml.media.decoders.track_readers import PictureReader, SoundReader, TrackReader, read_tracks
from dimml.media.decoders.video import StillPicture, rows_of_one_picture
from dimml.media.types import Decoded, DecodedTrack, DecodeRequest, Source
from dimml.modality import Flow, Modality, Waveform
from dimml.status import ModalityStatus, Reason


def decode(request: DecodeRequest) -> Decoded:
    """Every wanted modality as a row, or the reason why there is none; never both, never neither.

    Raises InvalidParameterError (``start_s``, ``end_s``), TooLargeError, and UnreadableError where a path cannot
    be read. Media that does not decode raises nothing: its modalities are ``unusable``.
    """
    check_range(request)
    tracks: dict[str, DecodedTrack] = {}
    stretch: Window | None = None
    for source, modalities in by_source(request):
        part, window = _decode_source(source, modalities, request)
        tracks |= part
        stretch = stretch or window
    missing = DecodedTrack(ModalityStatus.because(Reason.NOT_SENT))
    return Decoded(
        tracks={modality.name: tracks.get(modality.name, missing) for modality in request.modalities},
        # To the microsecond: finer than any container's clock, and without floats' dust.
        start_s=None if stretch is None else round(stretch.start_s, 6),
        end_s=None if stretch is None else round(stretch.end_s, 6),
    )


_Part = tuple[Tracks, Window | None]


def by_source(request: DecodeRequest) -> list[tuple[Source, list[Modality]]]:
    """Modalities that share one source object, in the order of the request."""
    groups: dict[int, tuple[Source, list[Modality]]] = {}
    for modality in request.modalities:
        source = request.sources.get(modality.name)
        if source is not None:
            groups.setdefault(id(source), (source, []))[1].append(modality)
    return list(groups.values())


def _decode_source(source: Source, modalities: Sequence[Modality], request: DecodeRequest) -> _Part:
    try:
        with opened(source, request.limits.max_bytes) as (file, size):
            if size == 0:
                return all_because(Reason.EMPTY, modalities), None
            file_type = identify(file)
            if file_type is None:
                return all_because(Reason.UNDECODABLE, modalities), None
            return _decode_file(file, file_type, modalities, request)
    except MemoryError:
        if len(modalities) == 1:
            return all_because(Reason.DECODE_MEMORY, modalities), None
    # One track that asks for too much must not cost the others.
    parts = [_decode_source(source, [modality], request) for modality in modalities]
    windows = [window for _, window in parts if window is not None]
    return {name: track for part, _ in parts for name, track in part.items()}, windows[0] if windows else None


@contextmanager
def opened(source: Source, max_bytes: int) -> Iterator[tuple[BinaryIO, int]]:
    """The source as a seekable file, and its size. Raises UnreadableError, and TooLargeError above ``max_bytes``."""
    if isinstance(source, bytes):
        _check_bytes(len(source), max_bytes)
        yield io.BytesIO(source), len(source)
        return
    try:
        status = source.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableError(f"cannot read {source}: not a regular file", field=str(source))
        file = source.open("rb")
    except OSError as error:
        raise UnreadableError(f"cannot read {source}: {error.strerror}", field=str(source)) from error
    with file:
        _check_bytes(status.st_size, max_bytes)
        yield file, status.st_size


def _check_bytes(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise TooLargeError(f"the file has {size} bytes, more than max_bytes = {max_bytes}")


def _decode_file(file: BinaryIO, file_type: FileType, modalities: Sequence[Modality], request: DecodeRequest) -> _Part:
    if file_type.kind == "image":
        return _decode_image(file, file_type, modalities, request)
    if file_type.kind == "flow":
        return _decode_flow(file, modalities, request)
    sound_only = all(isinstance(modality, Waveform) for modality in modalities)
    # Of the plain sound formats only Ogg can hold pictures; what others carry is cover art.
    if file_type.kind == "sound" and (sound_only or file_type.demuxer != "ogg"):
        try:
            return _decode_sound_file(file, modalities, request)
        except (soundfile.SoundFileError, OSError, ValueError):
            # FFmpeg reads some that libsndfile does not.
            pass
    return _decode_container(file, file_type, modalities, request)


def _decode_image(file: BinaryIO, file_type: FileType, modalities: Sequence[Modality], request: DecodeRequest) -> _Part:
    """A clip of one picture; a range does not apply to it, since it has no time."""
    file.seek(0)
    rgb = decode_image(file.read(), file_type.demuxer, request.limits)
    pictured = [modality for modality in modalities if not isinstance(modality, Waveform)]
    tracks = all_because(Reason.NO_TRACK, [m for m in modalities if isinstance(m, Waveform)])
    if rgb is None:
        return tracks | all_because(Reason.UNDECODABLE, pictured), None
    return tracks | picture_tracks(rows_of_one_picture(StillPicture(rgb), pictured), request), None


def _decode_flow(file: BinaryIO, modalities: Sequence[Modality], request: DecodeRequest) -> _Part:
    """Flow computed elsewhere; a range does not apply to it, since it has no time."""
    tracks = all_because(Reason.NO_TRACK, [m for m in modalities if not isinstance(m, Flow)])
    flows = [modality for modality in modalities if isinstance(modality, Flow)]
    try:
        flow = FlowFile(file, request.limits)
        return tracks | {m.name: judged(m, flow.row(m), (), request) for m in flows}, None
    except ValueError:
        return tracks | all_because(Reason.UNDECODABLE, flows), None


def _decode_sound_file(file: BinaryIO, modalities: Sequence[Modality], request: DecodeRequest) -> _Part:
    sound = SoundFile(file)
    try:
        tracks = all_because(Reason.NO_TRACK, [m for m in modalities if not isinstance(m, Waveform)])
        heard = [modality for modality in modalities if isinstance(modality, Waveform)]
        if sound.empty:
            return tracks | all_because(Reason.EMPTY, heard), None
        window = judged_window(sound.duration_s, request)
        if heard:
            buffer = sound.read(window)
            for modality in heard:
                tracks[modality.name] = judged(modality, buffer.row(modality), (), request)
        return tracks, window
    finally:
        sound.close()


def _decode_container(
    file: BinaryIO, file_type: FileType, modalities: Sequence[Modality], request: DecodeRequest
) -> _Part:
    container = open_container(file, file_type.demuxer, request.limits)
    if container is None:
        return all_because(Reason.UNDECODABLE, modalities), None
    tracks: Tracks = {}
    readable: list[Modality] = []
    with container:
        streams = {kind: best_stream(container, kind) for kind in ("audio", "video")}
        index = scan(container, [stream for stream in streams.values() if stream is not None])
        for modality in modalities:
            reason = unreadable(container, streams[stream_kind(modality)], stream_kind(modality), index)
            if reason is None:
                readable.append(modality)
            else:
                tracks[modality.name] = DecodedTrack(ModalityStatus.because(reason))
        if not readable:
            return tracks, None
        video = streams["video"]
        window = judged_window(index.duration_s, request, 0.0 if video is None else index.tracks[video.index].frame_s)
        readers = _readers(streams, index, window, readable, request)
        if _seek(container, readers) and read_tracks(container, readers, verify=True):
            return tracks | _read_rows(readers, readable, request), window
    # The seek missed, or this container cannot seek: once more from the very start, passing over what comes before.
    container = open_container(file, file_type.demuxer, request.limits)
    if container is None:
        return tracks | all_because(Reason.UNDECODABLE, readable), window
    with container:
        streams = {kind: best_stream(container, kind) for kind in ("audio", "video")}
        readers = _readers(streams, index, window, readable, request)
        read_tracks(container, readers, verify=False)
        return tracks | _read_rows(readers, readable, request), window


def stream_kind(modality: Modality) -> str:
    """FFmpeg's word for the track that a modality comes from."""
    return "audio" if isinstance(modality, Waveform) else "video"


def unreadable(container: Any, stream: Any | None, kind: str, index: ContainerIndex) -> Reason | None:
    """Why a track cannot even be tried."""
    if stream is not None:
        return None if index.tracks[stream.index].packets else Reason.EMPTY
    # A stream without a decoder is there, but nobody can read it.
    undecoded = any(s.type == kind and s.codec_context is None for s in container.streams)
    return Reason.UNDECODABLE if undecoded else Reason.NO_TRACK


def _readers(
    streams: dict[str, Any],
    index: ContainerIndex,
    window: Window,
    modalities: Sequence[Modality],
    request: DecodeRequest,
) -> list[TrackReader]:
    readers: list[TrackReader] = []
    if any(isinstance(modality, Waveform) for modality in modalities):
        stream = streams["audio"]
        readers.append(SoundReader(stream, index.tracks[stream.index], index.zero_s, window))
    pictured = [modality for modality in modalities if not isinstance(modality, Waveform)]
    if pictured:
        stream = streams["video"]
        track = index.tracks[stream.index]
        readers.append(PictureReader(stream, track, index.zero_s, window, modalities=pictured, limits=request.limits))
    return readers


def _seek(container: Any, readers: Sequence[TrackReader]) -> bool:
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


def _read_rows(readers: Sequence[TrackReader], modalities: Sequence[Modality], request: DecodeRequest) -> Tracks:
    tracks: Tracks = {}
    for reader in readers:
        if isinstance(reader, SoundReader):
            for modality in modalities:
                if isinstance(modality, Waveform):
                    tracks[modality.name] = judged(modality, reader.row(modality), (), request)
        elif isinstance(reader, PictureReader):
            reader.finish()
            if reader.decoded:
                tracks |= picture_tracks(reader.rows, request)
            else:
                tracks |= all_because(Reason.UNDECODABLE, [row.modality for row in reader.rows])
    return tracks
