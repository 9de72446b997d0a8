"""A decode function for ``DecodePool`` that also says how much memory its process has ever used."""

from __future__ import annotations

import resource

from dimml.media import Decoded, DecodedTrack, DecodeRequest, decode
from dimml.status import OK

#: Name of an additional track; its only time is the process's peak resident size in bytes.
MEASURED = "peak_bytes"


def measured_decode(request: DecodeRequest) -> Decoded:
    """``dimml.media.decode`` and the peak resident size."""
    decoded = decode(request)
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    decoded.tracks[MEASURED] = DecodedTrack(OK, times_s=(float(peak_bytes),))
    return decoded
