"""Headers of MPEG audio frames (ISO/IEC 11172-3, 13818-3): how many are there, and what a Xing frame promises."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

HEADER_BYTES: Final = 4
#: Longest frame there is: layer II at 384 kbit/s and 32 kHz, padded.
MAX_FRAME_BYTES: Final = 1729
#: Samples per channel in the longest frame.
MAX_FRAME_SAMPLES: Final = 1152
#: Bytes after the sound that no frame count includes: an ID3v1 tag.
_TRAILER_BYTES: Final = 128
#: Frames before one that may hold bytes of it; FFmpeg and libmpg123 hold no more.
MAX_SETTLING_FRAMES: Final = 10
_CHUNK_BYTES: Final = 2**20
#: Place of the checksum after the word Xing or Info, in the tag that LAME and FFmpeg write.
_CHECKSUM_AT: Final = 154
_FFMPEG_CHECKED_BYTES: Final = 190
#: Bytes that are no frame, beyond which counting stops.
_MAX_SKIPPED_BYTES: Final = 2**18

_RATES_HZ: Final = (44_100, 48_000, 32_000)
#: kbit/s by bit rate index from 1, for MPEG-1 layers I, II and III, then MPEG-2 layer I, and layers II and III.
_KBITS: Final = (
    (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
)


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """One frame: its size in bytes, samples per channel, rate in Hz, and whether it is MPEG-1."""

    size: int
    samples: int
    rate_hz: int
    mpeg1: bool


@functools.lru_cache(maxsize=4096)
def parse_header(second: int, third: int) -> FrameHeader | None:
    """Parse a frame header by its second and third byte (the first is 0xFF); None if no such frame exists.

    Frames of free format, whose size no header states, count as none.
    """
    if second & 0xE0 != 0xE0:
        return None
    version, layer = second >> 3 & 3, 4 - (second >> 1 & 3)
    bit_rate, rate, padding = third >> 4, third >> 2 & 3, third >> 1 & 1
    if version == 1 or layer == 4 or bit_rate in {0, 15} or rate == 3:
        return None
    mpeg1 = version == 3
    rate_hz = _RATES_HZ[rate] >> {3: 0, 2: 1, 0: 2}[version]
    row = layer - 1 if mpeg1 else (3 if layer == 1 else 4)
    bits = _KBITS[row][bit_rate - 1] * 1000
    if layer == 1:
        return FrameHeader((12 * bits // rate_hz + padding) * 4, 384, rate_hz, mpeg1)
    samples = 1152 if layer == 2 or mpeg1 else 576
    return FrameHeader(samples // 8 * bits // rate_hz + padding, samples, rate_hz, mpeg1)


def header_at(data: bytes, position: int) -> FrameHeader | None:
    """Parse the header at ``position``; None if there is none, or ``data`` ends within it."""
    if position + HEADER_BYTES > len(data) or data[position] != 0xFF:
        return None
    return parse_header(data[position + 1], data[position + 2])


def chained(data: bytes, position: int, frames: int) -> bool:
    """Whether ``frames`` headers of one stream follow each other from ``position`` on, at the distance they state."""
    first = header_at(data, position)
    version_and_layer = data[position + 1] & 0x1E if first else 0
    for _ in range(frames):
        header = header_at(data, position)
        if first is None or header is None or header.rate_hz != first.rate_hz:
            return False
        if data[position + 1] & 0x1E != version_and_layer:
            return False
        position += header.size
    return True


@dataclass(frozen=True, slots=True)
class XingFrame:
    """What a Xing or Info frame promises of the frames that follow it: ``frames``, and bytes, itself included."""

    frames: int
    size: int | None
    #: Samples per channel that an encoder says it added before and after the sound.
    added: int
    #: Whether a checksum of LAME's covers these numbers, and is right.
    checked: bool
    #: Whether the bit rate is constant.
    constant: bool
    header: FrameHeader

    @property
    def samples(self) -> int:
        """Promised samples per channel."""
        return max(0, self.frames * self.header.samples - self.added)


def xing_frame(data: bytes, position: int) -> XingFrame | None:
    """Parse a Xing or Info frame at ``position``; None if there is none, or it states no number of frames."""
    header = header_at(data, position)
    if header is None:
        return None
    mono = data[position + 3] >> 6 == 3
    at = position + HEADER_BYTES + ((17 if mono else 32) if header.mpeg1 else (9 if mono else 17))
    if data[at : at + 4] not in {b"Xing", b"Info"}:
        return None
    flags = int.from_bytes(data[at + 4 : at + 8])
    if not flags & 1:
        return None
    frames = int.from_bytes(data[at + 8 : at + 12])
    size = int.from_bytes(data[at + 12 : at + 16]) if flags & 2 else None
    # After the fields: a table of contents, a quality, and LAME's tag with 12 + 12 bits of delay and padding.
    tag = at + 12 + (4 if flags & 2 else 0) + (100 if flags & 4 else 0) + (4 if flags & 8 else 0)
    delays = int.from_bytes(data[tag + 21 : tag + 24])
    added = (delays >> 12) + (delays & 0xFFF) if data[tag : tag + 4] in {b"LAME", b"Lavf", b"Lavc"} else 0
    checked = _checked(data[position : position + header.size], at - position + _CHECKSUM_AT)
    return XingFrame(frames, size, added, checked, data[at : at + 4] == b"Info", header)


def _checked(frame: bytes, field: int) -> bool:
    """Whether the checksum at ``field`` is right.

    LAME's covers all before it; FFmpeg's always 190 bytes, itself and what the frame lacks of them as zeros.
    """
    if len(frame) < field + 2:
        return False
    wanted = int.from_bytes(frame[field : field + 2])
    before, after = frame[:field], frame[field + 2 : _FFMPEG_CHECKED_BYTES]
    if _crc16(before) == wanted:
        return True
    return _crc16((before + b"\0\0" + after).ljust(_FFMPEG_CHECKED_BYTES, b"\0")) == wanted


def _crc16(data: bytes) -> int:
    """CRC-16 (polynomial 0x8005, bits reversed, from 0) as in LAME's tag."""
    table = _crc16_table()
    crc = 0
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
    return crc


