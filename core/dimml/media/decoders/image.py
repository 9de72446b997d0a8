"""Image files as one-frame clips."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import numpy.typing as npt

from dimml.media.decoders.video import check_pixels
from dimml.media.types import MediaLimits

#: JPEG markers that begin a frame header: SOF0 to SOF15 without DHT, JPG and DAC.
_JPEG_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def decode_image(data: bytes, image_format: str, limits: MediaLimits) -> npt.NDArray[np.uint8] | None:
    """Upright RGB ``[height, width, 3]``, EXIF orientation applied; None where it does not decode.

    The size is read from the header first: a few bytes can promise a picture of gigabytes.
    Raises TooLargeError above ``max_pixels``, and MemoryError.
    """
    try:
        size = image_size(data, image_format)
    except (struct.error, IndexError):
        size = None
    if size is None or min(size) < 1:
        return None
    check_pixels(*size, limits)
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError from error
        return None
    return None if bgr is None else np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def image_size(data: bytes, image_format: str) -> tuple[int, int] | None:
    """Width and height that a PNG, JPEG, WebP or BMP header states. Raises struct.error or IndexError if cut off."""
    if image_format == "png":
        width, height = struct.unpack_from(">II", data, 16)
        return width, height
    if image_format == "bmp":
        # The oldest header, of 12 bytes, has sizes of 16 bits.
        (header_bytes,) = struct.unpack_from("<I", data, 14)
        width, height = struct.unpack_from("<HH" if header_bytes == 12 else "<ii", data, 18)
        return abs(width), abs(height)
    if image_format == "webp":
        return _webp_size(data)
    return _jpeg_size(data)


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
