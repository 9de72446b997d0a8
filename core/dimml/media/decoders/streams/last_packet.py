"""How long a sound track's last packet lasts, where its container does not say so: it is decoded.

Packets of lossless codecs hold thousands of samples, a TTA packet 1.04 s, and the last one what is left. Matroska and
CAF state the length of all of them alike, or none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

from dimml.media.decoders.container import UNREADABLE

#: Lossless codecs whose packets decode by themselves.
_CODECS: Final = frozenset({"alac", "ape", "flac", "shorten", "tak", "tta", "wavpack"})


def packet_ends(streams: Sequence[Any]) -> Mapping[int, deque[Any]]:
    """For the last two packets of each sound stream whose last packet may be short, by the stream's index."""
    return {
        stream.index: deque(maxlen=2)
        for stream in streams
        if stream.type == "audio" and stream.codec_context.name in _CODECS
    }


def last_packet_s(stream: Any, packets: Sequence[Any]) -> float | None:
    """Seconds of sound in the last of ``packets``; None where the container states them, or it does not decode."""
    *before, last = packets
    if before and 0 < (last.duration or 0) < (before[-1].duration or 0):
        return None
    decoder = stream.codec_context
    try:
        frames = [*decoder.decode(last), *decoder.decode(None)]
        decoder.flush_buffers()
        seconds = sum(frame.samples / frame.sample_rate for frame in frames)
    except MemoryError:
        raise
    except (*UNREADABLE, ZeroDivisionError):
        return None
    return seconds or None