@functools.cache
def _crc16_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ 0xA001 if crc & 1 else crc >> 1
        table.append(crc)
    return tuple(table)


@dataclass(frozen=True, slots=True)
class FrameCount:
    """Frames that a file holds: samples per channel, and seconds, which differ in rate where the stream does."""

    samples: int
    seconds: float
    #: Of the first frame.
    samples_per_frame: int
    #: Bytes of the smallest frame, 0 without any.
    smallest: int


def count_frames(file: BinaryIO, begin: int) -> FrameCount:
    """Count the frames from byte ``begin`` on by their headers, in one pass.

    What is no frame is passed over; after 256 KiB of it, the count ends.
    """
    samples, seconds, first, smallest = 0, 0.0, 0, MAX_FRAME_BYTES
    for header in _headers(file, begin):
        first = first or header.samples
        samples += header.samples
        seconds += header.samples / header.rate_hz
        smallest = min(smallest, header.size)
    return FrameCount(samples, seconds, first, smallest if first else 0)


def settling_frames(header: FrameHeader, smallest: int) -> int:
    """Count the frames before one that may hold bytes of it (ISO/IEC 11172-3, 2.4.2.7, ``main_data_begin``), and one.

    ``smallest``: bytes of the smallest frame, 0 if they are not known.
    """
    reservoir, beside_sound = (511, HEADER_BYTES + 32) if header.mpeg1 else (255, HEADER_BYTES + 17)
    if smallest <= beside_sound:
        return MAX_SETTLING_FRAMES
    return min(MAX_SETTLING_FRAMES, -(-reservoir // (smallest - beside_sound)) + 1)


def _headers(file: BinaryIO, begin: int) -> Iterator[FrameHeader]:
    file.seek(begin)
    data, position, ended, skipped = b"", 0, False, 0
    while skipped <= _MAX_SKIPPED_BYTES:
        if len(data) - position < 2 * MAX_FRAME_BYTES + HEADER_BYTES and not ended:
            read = file.read(_CHUNK_BYTES)
            data, position, ended = data[position:] + read, 0, not read
        header = header_at(data, position)
        if header is not None:
            yield header
            position += header.size
            continue
        if position >= len(data) - HEADER_BYTES:
            if ended:
                return
            continue
        # Something else: go on where two frames follow each other, or the last one ends the file.
        following = _next_frame(data, position + 1)
        skipped += following - position
        position = following


def _next_frame(data: bytes, position: int) -> int:
    """The next position where a frame may begin, or one near the end of ``data``."""
    last = len(data) - HEADER_BYTES
    while 0 <= position < last:
        position = data.find(b"\xff", position, last)
        if position < 0:
            return last
        header = header_at(data, position)
        if header is not None and (position + header.size >= last or chained(data, position, 2)):
            return position
        position += 1
    return last


def believed(xing: XingFrame, position: int, size: int) -> bool:
    """Whether a Xing frame at ``position`` describes all of a file of ``size`` bytes.

    Without the number of bytes nothing says whether the file was joined or cut, and without the checksum nothing says
    whether the number of frames belongs to them.
    """
    return xing.checked and xing.size is not None and 0 <= size - position - xing.size <= _TRAILER_BYTES
