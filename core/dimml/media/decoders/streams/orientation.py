"""Display orientation in the data of an H.264 stream, as the display matrix that a container would hold.

A decoder gives such a matrix for the one picture whose packet holds the message; it applies to all that follow, until
the next one (Rec. ITU-T H.264, annex D), even where its repetition period says that it does not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.int32]

#: Types of network abstraction layer units (H.264, table 7-1): pictures, and supplemental enhancement information.
_SLICES: Final = frozenset({1, 2, 5})
_SEI: Final = 6
_DISPLAY_ORIENTATION: Final = 47
#: Messages stand before the picture; no further into a packet are they looked for.
_MOST_BYTES: Final = 16_384


def h264_header(stream: Any) -> bytes | None:
    """Header of an H.264 stream, may be empty; None for a stream of another codec."""
    codec = stream.codec_context
    return codec.extradata or b"" if codec is not None and codec.name == "h264" else None


def read_orientation(packet: memoryview, extradata: bytes) -> tuple[Matrix | None] | None:
    """Find the display orientation in a packet of H.264: its matrix ``[3, 3]``, in a tuple; None without a message.

    ``(None,)`` is a message that cancels an earlier one.
    """
    for unit in _units(packet[:_MOST_BYTES], extradata):
        kind = unit[0] & 0x1F if unit else 0
        if kind in _SLICES:
            return None
        if kind == _SEI:
            for message, payload in _messages(unit[1:].replace(b"\0\0\3", b"\0\0")):
                if message == _DISPLAY_ORIENTATION and payload:
                    return (_matrix(payload),)
    return None


def _units(packet: memoryview, extradata: bytes) -> Iterator[bytes]:
    """Units of a packet, each behind its length (``avcC``, ISO/IEC 14496-15) or behind a start code (Annex B)."""
    if extradata[:1] == b"\1" and len(extradata) > 4:
        prefix, position = (extradata[4] & 3) + 1, 0
        while position + prefix < len(packet):
            end = position + prefix + int.from_bytes(packet[position : position + prefix], "big")
            yield bytes(packet[position + prefix : end])
            position = end
        return
    data = bytes(packet)
    begin = data.find(b"\0\0\1")
    while begin >= 0:
        following = data.find(b"\0\0\1", begin + 3)
        yield data[begin + 3 : following if following >= 0 else len(data)]
        begin = following


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Types and payloads of SEI messages (H.264, 7.3.2.3.1)."""
    position = 0

    def coded() -> int:
        nonlocal position
        value = 0
        while position < len(data) and data[position] == 0xFF:
            value, position = value + 255, position + 1
        value += data[position] if position < len(data) else 0
        position += 1
        return value

    while position + 2 < len(data):
        kind, size = coded(), coded()
        yield kind, data[position : position + size]
        position += size


def _matrix(payload: bytes) -> Matrix | None:
    """Make the matrix of a message (H.264, annex D): flips first, then an anticlockwise turn; None if it cancels."""
    bits = int.from_bytes(payload[:3].ljust(3, b"\0"), "big")
    if bits >> 23 & 1:
        return None
    flip_x, flip_y = 1 - 2 * (bits >> 22 & 1), 1 - 2 * (bits >> 21 & 1)
    turn = 2 * math.pi * (bits >> 5 & 0xFFFF) / 65536
    cosine, sine = round(65536 * math.cos(turn)), round(65536 * math.sin(turn))
    return np.array(
        [[flip_x * cosine, -flip_x * sine, 0], [flip_y * sine, flip_y * cosine, 0], [0, 0, 1 << 30]], np.int32
    )
