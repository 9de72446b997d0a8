"""From recordings to rows, in this process. Servers call it through ``dimml.media.workers.pool``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import BinaryIO, Final, Protocol

import soundfile

from dimml.media.decoders.audio import SoundFile
from dimml.media.decoders.container_recording import ContainerRecording
from dimml.media.decoders.file_type import FileType, identify
from dimml.media.decoders.flow_file import FlowFile
from dimml.media.decoders.image import decode_image
from dimml.media.decoders.signal_status import Tracks, all_because, judged, picture_tracks
from dimml.media.decoders.source import by_source, opened
from dimml.media.decoders.time_range import Window, check_range, judged_window
from dimml.media.decoders.video import StillPicture, enough_pixels, rows_of_one_picture
from dimml.media.types import Decoded, DecodedTrack, DecodeRequest, Source
from dimml.modality import Flow, Frames, Ground, Modality, Waveform
from dimml.status import ModalityStatus, Reason

#: What libsndfile, or the file beneath it, has to say of a damaged recording.
SOUND_UNREADABLE: Final = (soundfile.SoundFileError, OSError, ValueError)


def decode(request: DecodeRequest) -> Decoded:
    """Every wanted modality as a row, or the reason why there is none; never both, never neither.

    Raises InvalidParameterError (``start_s``, ``end_s``), TooLargeError, and UnreadableError where a path cannot
    be read. Media that does not decode raises nothing: its modalities are ``unusable``.
    """
    check_range(request)
    tracks: dict[str, DecodedTrack] = {}
    stretch: Window | None = None
    for source, modalities in by_source(request):
        part, window = decode_source(source, modalities, request)
        tracks |= part
        stretch = stretch or window
    missing = DecodedTrack(ModalityStatus.because(Reason.NOT_SENT))
    return Decoded(
        tracks={modality.name: tracks.get(modality.name, missing) for modality in request.modalities},
        # To the microsecond: finer than any container's clock, and without floats' dust.
        start_s=None if stretch is None else round(stretch.start_s, 6),
        end_s=None if stretch is None else round(stretch.end_s, 6),
    )


def decode_source(
    source: Source, modalities: Sequence[Modality], request: DecodeRequest
) -> tuple[Tracks, Window | None]:
    """The tracks of one source, and the window they cover, None where it has no time."""
    try:
        with ExitStack() as stack:
            recording = open_recording(stack, source, modalities, request, alone=True)
            try:
                return _one_window(recording, request)
            except SOUND_UNREADABLE:
                if not isinstance(recording, _SoundRecording):
                    raise
            return _one_window(
                open_recording(stack, source, modalities, request, alone=True, libsndfile=False), request
            )
    except MemoryError:
        if len(modalities) == 1:
            return all_because(Reason.DECODE_MEMORY, modalities), None
    # One track that asks for too much must not cost the others.
    parts = [decode_source(source, [modality], request) for modality in modalities]
    windows = [window for _, window in parts if window is not None]
    return {name: track for part, _ in parts for name, track in part.items()}, windows[0] if windows else None


class Recording(Protocol):
    """One open source."""

    #: None where it has no time, and is the same in every window: a picture, a flow, or nothing that decodes.
    duration_s: float | None
    #: How long one picture lasts, 0 where there is none.
    frame_s: float

    def tracks(self, windows: Sequence[Window]) -> Iterator[Tracks]:
        """Every modality's track of each window, in order."""
        ...


def _one_window(recording: Recording, request: DecodeRequest) -> tuple[Tracks, Window | None]:
    if recording.duration_s is None:
        return next(recording.tracks([Window(0.0, 0.0)])), None
    window = judged_window(recording.duration_s, request, recording.frame_s)
    return next(recording.tracks([window])), window


