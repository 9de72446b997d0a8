"""From a decoded recording to rows for the ensemble, and how much of a request's time decoding may take."""

from __future__ import annotations

from time import perf_counter
from typing import Final, Protocol

from dimml.bundle import Bundle
from dimml.ensemble import FUSION_RESERVE_S, Rows
from dimml.errors import DeadlineExceededError
from dimml.media.types import Decoded, DecodeRequest
from dimml.status import ModalityStatus, Reason

#: Largest share of a request's remaining time that decoding may take, so that a track that hangs leaves the encoders of
#: the other tracks enough.
DECODE_SHARE: Final = 0.6


class Decodes(Protocol):
    """Decodes media in isolation; implemented by ``dimml.media.workers.pool.DecodePool``."""

    async def decode(self, request: DecodeRequest, *, timeout_s: float) -> Decoded:
        """Decode one request's media. Raises DimmlError."""
        ...


async def decode_in_share(decoder: Decodes, request: DecodeRequest, *, end: float, limit_s: float) -> Decoded:
    """Decode within a share of the time left until ``end`` (``perf_counter``'s clock), at most ``limit_s``.

    Raises DeadlineExceededError if the share runs out before ``limit_s`` (the request is late, the media not at fault),
    and what decoding raises.
    """
    share_s = (end - perf_counter() - FUSION_RESERVE_S) * DECODE_SHARE
    if share_s <= 0.0:
        raise DeadlineExceededError("the request's time ran out before decoding")
    decoded = await decoder.decode(request, timeout_s=min(share_s, limit_s))
    statuses = {name: track.status for name, track in decoded.tracks.items()}
    late = any(status.reason is Reason.DECODE_TIMEOUT for status in statuses.values())
    if late and share_s < limit_s and not any(s.ok for s in statuses.values()):
        raise DeadlineExceededError("the request's time ran out while decoding", statuses=statuses)
    return decoded


def recording_rows(bundle: Bundle, decoded: Decoded) -> Rows:
    """Make the one row of a decoded recording. A modality that the decoder was not asked for is ``not_requested``."""
    statuses = {m.name: [ModalityStatus.because(Reason.NOT_REQUESTED)] for m in bundle.modalities}
    tensors = {}
    for name, track in decoded.tracks.items():
        statuses[name] = [track.status]
        if track.row is not None:
            tensors[name] = track.row[None]
    return Rows(tensors, statuses)
