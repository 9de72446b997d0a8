"""Image files as clips of one picture."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Mapping
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt
import pi_heif
from PIL import (
    AvifImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    ImageOps,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from dimml.errors import TooLargeError
from dimml.media.decoders.images.image_size import image_size
from dimml.media.types import MediaLimits
from dimml.modality import Ground

ByteArray = npt.NDArray[np.uint8]

#: Formats that decoder version 1 read, by OpenCV and without regard to alpha.
_HISTORIC: Final = frozenset({"png", "webp"})
#: Depths of RGB in TIFF that Pillow does not read and OpenCV does, with its flags: 12 bits it does not convert to 8.
_DEEP_RGB: Final[dict[tuple[int, ...], int]] = {
    (12, 12, 12): cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH,
    (16, 16, 16): cv2.IMREAD_COLOR,
}
_STRIP_ROWS: Final = 256
_REDUCED: Final = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}
#: Formats that OpenCV does not read everywhere, or whose alpha or rotation it drops. A class of Pillow reads its own
#: format and no other.
_PILLOW: Final[Mapping[str, Callable[[io.BytesIO], ImageFile.ImageFile]]] = {
    "png": PngImagePlugin.PngImageFile,
    "webp": WebPImagePlugin.WebPImageFile,
    "gif": GifImagePlugin.GifImageFile,
    "tiff": TiffImagePlugin.TiffImageFile,
    "avif": AvifImagePlugin.AvifImageFile,
}


def decode_image(
    data: bytes,
    image_format: str,
    limits: MediaLimits,
    ground: Ground | None = None,
    enough: tuple[int, int] | None = None,
) -> ByteArray | None:
    """Decode the first picture of an image file, upright.

    The size is read from the header first: a few bytes can promise a picture of gigabytes.

    Args:
        data: The whole file.
        image_format: Name of its format, as ``FileType.demuxer``.
        limits: ``max_image_pixels`` is the largest picture that is decoded. A JPEG above ``max_pixels`` may be decoded
            at half, a quarter or an eighth of its size, which saves memory and time.
        ground: Colour on which a transparent picture is composited; None for the colours beneath its alpha.
        enough: Width and height in pixels that a reduced picture keeps at the least; None to decode in full.

    Returns:
        RGB, UINT8 ``[height, width, 3]``, rotation and reflection applied once; None if it does not decode.

    Raises:
        TooLargeError: The picture has more pixels than ``max_image_pixels``.
        MemoryError: Decoding asked for more memory than there is.
    """
    if image_format == "heic":
        return _by_libheif(data, limits, ground)
    try:
        size = image_size(data, image_format)
    except (struct.error, IndexError):
        return None
    if size is not None:
        if min(size) < 1:
            return None
        _check_size(size, limits)
    elif image_format not in _PILLOW:
        return None
    if image_format in _PILLOW and not (ground is None and image_format in _HISTORIC):
        return _by_pillow(data, image_format, limits, ground)
    factor = 1
    if image_format == "jpeg" and size is not None and size[0] * size[1] > limits.max_pixels:
        factor = reduction(size, enough)
    return _by_opencv(data, _REDUCED.get(factor, cv2.IMREAD_COLOR))


def reduction(size: tuple[int, int], enough: tuple[int, int] | None) -> int:
    """Choose by how much a JPEG is reduced while it is decoded.

    Args:
        size: Width and height in pixels, before or after rotation: the smaller side counts.
        enough: Width and height in pixels that must be left at the least; None for all.

    Returns:
        1, 2, 4 or 8.
    """
    if enough is None:
        return 1
    return next((factor for factor in (8, 4, 2) if min(size) >= factor * max(enough)), 1)


def _by_opencv(data: bytes, flags: int) -> ByteArray | None:
    """Decode by OpenCV, which applies EXIF orientation; of 16 bits the upper 8."""
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError from error
        return None
    if bgr is None:
        return None
    if bgr.dtype == np.uint16:
        np.right_shift(bgr, 8, out=bgr)
    return np.asarray(cv2.cvtColor(np.asarray(bgr, np.uint8), cv2.COLOR_BGR2RGB), np.uint8)


def _by_pillow(data: bytes, image_format: str, limits: MediaLimits, ground: Ground | None) -> ByteArray | None:
    """Decode by the one class of Pillow for this format, and apply EXIF orientation or the file's own rotation."""
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    try:
        with _PILLOW[image_format](io.BytesIO(data)) as image:
            # What the plug-in took from the header may differ from what was read of it before.
            _check_size(image.size, limits)
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return flatten(_from_12_bits(image) if _tiff_depth(data, image_format) == (12,) else image, ground)
    except (MemoryError, TooLargeError):
        raise
    except Exception:
        # Pillow documents no set of errors for damaged files: SyntaxError, struct.error and TypeError are among them.
        flags = _DEEP_RGB.get(_tiff_depth(data, image_format))
        return None if flags is None else _by_opencv(data, flags)


