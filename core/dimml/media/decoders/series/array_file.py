"""A series as a NumPy array file (``.npy``)."""

from __future__ import annotations

import math
import re
import struct
from typing import BinaryIO, Final, Literal

import numpy as np
import numpy.typing as npt

from dimml.media.decoders.series.series_file import MOST_CHANNELS, SeriesFileError, check_values

MAGIC: Final = b"\x93NUMPY"
_VERSIONS: Final = {b"\x01\x00": "<H", b"\x02\x00": "<I"}
_MAX_HEADER_BYTES: Final = 4096
#: What numpy.save writes, a Python literal (NEP 1); read as text, since a hostile one is not worth parsing. Objects,
#: which are pickles, and structures are not among the types.
_HEADER: Final = re.compile(
    rb"\{'descr': '([<>|=][fiu][1248])', 'fortran_order': (True|False), 'shape': "
    rb"\((\d{1,12}),(?: (\d{1,12}))?\), \}\s*"
)


class ArrayFile:
    """An array ``[samples, channels]`` or ``[channels, samples]``, or ``[samples]`` of one channel; numbers only.

    Only the samples that are asked for are read. What the header says is held against the size of the file before
    anything is allocated.
    """

    rate_hz: float | None = None
    times_s: npt.NDArray[np.float64] | None = None
    names: tuple[str, ...] | None = None

    def __init__(self, file: BinaryIO, size: int, axes: Literal["time_channels", "channels_time"]) -> None:
        """Raises SeriesFileError if the file is no such array, or ends before its last sample."""
        file.seek(len(MAGIC))
        width = _VERSIONS.get(file.read(2))
        if width is None:
            raise SeriesFileError("an .npy file of another version than 1.0 and 2.0")
        length = file.read(struct.calcsize(width))
        if len(length) < struct.calcsize(width):
            raise SeriesFileError("an .npy file that is cut off in its header")
        (header_bytes,) = struct.unpack(width, length)
        header = _HEADER.fullmatch(file.read(min(header_bytes, _MAX_HEADER_BYTES)))
        if header is None:
            raise SeriesFileError("an .npy file that is no array of numbers with one or two axes")
        try:
            self._dtype = np.dtype(header[1].decode())
        except TypeError:
            raise SeriesFileError(f"an .npy file of unknown numbers, {header[1].decode()}") from None
        shape = [int(number) for number in header.groups()[2:] if number is not None]
        samples_first = axes == "time_channels" or len(shape) == 1
        if len(shape) == 1:
            shape = [*shape, 1]
        self.samples, self.channels = shape if samples_first else shape[::-1]
        if self.channels > MOST_CHANNELS:
            other = "channels_time" if samples_first else "time_channels"
            raise SeriesFileError(
                f"an array of {self.channels} channels, of which {MOST_CHANNELS} are read; "
                f"with its axes the other way round, set axes: {other}"
            )
        self._begin = len(MAGIC) + 2 + len(length) + header_bytes
        if math.prod(shape) * self._dtype.itemsize > size - self._begin:
            raise SeriesFileError(f"an array of shape {shape} that the file is too short for")
        # Whether the values of one moment lie side by side.
        self._by_time = samples_first != (header[2] == b"True") or self.channels == 1
        self._file = file

    def read(self, begin: int, end: int) -> npt.NDArray[np.float64]:
        """Read samples ``begin`` to ``end``, ``[samples, channels]``."""
        count = max(0, end - begin)
        check_values(count * self.channels)
        if self._by_time:
            return self._values(begin * self.channels, count * self.channels).reshape(count, self.channels)
        columns = [self._values(channel * self.samples + begin, count) for channel in range(self.channels)]
        return np.stack(columns, axis=1) if columns else np.zeros((count, 0))

    def _values(self, first: int, count: int) -> npt.NDArray[np.float64]:
        self._file.seek(self._begin + first * self._dtype.itemsize)
        data = self._file.read(count * self._dtype.itemsize)
        if len(data) < count * self._dtype.itemsize:
            raise SeriesFileError("an array that the file is too short for")
        return np.frombuffer(data, self._dtype).astype(np.float64)
