"""Tracks of rows: with the status of the signal check, or with the reason why there is no row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dimml.media.decoders.video import PictureRow
from dimml.media.types import DecodedTrack, DecodeRequest
from dimml.modality import Modality
from dimml.signal_check import no_signal
from dimml.status import OK, ModalityStatus, Reason

Tracks = dict[str, DecodedTrack]


def checked(modality: Modality, row: Any | None, times_s: tuple[float, ...], request: DecodeRequest) -> DecodedTrack:
    """Make a track of a row by the signal check; ``undecodable`` for None, and without its row if it has no signal."""
    if row is None:
        return DecodedTrack(ModalityStatus.because(Reason.UNDECODABLE))
    reason = no_signal(modality, row, request.quality, times_s or None)
    if reason is not None:
        return DecodedTrack(ModalityStatus.because(reason), times_s=times_s)
    return DecodedTrack(OK, row, times_s)


def picture_tracks(rows: Sequence[PictureRow], request: DecodeRequest) -> Tracks:
    """Make tracks of complete picture rows by the signal check."""
    return {row.modality.name: checked(row.modality, row.array, tuple(row.times_s), request) for row in rows}


def all_because(reason: Reason, modalities: Sequence[Modality]) -> Tracks:
    """Make a track without a row, for ``reason``, of each modality."""
    return {modality.name: DecodedTrack(ModalityStatus.because(reason)) for modality in modalities}
