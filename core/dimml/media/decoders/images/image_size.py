"""Width and height of a picture, read from its file's header before anything is decoded."""

from __future__ import annotations

import struct

#: JPEG markers that begin a frame header: SOF0 to SOF15 without DHT, JPG and DAC.
_JPEG_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def image_size(data: bytes, image_format: str) -> tuple[int, int] | None:
    """Read the size that the header of a PNG, JPEG, WebP, BMP or GIF states.

    Args:
        data: The file.
        image_format: Name of its format, as ``FileType.demuxer``.

    Returns:
        Width and height in pixels, before rotation; None if the header has none, or for other formats.

    Raises:
        struct.error: The header is cut off.
        IndexError: Likewise.
    """
    if image_format == "png":
        width, height = struct.unpack_from(">II", data, 16)
        return width, height
    if image_format == "bmp":
        # The oldest header, of 12 bytes, has sizes of 16 bits.
        (header_bytes,) = struct.unpack_from("<I", data, 14)
        width, height = struct.unpack_from("<HH" if header_bytes == 12 else "<ii", data, 18)
        return abs(width), abs(height)
    if image_format == "gif":
        width, height = struct.unpack_from("<HH", data, 6)
        return width, height
    if image_format == "webp":
        return _webp_size(data)
    return _jpeg_size(data) if image_format == "jpeg" else None


def _webp_size(data: bytes) -> tuple[int, int] | None:
    chunk = data[12:16]
    if chunk == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if chunk == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if chunk == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    position = 2
    while data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        if marker in _JPEG_FRAME_MARKERS:
            height, width = struct.unpack_from(">HH", data, position + 5)
            return width, height
        (length,) = struct.unpack_from(">H", data, position + 2)
        position += 2 + length
    return None