def _tiff_depth(data: bytes, image_format: str) -> tuple[int, ...]:
    """Read the bits of each channel of a TIFF; empty for other formats, and where none are stated."""
    if image_format != "tiff":
        return ()
    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(data[:8])
        file = io.BytesIO(data)
        file.seek(tags.next)
        tags.load(file)
        return tuple(tags.get(TiffImagePlugin.BITSPERSAMPLE, ()))
    except Exception:
        return ()


def _from_12_bits(image: Image.Image) -> Image.Image:
    """Stretch grey of 12 bits, which Pillow puts into 16 as it is, to all of them."""
    values: npt.NDArray[np.uint16] = np.asarray(image).astype(np.uint16)
    return Image.fromarray(values << 4 | values >> 8)


def _by_libheif(data: bytes, limits: MediaLimits, ground: Ground | None) -> ByteArray | None:
    """Decode the primary picture of a HEIC file, its tiles put together and its own rotation applied by libheif.

    EXIF orientation does not count in HEIC (ISO/IEC 23008-12, annex A).
    """
    options = pi_heif.options
    options.DECODE_THREADS = 1
    options.THUMBNAILS = options.DEPTH_IMAGES = options.AUX_IMAGES = False
    try:
        heif = pi_heif.open_heif(io.BytesIO(data))
        primary = heif[heif.primary_index]
        _check_size(primary.size, limits)
        pixels = primary.data
        return flatten(Image.frombuffer(primary.mode, primary.size, pixels, "raw", primary.mode, 0, 1), ground)
    except (MemoryError, TooLargeError):
        raise
    except Exception:
        # Any of libheif's errors, as EOFError, ValueError, RuntimeError or SyntaxError.
        return None


def flatten(image: Image.Image, ground: Ground | None) -> ByteArray | None:
    """Convert a decoded picture to RGB, on a ground where it is transparent.

    Args:
        image: Picture of any of Pillow's modes.
        ground: RGB; None for the colours beneath alpha.

    Returns:
        UINT8 ``[height, width, 3]``; None for pixels without a known scale (32-bit integers, floats).
    """
    if image.mode in {"I", "F"}:
        return None
    rgb = np.empty((image.height, image.width, 3), np.uint8)
    # Conversions copy: of a strip at a time, they fit into a worker's memory beside a large picture.
    for top in range(0, image.height, _STRIP_ROWS):
        bottom = min(top + _STRIP_ROWS, image.height)
        rgb[top:bottom] = np.asarray(_flat_strip(image.crop((0, top, image.width, bottom)), ground))
    return rgb


def _flat_strip(strip: Image.Image, ground: Ground | None) -> Image.Image:
    if strip.mode.startswith("I;16"):
        strip = _of_16_bits(strip)
    if not strip.has_transparency_data:
        return strip.convert("RGB")
    transparent = strip.convert("RGBA")
    if ground is None:
        return transparent.convert("RGB")
    shown = Image.new("RGB", strip.size, ground)
    shown.paste(transparent, mask=transparent.getchannel("A"))
    return shown


def _of_16_bits(image: Image.Image) -> Image.Image:
    """Convert 16-bit grey to 8 bits, with alpha where one value stands for transparent; Pillow would clip it."""
    values: npt.NDArray[Any] = np.asarray(image)
    grey = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    transparent = image.info.get("transparency")
    if transparent is None:
        return Image.fromarray(grey)
    return Image.fromarray(np.dstack([grey, np.where(values == transparent, 0, 255).astype(np.uint8)]))


def _check_size(size: tuple[int, int], limits: MediaLimits) -> None:
    width, height = size
    if width * height > limits.max_image_pixels:
        raise TooLargeError(
            f"a picture of {width}x{height} has more pixels than max_image_pixels = {limits.max_image_pixels}; "
            "send a smaller one"
        )
