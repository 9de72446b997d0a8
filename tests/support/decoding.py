"""Short ways to decode in tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dimml.media import Decoded, DecodeRequest, MediaLimits, Source, decode
from dimml.modality import Frames, Modality, Waveform

AUDIO = Waveform(name="audio", sample_rate_hz=8000, samples=8000)
VISUAL = Frames(name="visual", frames=5, height=32, width=48)


def request_for(
    source: Source,
    *modalities: Modality,
    clip_s: float = 1.0,
    start_s: float | None = None,
    end_s: float | None = None,
    limits: MediaLimits | None = None,
    margin_s: float = 0.0,
) -> DecodeRequest:
    """A request that reads all ``modalities`` (by default AUDIO and VISUAL) from one source."""
    wanted = modalities or (AUDIO, VISUAL)
    return DecodeRequest(
        modalities=wanted,
        sources={modality.name: source for modality in wanted},
        clip_s=clip_s,
        start_s=start_s,
        end_s=end_s,
        limits=limits or MediaLimits(),
        margin_s=margin_s,
    )


def decode_source(source: Source, *modalities: Modality, **options: Any) -> Decoded:
    """``decode(request_for(…))``."""
    return decode(request_for(source, *modalities, **options))


def statuses(decoded: Decoded) -> dict[str, str]:
    """Every modality's status in words."""
    return {name: str(track.status) for name, track in decoded.tracks.items()}


def row_of(decoded: Decoded, name: str) -> npt.NDArray[Any]:
    """A modality's row, which must be there."""
    track = decoded.tracks[name]
    assert track.row is not None, f"{name} is {track.status}"
    return track.row


def loudest_s(wave: npt.NDArray[np.float32], rate_hz: int) -> float:
    """Middle of the loud part of a waveform, in seconds from its start."""
    loud = np.flatnonzero(np.abs(wave) > 0.5 * np.abs(wave).max())
    return float(loud[0] + loud[-1]) / 2 / rate_hz
