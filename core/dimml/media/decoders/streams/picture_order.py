"""Pictures of MPEG-1 and MPEG-2 whose stamps are those of decoding.

A B-picture is shown before the one that it is decoded after, so stamps of presentation go back. ASF has one
stamp for a packet, and FFmpeg writes the time of decoding there; how much later a picture is shown is not in the file.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice, pairwise
from typing import Any, Final

#: Codecs whose packets are looked at.
CODECS: Final = frozenset({"mpeg1video", "mpeg2video"})
#: Packets from the start that are looked at. Encoders put B-pictures between the first keyframe and the next.
_PACKETS: Final = 250
#: Start code of a picture header: a reference of 10 bits follows, then the type in 3 (ISO/IEC 13818-2, 6.2.3).
_PICTURE: Final = b"\0\0\1\0"
_B: Final = 3


def stamped_by_decoding(packets: Iterable[Any]) -> bool:
    """Whether packets of one track hold B-pictures, and their stamps never go back."""
    found = [packet for packet in islice(packets, _PACKETS) if packet.size and packet.pts is not None]
    forward = all(first.pts <= second.pts for first, second in pairwise(found))
    return forward and any(_picture_type(bytes(packet)) == _B for packet in found)


def _picture_type(packet: bytes) -> int | None:
    at = packet.find(_PICTURE) + len(_PICTURE) + 1
    return packet[at] >> 3 & 7 if len(_PICTURE) < at < len(packet) else None
