"""Decoding that goes wrong on command, in place of a decoder with a fault."""

from __future__ import annotations

import os
import signal
import time

from dimml.media import Decoded, DecodeRequest, decode
from dimml.modality import Frames

#: A clip that holds one of these (see ``tiny_media.marked``)…
PICTURE_CRASHES = b"dimml-test: picture crashes"
PICTURE_HANGS = b"dimml-test: picture hangs"
SLOW = b"dimml-test: slow"
#: …and a slow one takes this long.
SLOW_S = 2.0


def faulty_decode(request: DecodeRequest) -> Decoded:
    """``dimml.media.decode``, but a marked clip crashes or hangs it where pictures are wanted, or slows it down."""
    content = b"".join(s if isinstance(s, bytes) else s.read_bytes() for s in request.sources.values())
    if any(isinstance(modality, Frames) for modality in request.modalities):
        if PICTURE_CRASHES in content:
            os.kill(os.getpid(), signal.SIGSEGV)
        if PICTURE_HANGS in content:
            time.sleep(3600)
    if SLOW in content:
        time.sleep(SLOW_S)
    return decode(request)
