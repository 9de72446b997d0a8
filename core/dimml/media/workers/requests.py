"""Decode requests as a worker is sent them: what is the same in request after request is pickled once.

Pickling modalities and thresholds, and building them again, takes longer than the rest of a message.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

from dimml.media.types import DecodeRequest, MediaLimits
from dimml.modality import Modality
from dimml.signal_check import QualityThresholds

#: Different ones that are kept; a server has one for each bundle version, and some for each track alone.
_MOST_KEPT: Final = 256

Common = tuple[tuple[Modality, ...], MediaLimits, QualityThresholds]


class RequestWriter:
    """Writes requests. Not for several threads at once."""

    def __init__(self) -> None:
        #: By identity; what is kept with the bytes keeps an id from being given to another object.
        self._written: dict[tuple[object, ...], tuple[bytes, Common]] = {}

    def write(self, requests: Sequence[DecodeRequest]) -> bytes:
        """Return the message of some requests."""
        return pickle.dumps([self._fields(request) for request in requests], protocol=pickle.HIGHEST_PROTOCOL)

    def _fields(self, request: DecodeRequest) -> tuple[Any, ...]:
        return (
            self._common(request),
            request.sources,
            request.clip_s,
            request.start_s,
            request.end_s,
            request.audio_track,
            request.video_track,
            request.margin_s,
        )

    def _common(self, request: DecodeRequest) -> bytes:
        key = (request.limits, id(request.quality), *map(id, request.modalities))
        found = self._written.get(key)
        if found is None:
            if len(self._written) >= _MOST_KEPT:
                self._written.clear()
            common = request.modalities, request.limits, request.quality
            found = self._written[key] = pickle.dumps(common, protocol=pickle.HIGHEST_PROTOCOL), common
        return found[0]


def read_requests(fields: Sequence[tuple[Any, ...]]) -> list[DecodeRequest]:
    """Build requests of the fields that ``RequestWriter.write`` pickles."""
    requests = []
    for written, sources, clip_s, start_s, end_s, audio_track, video_track, margin_s in fields:
        modalities, limits, quality = _read_common(written)
        requests.append(
            DecodeRequest(
                modalities=modalities,
                sources=sources,
                clip_s=clip_s,
                start_s=start_s,
                end_s=end_s,
                limits=limits,
                quality=quality,
                audio_track=audio_track,
                video_track=video_track,
                margin_s=margin_s,
            )
        )
    return requests


@lru_cache(_MOST_KEPT)
def _read_common(written: bytes) -> Common:
    found: Common = pickle.loads(written)  # noqa: S301 (our own parent's)
    return found
