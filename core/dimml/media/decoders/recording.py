"""Decoding of recordings into rows, in this process. Servers call it through ``dimml.media.workers.pool``."""

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
from dimml.media.decoders.signal_status import Tracks, all_because, checked, picture_tracks
from dimml.media.decoders.source import by_source, opened
from dimml.media.decoders.time_range import Window, check_range, clip_window
from dimml.media.decoders.video import StillPicture, rows_of_one_picture
from dimml.media.types import Decoded, DecodedTrack, DecodeRequest, Source
from dimml.modality import Flow, Modality, Waveform
from dimml.status import ModalityStatus, Reason

#: Errors of libsndfile, and of the file beneath it, for a recording that it cannot read.
SOUND_UNREADABLE: Final = (soundfile.SoundFileError, OSError, ValueError)


def decode(request: DecodeRequest) -> Decoded:
    """Decode every wanted modality into a row, or give the reason why there is none.

    Raises InvalidParameterError (``start_s``, ``end_s``), TooLargeError, and UnreadableError for a path that cannot
    be read. Media that does not decode raises nothing: its modalities are ``unusable``.
    """
    check_range(request)
    tracks: dict[str, DecodedTrack] = {}
    covered: Window | None = None
    for source, modalities in by_source(request):
        part, window = decode_source(source, modalities, request)
        tracks |= part
        covered = covered or window
    missing = DecodedTrack(ModalityStatus.because(Reason.NOT_SENT))
    return Decoded(
        tracks={modality.name: tracks.get(modality.name, missing) for modality in request.modalities},
        # To the microsecond: finer than any container's clock, and free of rounding errors of floats.
        start_s=None if covered is None else round(covered.start_s, 6),
        end_s=None if covered is None else round(covered.end_s, 6),
    )


def decode_source(
    source: Source, modalities: Sequence[Modality], request: DecodeRequest
) -> tuple[Tracks, Window | None]:
    """Decode the modalities of one source: their tracks, and the window they cover, None for media without time."""
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
    # A track that needs too much memory must not take the others with it.
    parts = [decode_source(source, [modality], request) for modality in modalities]
    windows = [window for _, window in parts if window is not None]
    return {name: track for part, _ in parts for name, track in part.items()}, windows[0] if windows else None


class Recording(Protocol):
    """An open source, read window by window."""

    #: Seconds; None for media without time, the same in every window: a picture, a flow, or nothing that decodes.
    duration_s: float | None
    #: Mean duration of a picture in seconds, 0 without pictures.
    frame_s: float
    #: Tracks that are the same in every window, for want of anything to decode.
    unreadable: Tracks

    def tracks(self, windows: Sequence[Window]) -> Iterator[Tracks]:
        """Yield the tracks of each window, in order, by name of the modality."""
        ...


def _one_window(recording: Recording, request: DecodeRequest) -> tuple[Tracks, Window | None]:
    if recording.duration_s is None:
        return next(recording.tracks([Window(0.0, 0.0)])), None
    window = clip_window(recording.duration_s, request, recording.frame_s)
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
    """Open a source until ``stack`` closes; ``alone``: to read a single window.

    With ``libsndfile`` False, plain sound files are read by FFmpeg. Raises UnreadableError and TooLargeError.
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
    """A source without time, to which a range does not apply."""

    def __init__(self, make: Callable[[], Tracks]) -> None:
        self.duration_s: float | None = None
        self.frame_s = 0.0
        self.unreadable: Tracks = {}
        self._make = make

    def tracks(self, windows: Sequence[Window]) -> Iterator[Tracks]:
        tracks = self._make()
        for _ in windows:
            yield dict(tracks)


def _image_tracks(
    file: BinaryIO, file_type: FileType, modalities: Sequence[Modality], request: DecodeRequest
) -> Tracks:
    """Decode an image file as a clip of one picture."""
    file.seek(0)
    rgb = decode_image(file.read(), file_type.demuxer, request.limits)
    pictured = [modality for modality in modalities if not isinstance(modality, Waveform)]
    tracks = all_because(Reason.NO_TRACK, [m for m in modalities if isinstance(m, Waveform)])
    if rgb is None:
        return tracks | all_because(Reason.UNDECODABLE, pictured)
    return tracks | picture_tracks(rows_of_one_picture(StillPicture(rgb), pictured), request)


def _flow_tracks(file: BinaryIO, modalities: Sequence[Modality], request: DecodeRequest) -> Tracks:
    """Read optical flow that was computed elsewhere."""
    tracks = all_because(Reason.NO_TRACK, [m for m in modalities if not isinstance(m, Flow)])
    flows = [modality for modality in modalities if isinstance(modality, Flow)]
    try:
        flow = FlowFile(file, request.limits)
        return tracks | {m.name: checked(m, flow.row(m), (), request) for m in flows}
    except ValueError:
        return tracks | all_because(Reason.UNDECODABLE, flows)


class _SoundRecording:
    """A plain sound file, read by libsndfile. Raises one of ``SOUND_UNREADABLE`` if it is none.

    ``tracks`` raises them too for a window that is ``alone`` and cannot be read, since FFmpeg may be able to.
    """

    def __init__(
        self, stack: ExitStack, file: BinaryIO, modalities: Sequence[Modality], request: DecodeRequest, *, alone: bool
    ) -> None:
        self._sound = SoundFile(file)
        stack.callback(self._sound.close)
        self._heard = [modality for modality in modalities if isinstance(modality, Waveform)]
        self.unreadable = all_because(Reason.NO_TRACK, [m for m in modalities if not isinstance(m, Waveform)])
        self._request, self._alone = request, alone
        self.duration_s = None if self._sound.empty else self._sound.duration_s
        self.frame_s = 0.0

    def tracks(self, windows: Sequence[Window]) -> Iterator[Tracks]:
        for window in windows:
            if self.duration_s is None:
                yield self.unreadable | all_because(Reason.EMPTY, self._heard)
            else:
                yield self.unreadable | (self._tracks_of(window) if self._heard else {})

    def _tracks_of(self, window: Window) -> Tracks:
        try:
            buffer = self._sound.read(window)
        except SOUND_UNREADABLE:
            if self._alone:
                raise
            return all_because(Reason.UNDECODABLE, self._heard)
        return {modality.name: checked(modality, buffer.row(modality), (), self._request) for modality in self._heard}
