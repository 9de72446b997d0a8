"""Requests to a decoder or a server for a recording of the listing."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from dimml.bundle import Bundle
from dimml.digests import historic, without
from dimml.errors import ConfigurationError, InvalidParameterError
from dimml.media.types import DecodeRequest, MediaLimits
from dimml_client.scoring.inputs.locations import at_hand
from dimml_client.scoring.recording import MEDIA_PART, Recording

#: Time limit of decoding one recording, or some windows of one.
DECODE_LIMIT_S: Final = 60.0
#: Limits of a recording that is read window by window; the size of a picture is still limited.
_UNLIMITED: Final = MediaLimits(max_bytes=sys.maxsize, max_seconds=math.inf, max_frames_decoded=sys.maxsize)


@dataclass(frozen=True, slots=True)
class WindowOptions:
    """A timeline: a row for every ``window_s`` seconds, ``stride_s`` apart."""

    window_s: float
    stride_s: float


def limits_of(window: WindowOptions | None) -> MediaLimits:
    """Return the limits on a recording: in windows, it may have any length and size."""
    return MediaLimits() if window is None else _UNLIMITED


def in_process_settings(window: WindowOptions | None) -> dict[str, Any]:
    """Return the settings that rows depend on when decoded here, beside the bundle and the recording."""
    limits = limits_of(window)
    recorded = without(asdict(limits), historic(limits))
    return {
        "engine": "in process",
        "window": None if window is None else asdict(window),
        "decode_limit_s": DECODE_LIMIT_S,
        # JSON has no infinity.
        **{name: value if value < sys.maxsize else None for name, value in recorded.items()},
    }


def check_parts(own_files: Sequence[str], modalities: Sequence[str]) -> None:
    """Raise ConfigurationError for a column ``path_<name>`` whose name is not a modality."""
    for name in own_files:
        if name not in modalities:
            raise ConfigurationError(
                f"column path_{name}: {name!r} is not a modality of the bundle, which has {', '.join(modalities)}",
                field=f"path_{name}",
            )


@contextmanager
def parts_at_hand(recording: Recording, max_bytes: int) -> Iterator[dict[str, Path]]:
    """Provide the recording's files by part as local files, fetched if necessary.

    A file that serves two parts is one object, so that it is opened once. Raises UnreadableError, TooLargeError,
    InvalidParameterError.
    """
    if recording.problem is not None:
        raise InvalidParameterError(recording.problem)
    with ExitStack() as stack:
        places = {
            location: stack.enter_context(at_hand(location, max_bytes))
            for location in dict.fromkeys(recording.parts.values())
        }
        yield {name: places[location] for name, location in recording.parts.items()}


def decode_request(bundle: Bundle, recording: Recording, parts: dict[str, Path], limits: MediaLimits) -> DecodeRequest:
    """Build the decode request; a modality without a file of its own takes the recording's."""
    shared = parts.get(MEDIA_PART)
    found = {modality.name: parts.get(modality.name, shared) for modality in bundle.modalities}
    return DecodeRequest(
        modalities=bundle.modalities,
        sources={name: path for name, path in found.items() if path is not None},
        clip_s=bundle.clip_s,
        start_s=recording.start_s,
        end_s=recording.end_s,
        limits=limits,
        quality=bundle.quality,
        margin_s=bundle.margin_s,
        audio_track=recording.audio_track,
        video_track=recording.video_track,
    )
