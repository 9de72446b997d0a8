"""A decode function for ``DecodePool`` that also says how much memory its process has ever used."""

from __future__ import annotations

import resource

from dimml.media import Decoded, DecodeRequest, decode


def measured_decode(request: DecodeRequest) -> Decoded:
    """``dimml.media.decode``, and the process's peak resident size in bytes as one more time of every track."""
    decoded = decode(request)
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    for track in decoded.tracks.values():
        track.times_s += (float(peak_bytes),)
    return decoded
