"""Decoding of recordings into rows, in this process. Servers call it through ``dimml.media.workers.pool``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import BinaryIO, Final, Protocol

import soundfile

from dimml.media.decoders.audio import SoundFile
from dimml.media.decoders.container_recording import ContainerRecording
from dimml.media.decoders.file_type import HEAD_BYTES, FileType, identify
from dimml.media.decoders.flow_file import FlowFile
from dimml.media.decoders.framing.mpeg_audio import MAX_FRAME_SAMPLES
from dimml.media.decoders.framing.ogg_chain import ChainedSound, link_starts
from dimml.media.decoders.framing.sound_length import sound_length
from dimml.media.decoders.images.image import decode_image
from dimml.media.decoders.mixing import needs_roles
from dimml.media.decoders.series.recording import SeriesRecording
from dimml.media.decoders.signal_status import (
    Tracks,
    checked,
    checked_sound,
    picture_tracks,
    unread,
)
from dimml.media.decoders.source import by_source, opened
from dimml.media.decoders.streams.chosen_tracks import no_such_track
from dimml.media.decoders.time_range import END_TOLERANCE_S, Window, check_range, clip_window
from dimml.media.decoders.unread_formats import unread_format
from dimml.media.decoders.video import StillPicture, enough_pixels, rows_of_one_picture
from dimml.media.track_choice import LOUDEST
from dimml.media.types import Decoded, DecodedTrack, DecodeRequest, Source, Truncation, all_because
from dimml.modality import Flow, Frames, Ground, Modality, Series, Waveform
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
    durations: list[float] = []
    for source, modalities in by_source(request):
        part, window, duration_s = decode_source(source, modalities, request)
        tracks |= part
        covered = covered or window
        durations += [] if duration_s is None else [duration_s]
    missing = DecodedTrack(ModalityStatus.because(Reason.NOT_SENT))
    return Decoded(
        tracks={modality.name: tracks.get(modality.name, missing) for modality in request.modalities},
        # To the microsecond: finer than any container's clock, and free of rounding errors of floats.
        start_s=None if covered is None else round(covered.start_s, 6),
        end_s=None if covered is None else round(covered.end_s, 6),
        duration_s=round(max(durations), 6) if durations else None,
    )


def decode_source(
    source: Source, modalities: Sequence[Modality], request: DecodeRequest
) -> tuple[Tracks, Window | None, float | None]:
    """Decode the modalities of one source: their tracks, the window they cover, and the source's length in seconds.

    The last two are None for media without time.
    """
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
            return all_because(Reason.DECODE_MEMORY, modalities), None, None
    # A track that needs too much memory must not take the others with it.
    parts = [decode_source(source, [modality], request) for modality in modalities]
    tracks = {name: track for part, _, _ in parts for name, track in part.items()}
    timed = next((part for part in parts if part[1] is not None), parts[0])
    return tracks, timed[1], timed[2]


class Recording(Protocol):
    """An open source, read window by window."""

    #: Seconds; None for media without time, the same in every window: a picture, a flow, or nothing that decodes.
    duration_s: float | None
    #: Mean duration of a picture in seconds, 0 without pictures.
    frame_s: float
    #: Of modalities whose track was cut off.
    truncations: Mapping[str, Truncation]
    #: Tracks that are the same in every window, for want of anything to decode.
    unreadable: Tracks

    def tracks(self, windows: Sequence[Window]) -> Iterator[Tracks]:
        """Yield the tracks of each window, in order, by name of the modality."""
        ...


def _one_window(recording: Recording, request: DecodeRequest) -> tuple[Tracks, Window | None, float | None]:
    if recording.duration_s is None:
        return next(recording.tracks([Window(0.0, 0.0)])), None, None
    window = clip_window(recording.duration_s, request, recording.frame_s)
    return with_truncations(next(recording.tracks([window])), recording), window, recording.duration_s


def with_truncations(tracks: Tracks, recording: Recording) -> Tracks:
    """Mark the tracks that were cut off."""
    for name, truncation in recording.truncations.items():
        if name in tracks:
            tracks[name] = replace(tracks[name], truncation=truncation)
    return tracks


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
    if series := [modality for modality in modalities if isinstance(modality, Series)]:
        return SeriesRecording(stack, file, size, series, request)
    file_type = identify(file)
    if file_type is None:
        return _Timeless(partial(_unrecognised_tracks, file, modalities))
    if file_type.kind == "image":
        return _Timeless(partial(_image_tracks, file, file_type, modalities, request))
    if file_type.kind == "flow":
        return _Timeless(partial(_flow_tracks, file, modalities, request))
    sound_only = all(isinstance(modality, Waveform) for modality in modalities)
    # Of the plain sound formats only Ogg can hold pictures; what others carry is cover art. Many windows of an Ogg file
    # are one pass through it.
    plain = file_type.kind == "sound" and (file_type.demuxer != "ogg" or (sound_only and alone))
    # It knows the first sound track alone, and no language; what FFmpeg finds in other formats is one track too.
    libsndfile &= request.audio_track in (None, 0) or (request.audio_track == LOUDEST and file_type.demuxer != "ogg")
    links = link_starts(file) if libsndfile and file_type.demuxer == "ogg" else []
    promised_s = None
    if (plain or len(links) > 1) and libsndfile:
        try:
            sound, promised_s = _sound(file, file_type, links)
            if sound is not None:
                return _SoundRecording(stack, sound, modalities, request, alone=alone, promised_s=promised_s)
        except SOUND_UNREADABLE:
            # FFmpeg reads some that libsndfile does not.
            pass
    return ContainerRecording(
        stack,
        source,
        file,
        file_type,
        modalities=modalities,
        request=request,
        alone=alone,
        promised_s=promised_s,
    )


def _sound(
    file: BinaryIO, file_type: FileType, links: list[int]
) -> tuple[SoundFile | ChainedSound | None, float | None]:
    """The file through libsndfile, None where libsndfile is wrong about its length; and the length it promises."""
    if len(links) > 1:
        return ChainedSound(file, links), None
    length = sound_length(file, file_type)
    if not length.libsndfile:
        return None, length.promised_s
    sound = SoundFile(file, length.samples, length.settling)
    if length.samples is not None and abs(sound.libsndfile_samples - length.samples) > MAX_FRAME_SAMPLES:
        sound.close()
        return None, length.promised_s
    return sound, length.promised_s


class _Timeless:
    """A source without time, to which a range does not apply."""

    def __init__(self, make: Callable[[], Tracks]) -> None:
        self.duration_s: float | None = None
        self.frame_s = 0.0
        self.truncations: Mapping[str, Truncation] = {}
        self.unreadable: Tracks = {}
        self._make = make

    def tracks(self, windows: Sequence[Window]) -> Iterator[Tracks]:
        tracks = self._make()
        for _ in windows:
            yield dict(tracks)


def _unrecognised_tracks(file: BinaryIO, modalities: Sequence[Modality]) -> Tracks:
    """Say what a file is that is not read, where its first bytes leave no doubt."""
    file.seek(0)
    found = unread_format(file.read(HEAD_BYTES))
    if found is None:
        return all_because(Reason.UNDECODABLE, modalities, "its first bytes are those of no media format")
    return unread(Reason.UNSUPPORTED, modalities, str(found), sound_only=found.sound_only)


def _image_tracks(
    file: BinaryIO, file_type: FileType, modalities: Sequence[Modality], request: DecodeRequest
) -> Tracks:
    """Decode an image file as a clip of one picture."""
    file.seek(0)
    data = file.read()
    tracks = all_because(Reason.NO_TRACK, [m for m in modalities if isinstance(m, Waveform)])
    by_ground: dict[Ground | None, list[Frames | Flow]] = {}
    if request.video_track not in (None, 0):
        return tracks | _only_picture([m for m in modalities if not isinstance(m, Waveform)], request)
    for modality in modalities:
        if isinstance(modality, Frames | Flow):
            by_ground.setdefault(modality.ground, []).append(modality)
    for ground, pictured in by_ground.items():
        rgb = decode_image(data, file_type.demuxer, request.limits, ground, enough_pixels(pictured))
        if rgb is None:
            detail = f"a {file_type.name} picture that is damaged or cut off"
            tracks |= all_because(Reason.UNDECODABLE, pictured, detail)
        else:
            tracks |= picture_tracks(rows_of_one_picture(StillPicture(rgb), pictured), request)
    return tracks


def _only_picture(pictured: Sequence[Modality], request: DecodeRequest) -> Tracks:
    """Say that a file which is a picture or a flow has no other track of them."""
    detail = no_such_track("video", request.video_track or 0, "0")
    return all_because(Reason.NO_TRACK, pictured, detail)


def _flow_tracks(file: BinaryIO, modalities: Sequence[Modality], request: DecodeRequest) -> Tracks:
    """Read optical flow that was computed elsewhere."""
    tracks = all_because(Reason.NO_TRACK, [m for m in modalities if not isinstance(m, Flow)])
    flows = [modality for modality in modalities if isinstance(modality, Flow)]
    if request.video_track not in (None, 0):
        return tracks | _only_picture(flows, request)
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
        self,
        stack: ExitStack,
        sound: SoundFile | ChainedSound,
        modalities: Sequence[Modality],
        request: DecodeRequest,
        *,
        alone: bool,
        promised_s: float | None,
    ) -> None:
        self._sound = sound
        stack.callback(self._sound.close)
        self._heard = [modality for modality in modalities if isinstance(modality, Waveform)]
        if self._sound.channels > 2 and any(needs_roles(modality.channel) for modality in self._heard):
            raise ValueError("libsndfile does not say what these channels are; FFmpeg does")
        self.unreadable = all_because(Reason.NO_TRACK, [m for m in modalities if not isinstance(m, Waveform)])
        self._request, self._alone = request, alone
        self.duration_s = None if self._sound.empty else self._sound.duration_s
        self.frame_s = 0.0
        self.truncations: Mapping[str, Truncation] = {}
        if self.duration_s is not None and promised_s is not None and promised_s - self.duration_s > END_TOLERANCE_S:
            truncation = Truncation(round(self.duration_s, 6), round(promised_s, 6))
            self.truncations = {modality.name: truncation for modality in self._heard}

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
        return {modality.name: checked_sound(modality, buffer.row(modality), self._request) for modality in self._heard}
