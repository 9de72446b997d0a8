"""From files to tensors: the only preprocessing outside an encoder's graph.

``decode`` reads sound, frames and flow in this process; ``dimml.media.workers.pool`` does the same in worker processes
that a bad file may hang or kill.
"""

from typing import TYPE_CHECKING, Any

from dimml.media.types import Decoded, DecodedTrack, DecodeRequest, MediaLimits, Source

if TYPE_CHECKING:
    from dimml.media.decoders.recording import decode

__all__ = ["DecodeRequest", "Decoded", "DecodedTrack", "MediaLimits", "Source", "decode"]


def __getattr__(name: str) -> Any:
    """Import the decoders when ``decode`` is first asked for: a process that leaves decoding to workers needs none."""
    if name != "decode":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dimml.media.decoders.recording import decode

    return decode