def open_recording(
    stack: ExitStack,
    source: Source,
    modalities: Sequence[Modality],
    request: DecodeRequest,
    *,
    alone: bool,
    libsndfile: bool = True,
) -> Recording:
    """Open a source for as long as ``stack`` is; ``alone``: to read one window of it.

    Raises UnreadableError and TooLargeError.
    """
    file, size = stack.enter_context(opened(source, request.limits.max_bytes))
    if size == 0:
        return _Timeless(partial(all_because, Reason.EMPTY, modalities))
    file_type = identify(file)
    if file_type is None:
        return _Timeless(partial(all_because, Reason.UNDECODABLE, modalities))
    if file_type.kind == "image":
        return _Timeless(partial(_image_tracks, file, file_type, modalities, request))
    if file_type.kind == "flow":
        return _Timeless(partial(_flow_tracks, file, modalities, request))
    sound_only = all(isinstance(modality, Waveform) for modality in modalities)
    # Of the plain sound formats only Ogg can hold pictures; what others carry is cover art. Many windows of an Ogg file
    # are one pass through it.
    plain = file_type.kind == "sound" and (file_type.demuxer != "ogg" or (sound_only and alone))
    if plain and libsndfile:
        try:
            return _SoundRecording(stack, file, modalities, request, alone=alone)
        except SOUND_UNREADABLE:
            # FFmpeg reads some that libsndfile does not.
            pass
    return ContainerRecording(
        stack, source, file, file_type.demuxer, modalities=modalities, request=request, alone=alone
    )


class _Timeless:
    """A source without time; a range does not apply to it."""

    def __init__(self, make: Callable[[], Tracks]) -> None:
        self.duration_s: float | None = None
        self.frame_s = 0.0
        self._make = make

    def tracks(self, windows: Sequence[Window]) -> Iterator[Tracks]:
        tracks = self._make()
        for _ in windows:
            yield dict(tracks)


def _image_tracks(
    file: BinaryIO, file_type: FileType, modalities: Sequence[Modality], request: DecodeRequest
) -> Tracks:
    """A clip of one picture."""
    file.seek(0)
    data = file.read()
    tracks = all_because(Reason.NO_TRACK, [m for m in modalities if isinstance(m, Waveform)])
    by_ground: dict[Ground | None, list[Frames | Flow]] = {}
    for modality in modalities:
        if not isinstance(modality, Waveform):
            by_ground.setdefault(modality.ground, []).append(modality)
    for ground, pictured in by_ground.items():
        rgb = decode_image(data, file_type.demuxer, request.limits, ground, enough_pixels(pictured))
        if rgb is None:
            tracks |= all_because(Reason.UNDECODABLE, pictured)
        else:
            tracks |= picture_tracks(rows_of_one_picture(StillPicture(rgb), pictured), request)
    return tracks


def _flow_tracks(file: BinaryIO, modalities: Sequence[Modality], request: DecodeRequest) -> Tracks:
    """Flow computed elsewhere."""
    tracks = all_because(Reason.NO_TRACK, [m for m in modalities if not isinstance(m, Flow)])
    flows = [modality for modality in modalities if isinstance(modality, Flow)]
    try:
        flow = FlowFile(file, request.limits)
        return tracks | {m.name: judged(m, flow.row(m), (), request) for m in flows}
    except ValueError:
        return tracks | all_because(Reason.UNDECODABLE, flows)


class _SoundRecording:
    """A plain sound file through libsndfile. Raises one of ``SOUND_UNREADABLE`` where it is none; ``tracks`` does so
    where the window cannot be read and is ``alone``, since FFmpeg may be able to."""

    def __init__(
        self, stack: ExitStack, file: BinaryIO, modalities: Sequence[Modality], request: DecodeRequest, *, alone: bool
    ) -> None:
        self._sound = SoundFile(file)
        stack.callback(self._sound.close)
        self._heard = [modality for modality in modalities if isinstance(modality, Waveform)]
        self._others = all_because(Reason.NO_TRACK, [m for m in modalities if not isinstance(m, Waveform)])
        self._request, self._alone = request, alone
        self.duration_s = None if self._sound.empty else self._sound.duration_s
        self.frame_s = 0.0

    def tracks(self, windows: Sequence[Window]) -> Iterator[Tracks]:
        for window in windows:
            if self.duration_s is None:
                yield self._others | all_because(Reason.EMPTY, self._heard)
            else:
                yield self._others | (self._tracks_of(window) if self._heard else {})

    def _tracks_of(self, window: Window) -> Tracks:
        try:
            buffer = self._sound.read(window)
        except SOUND_UNREADABLE:
            if self._alone:
                raise
            return all_because(Reason.UNDECODABLE, self._heard)
        return {modality.name: judged(modality, buffer.row(modality), (), self._request) for modality in self._heard}
