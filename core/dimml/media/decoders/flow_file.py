"""Optical flow that was computed elsewhere, as a NumPy array file (``.npy``)."""

from __future__ import annotations

import math
import re
import struct
from typing import BinaryIO, Final

import cv2
import numpy as np
import numpy.typing as npt

from dimml.media.decoders.flow import quantised
from dimml.media.decoders.video import check_pixels, region_of
from dimml.media.types import MediaLimits
from dimml.modality import Flow

_MAGIC: Final = b"\x93NUMPY\x01\x00"
_MAX_HEADER_BYTES: Final = 1024
#: What numpy.save writes, a Python literal (NEP 1); read as text, since a hostile one is not worth parsing.
_HEADER: Final = re.compile(
    rb"\{'descr': '(<f[24])', 'fortran_order': False, 'shape': "
    rb"\(([1-9]\d{0,6}), ([1-9]\d{0,6}), ([1-9]\d{0,6}), 2\), \}\s*"
)


class FlowFile:
    """Displacements ``[frames, height, width, 2]`` from each picture to the next, written by ``numpy.save``.

    FP16 or FP32, in pixels of the file's own pictures; component 0 is to the right, 1 downwards.
    """

    def __init__(self, file: BinaryIO, limits: MediaLimits) -> None:
        """Raises ValueError if the file is no such array, TooLargeError for pictures above ``max_pixels``."""
        file.seek(0)
        begin = file.read(len(_MAGIC) + 2)
        if not begin.startswith(_MAGIC) or len(begin) < len(_MAGIC) + 2:
            raise ValueError("not an npy file of version 1.0")
        (header_bytes,) = struct.unpack_from("<H", begin, len(_MAGIC))
        header = _HEADER.fullmatch(file.read(min(header_bytes, _MAX_HEADER_BYTES)))
        if header is None:
            raise ValueError("not a flow of shape [frames, height, width, 2], little-endian FP16 or FP32")
        self._dtype = np.dtype(header[1].decode())
        self.frames, self.height, self.width = (int(number) for number in header.groups()[1:])
        check_pixels(self.width, self.height, limits)
        self._file = file
        self._begin = len(begin) + header_bytes

    def row(self, modality: Flow) -> npt.NDArray[np.uint8]:
        """Make the modality's row ``[frames, height, width, 2]`` of the frames at the centres of equal parts.

        Each is cut to the region, resized, and its displacements scaled alike. Raises ValueError if a frame is cut
        off or not finite.
        """
        row = np.empty(modality.shape, np.uint8)
        last: int | None = None
        for position in range(modality.frames):
            index = math.floor((position + 0.5) * self.frames / modality.frames)
            row[position] = row[position - 1] if index == last else self._resized(index, modality)
            last = index
        return row

    def _resized(self, index: int, modality: Flow) -> npt.NDArray[np.uint8]:
        displacement = region_of(self._read(index), modality.region)
        height, width = displacement.shape[:2]
        shrinks = height >= modality.height and width >= modality.width
        interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        resized = cv2.resize(displacement, (modality.width, modality.height), interpolation=interpolation)
        scale = np.array([modality.width / width, modality.height / height], np.float32)
        return quantised(np.asarray(resized, np.float32) * scale, modality.bound_px)

    def _read(self, index: int) -> npt.NDArray[np.float32]:
        values = self.height * self.width * 2
        self._file.seek(self._begin + index * values * self._dtype.itemsize)
        data = self._file.read(values * self._dtype.itemsize)
        # Raises ValueError if the file ends within the frame.
        displacement = np.frombuffer(data, self._dtype, count=values).astype(np.float32)
        if not np.isfinite(displacement).all():
            raise ValueError("a flow that is not finite")
        return displacement.reshape(self.height, self.width, 2)
