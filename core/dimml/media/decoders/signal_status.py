"""From a decoded row to a track with its status: the signal check, and reasons for what is not there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dimml.media.decoders.mixing import MonoRow
from dimml.media.decoders.video import PictureRow
from dimml.media.types import DecodedTrack, DecodeRequest
from dimml.modality import Modality, Waveform
from dimml.signal_check import no_signal
from dimml.status import OK, ModalityStatus, Reason

Tracks = dict[str, DecodedTrack]


def judged(
    modality: Modality, row: Any | None, times_s: tuple[float, ...], request: DecodeRequest, pictures: int | None = None
) -> DecodedTrack:
    """The track with the signal check's verdict; a row without signal is not handed on.

    ``pictures``: how many the recording has in the row's window.
    """
    if row is None:
        return DecodedTrack(ModalityStatus.because(Reason.UNDECODABLE))
    reason = no_signal(modality, row, request.quality, times_s or None, pictures)
    if reason is not None:
        return DecodedTrack(ModalityStatus.because(reason), times_s=times_s)
    return DecodedTrack(OK, row, times_s)


def judged_sound(modality: Waveform, sound: MonoRow, request: DecodeRequest) -> DecodedTrack:
    """The track of a window's sound, with the channel that it is."""
    if sound.no_channel:
        return DecodedTrack(ModalityStatus.because(Reason.NO_TRACK))
    return replace(judged(modality, sound.row, (), request), channel=sound.channel)


def picture_tracks(rows: Sequence[PictureRow], request: DecodeRequest, pictures: int = 1) -> Tracks:
    """Tracks of rows that are whole."""
    return {row.modality.name: judged(row.modality, row.array, tuple(row.times_s), request, pictures) for row in rows}


def all_because(reason: Reason, modalities: Sequence[Modality]) -> Tracks:
    """Tracks without a row, all for one reason."""
    return {modality.name: DecodedTrack(ModalityStatus.because(reason)) for modality in modalities}
