"""From files to tensors: the only preprocessing outside an encoder's graph.

``decode`` reads sound, frames and flow in this process; ``dimml.media.workers.pool`` does the same in worker processes
that a bad file may hang or kill.
"""

from dimml.media.decoders.recording import decode
from dimml.media.types import Decoded, DecodedTrack, DecodeRequest, MediaLimits, Source

__all__ = ["DecodeRequest", "Decoded", "DecodedTrack", "MediaLimits", "Source", "decode"]
