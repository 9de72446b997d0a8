"""Tracks of rows: with the status of the signal check, or with the reason why there is no row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dimml.media.decoders.mixing import MonoRow
from dimml.media.decoders.video import PictureRow
from dimml.media.types import DecodedTrack, DecodeRequest, all_because
from dimml.modality import Modality, Waveform
from dimml.signal_check import no_signal
from dimml.status import OK, ModalityStatus, Reason

Tracks = dict[str, DecodedTrack]


def checked(
    modality: Modality, row: Any | None, times_s: tuple[float, ...], request: DecodeRequest, pictures: int | None = None
) -> DecodedTrack:
    """Make a track of a row by the signal check; ``undecodable`` for None, and without its row if it has no signal.

    ``pictures``: how many the recording has in the row's window.
    """
    if row is None:
        return DecodedTrack(ModalityStatus.because(Reason.UNDECODABLE))
    reason = no_signal(modality, row, request.quality, times_s or None, pictures)
    if reason is not None:
        return DecodedTrack(ModalityStatus.because(reason), times_s=times_s)
    return DecodedTrack(OK, row, times_s)


def checked_sound(modality: Waveform, sound: MonoRow, request: DecodeRequest) -> DecodedTrack:
    """Make a track of a window's sound by the signal check, with the channel that it is."""
    if sound.no_channel:
        return DecodedTrack(ModalityStatus.because(Reason.NO_TRACK))
    return replace(checked(modality, sound.row, (), request), channel=sound.channel)


def picture_tracks(rows: Sequence[PictureRow], request: DecodeRequest, pictures: int = 1) -> Tracks:
    """Make tracks of complete picture rows by the signal check; ``pictures`` as ``checked`` takes it."""
    return {row.modality.name: checked(row.modality, row.array, tuple(row.times_s), request, pictures) for row in rows}


def unread(reason: Reason, modalities: Sequence[Modality], detail: str | None, *, sound_only: bool) -> Tracks:
    """Return the tracks of a file of which nothing is read; one that can only be sound never had a picture track."""
    pictured = [modality for modality in modalities if sound_only and not isinstance(modality, Waveform)]
    rest = [modality for modality in modalities if modality not in pictured]
    return all_because(reason, rest, detail) | all_because(Reason.NO_TRACK, pictured)
