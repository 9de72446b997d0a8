"""Streams cut out of a longer one: MPEG audio, ADTS or a transport stream that begins inside a frame, or after zeros.

FFmpeg's demuxers find the first whole frame by themselves; this only recognises such files, by frames that follow each
other at the distance that their headers state.
"""

from __future__ import annotations

from typing import BinaryIO, Final, Literal

from dimml.media.decoders.framing.mpeg_audio import MAX_FRAME_BYTES, chained
from dimml.media.decoders.framing.transport_stream import STEPS, carries_content, packets_from

#: Zeros that may lie before the first frame. FFmpeg looks as far in an MP3 and in a transport stream.
RESYNC_BYTES: Final = 2**16 - 2**13
#: Of one kind, in a row: chance makes as many in less than one of 10**12 files.
_FRAMES: Final = 5
_MAX_ADTS_BYTES: Final = 2**13
_ADTS_HEADER_BYTES: Final = 7
_TS_PACKETS: Final = 5
#: Other formats may hold such frames uncompressed; none of those begins so. Archives, documents, texts, and the
#: containers of sound that are read as themselves or not at all.
_OTHERS: Final = (
    b"PK", b"Rar!", b"%PDF", b"FORM", b"RIF", b"caff", b"MThd", b"#", b"<", b"{", b"ffconcat", b"v=0", b"[",
    b"\x00\x00\x01", b"\x30\x26\xb2\x75", b"\x06\x0e\x2b\x34", b"\x7fELF", b"MZ", b".snd", b"Obj", b"SQLite", b"GIF8",
    b"II*\x00", b"MM\x00*", b"wvpk", b"NIST", b"Creative", b"#!AMR",
)  # fmt: skip

Demuxer = Literal["mp3", "aac", "mpegts"]


def find_stream(file: BinaryIO) -> Demuxer | None:
    """The demuxer of a file that begins with zeros, with the rest of one frame, or with both in this order.

    Zeros: up to ``RESYNC_BYTES``; the rest: shorter than the longest frame of its kind.
    """
    file.seek(0)
    data = file.read(RESYNC_BYTES + _MAX_ADTS_BYTES * (_FRAMES + 2))
    # All tails of a frame are tried that begin where the zeros end, or at the file's first byte.
    zeros = len(data) - len(data.lstrip(b"\0"))
    if zeros > RESYNC_BYTES or data.startswith(_OTHERS) or data[257:262] == b"ustar":
        return None
    for step in STEPS:
        if _transport_stream(file, data, zeros, step):
            return "mpegts"
    position = data.find(b"\xff", zeros)
    while 0 <= position < zeros + _MAX_ADTS_BYTES:
        if _adts_chained(data, position):
            return "aac"
        if position < zeros + MAX_FRAME_BYTES and chained(data, position, _FRAMES):
            return "mp3"
        position = data.find(b"\xff", position + 1)
    return None


def _transport_stream(file: BinaryIO, data: bytes, begin: int, step: int) -> bool:
    """Whether packets lie ``step`` bytes apart, none in error or without any content."""
    return any(
        packets_from(data, first, step, _TS_PACKETS, faults=False) and carries_content(file, first, step)
        for first in range(begin, begin + step)
    )


def _adts_chained(data: bytes, position: int) -> bool:
    """Whether ADTS headers (ISO/IEC 14496-3, 1.A.2.2) with equal fixed parts follow each other from here on."""
    fixed = data[position + 1 : position + 3]
    for _ in range(_FRAMES):
        header = data[position : position + _ADTS_HEADER_BYTES]
        if len(header) < _ADTS_HEADER_BYTES or header[0] != 0xFF or header[1] & 0xF6 != 0xF0:
            return False
        size = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
        if header[1:3] != fixed or header[2] >> 2 & 15 > 12 or size <= _ADTS_HEADER_BYTES:
            return False
        position += size
    return True
