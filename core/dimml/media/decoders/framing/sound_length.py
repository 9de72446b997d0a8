"""Whether the length that libsndfile takes from a sound file's header is that of the sound in it.

libsndfile believes the number of samples in a FLAC header, and the Xing frame or the first bit rate of an MP3. What it
cannot be trusted with is read by FFmpeg's demuxers, packet by packet.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import BinaryIO, Final

from dimml.media.decoders.file_type import HEAD_BYTES, FileType, id3_bytes
from dimml.media.decoders.framing.mpeg_audio import believed, count_frames, header_at, settling_frames, xing_frame

#: Of a FLAC's end, in which its last frame must begin, where its header does not say how long frames are.
_FLAC_TAIL_BYTES: Final = 2**16
#: Of a WAV whose block is one sample of every channel: PCM, float, A-law, mu-law, and the extensible form of these.
_PLAIN_FORMATS: Final = frozenset({1, 3, 6, 7, 0xFFFE})
#: Sizes from here on stand for one that was not known: the largest number of 31 bits, less a header.
_UNKNOWN_SIZES: Final = 0x7FFF_0000


@dataclass(frozen=True, slots=True)
class SoundLength:
    """``libsndfile``: whether its length holds. ``samples``: how many there are at most, if they were counted.

    ``promised_s``: what the header promises; None if it promises nothing. ``settling``: samples that libsndfile must
    decode after a seek before its sound is right.
    """

    libsndfile: bool = True
    samples: int | None = None
    promised_s: float | None = None
    settling: int = 0


def sound_length(file: BinaryIO, file_type: FileType) -> SoundLength:
    """Check the length in a sound file's header.

    Reads the file's ends, and all of an MP3 that has no usable Xing frame.
    """
    check = _CHECKS.get(file_type.demuxer)
    if check is None:
        return SoundLength()
    file.seek(0)
    head = file.read(HEAD_BYTES)
    begin = id3_bytes(head)
    if begin:
        file.seek(begin)
        head = file.read(HEAD_BYTES)
    return check(file, head, begin, file.seek(0, os.SEEK_END))


def _mp3(file: BinaryIO, head: bytes, begin: int, size: int) -> SoundLength:
    # Padding may follow the tag.
    first = max(0, head.find(b"\xff"))
    xing = xing_frame(head, first)
    if xing is not None and believed(xing, begin + first, size):
        smallest = xing.size // max(1, xing.frames) if xing.constant and xing.size else 0
        settling = settling_frames(xing.header, smallest) * xing.header.samples
        return SoundLength(promised_s=xing.samples / xing.header.rate_hz, settling=settling)
    count = count_frames(file, begin)
    if xing is None:
        header = header_at(head, first)
        settling = 0 if header is None else settling_frames(header, count.smallest) * header.samples
        return SoundLength(samples=count.samples, settling=settling)
    return SoundLength(libsndfile=False, promised_s=xing.samples / xing.header.rate_hz)


def _flac(file: BinaryIO, head: bytes, begin: int, size: int) -> SoundLength:
    """RFC 9639, sections 8.2 and 9.1."""
    if len(head) < 42 or head[:4] != b"fLaC" or head[4] & 0x7F != 0:
        return SoundLength()
    rate_hz = int.from_bytes(head[18:21]) >> 4
    samples = int.from_bytes(head[21:26]) & 0xFFFFFFFFF
    if samples == 0 or rate_hz == 0:
        return SoundLength(libsndfile=False)
    fixed_block, longest = int.from_bytes(head[8:10]), int.from_bytes(head[15:18])
    tail_bytes = 2 * longest or _FLAC_TAIL_BYTES
    file.seek(max(begin, size - tail_bytes))
    whole = _flac_ends_at(file.read(tail_bytes), samples, fixed_block)
    return SoundLength(libsndfile=whole, promised_s=samples / rate_hz)


def _flac_ends_at(tail: bytes, samples: int, fixed_block: int) -> bool:
    """Whether a frame begins in ``tail`` whose end is that of the promised samples."""
    position = len(tail)
    while (position := tail.rfind(b"\xff", 0, position)) >= 0:
        header = tail[position : position + 16]
        if len(header) < 6 or header[1] & 0xFE != 0xF8:
            continue
        number, after = _coded_number(header)
        size_code, rate_code = header[2] >> 4, header[2] & 15
        if number is None or size_code == 0:
            continue
        block, after = _block_size(header, size_code, after)
        after += {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
        begin = number if header[1] & 1 else number * fixed_block
        if begin + block == samples and after < len(header) and _crc8(header[:after]) == header[after]:
            return True
    return False


def _coded_number(header: bytes) -> tuple[int | None, int]:
    """Decode the frame's or sample's number, coded as UTF-8 is, and return where it ends."""
    first = header[4]
    if first < 0x80:
        return first, 5
    more = 8 - (first ^ 0xFF).bit_length() - 1
    if not 1 <= more <= 6 or 5 + more > len(header):
        return None, 0
    number = first & (0x3F >> more)
    for byte in header[5 : 5 + more]:
        number = number << 6 | byte & 0x3F
    return number, 5 + more


def _block_size(header: bytes, code: int, after: int) -> tuple[int, int]:
    if code == 6:
        return int.from_bytes(header[after : after + 1]) + 1, after + 1
    if code == 7:
        return int.from_bytes(header[after : after + 2]) + 1, after + 2
    return (192 if code == 1 else 144 << code if code < 6 else 1 << code), after


def _crc8(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 0x07) & 0xFF if crc & 0x80 else crc << 1
    return crc


def _wav(file: BinaryIO, head: bytes, begin: int, size: int) -> SoundLength:
    """Return the length that a data chunk promises if it ends after the file.

    It follows from its size and the rate of bytes, or, of compressed sound, from the samples that the fact chunk
    counts. Writers that cannot seek leave the size at the largest number.
    """
    del file, begin
    position, wide, fact = 12, 0, 0
    form, rate_hz, block_bytes = 0, 0, 0
    while position + 8 <= len(head):
        name, length = head[position : position + 4], struct.unpack_from("<I", head, position + 4)[0]
        if name == b"ds64" and position + 24 <= len(head):
            (wide,) = struct.unpack_from("<Q", head, position + 16)
        elif name == b"fmt " and position + 22 <= len(head):
            form, _, rate_hz, _, block_bytes = struct.unpack_from("<HHIIH", head, position + 8)
        elif name == b"fact" and position + 12 <= len(head):
            (fact,) = struct.unpack_from("<I", head, position + 8)
        elif name == b"data":
            length = wide if length == 0xFFFFFFFF else length
            if not size < position + 8 + length < _UNKNOWN_SIZES or rate_hz == 0 or block_bytes == 0:
                break
            samples = length // block_bytes if form in _PLAIN_FORMATS else fact
            return SoundLength(promised_s=samples / rate_hz or None)
        position += 8 + length + length % 2
    return SoundLength()


_Check = Callable[[BinaryIO, bytes, int, int], SoundLength]
_CHECKS: Final[Mapping[str, _Check]] = {"mp3": _mp3, "flac": _flac, "wav": _wav}
