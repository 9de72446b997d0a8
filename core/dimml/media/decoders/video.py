"""Rows of decoded pictures: chosen by presentation time, turned upright, cut to the region, resized."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Final, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
from av.video.reformatter import Interpolation

from dimml.errors import TooLargeError
from dimml.media.decoders.flow import flow_between
from dimml.media.decoders.streams.orientation import Matrix
from dimml.media.decoders.streams.tone_mapping import Transfer, has_wide_gamut, to_standard_range, transfer_of
from dimml.media.decoders.time_range import Window
from dimml.media.types import MediaLimits
from dimml.modality import Flow, Frames, Region

ByteArray = npt.NDArray[np.uint8]
_Pixel = TypeVar("_Pixel", np.uint8, np.uint16, np.float32)
_Level = TypeVar("_Level", np.uint8, np.uint16)

_MATRIX_BYTES: Final = 36
#: How much larger than the row a picture stays that is reduced while it is decoded. Measured on fine stripes: twice as
#: large gives errors of 1.3 of 255 in the mean, four times as large 0.35.
_ENOUGH: Final = 4
#: Without full chroma, swscale gives two neighbours of the small picture the same colour.
_BY_AREA: Final = Interpolation.AREA | Interpolation.FULL_CHR_H_INT
#: Times are sums of rounded numbers: two that are this close are equal.
EPSILON_S: Final = 1e-6


class Picture:
    """A decoded picture, converted to RGB once, and only if it is used: by the matrix and range that its stream states.

    All pictures of a stream share one ``converter`` (``av.video.reformatter.VideoReformatter``): to set one up takes
    four times as long as to convert a small picture.
    """

    def __init__(self, frame: Any, time_s: float, converter: Any, matrix: Matrix | None = None) -> None:
        """``matrix`` is the stream's display matrix, which a frame's own replaces."""
        self._frame = frame
        self._converter = converter
        self._matrix = matrix
        self.time_s = time_s

    @cached_property
    def rgb(self) -> ByteArray:
        """Upright RGB, ``[height, width, 3]``."""
        return np.asarray(self._upright("rgb24"), np.uint8)

    @cached_property
    def deep_rgb(self) -> npt.NDArray[np.uint16]:
        """The same of 16 bits: high dynamic range in 8 has steps that are seen."""
        return np.asarray(self._upright("rgb48le"), np.uint16)

    def prepared(self, modality: Frames | Flow) -> ByteArray:
        """Cut to the region of interest, resize, map high dynamic range to SDR: ``[height, width, 3]``."""
        transfer = self._transfer() if modality.tone_map else None
        if transfer is None:
            scaled = self._scaled(modality) if isinstance(modality, Frames) and modality.resize == "yuv_area" else None
            return prepared(self.rgb, modality) if scaled is None else scaled
        wide_gamut = has_wide_gamut(self._frame)
        return to_standard_range(prepared(self.deep_rgb, modality), transfer, wide_gamut=wide_gamut)

    def _transfer(self) -> Transfer | None:
        return transfer_of(self._frame)

    def _scaled(self, modality: Frames) -> ByteArray | None:
        """Convert and make smaller in one step, then cut to the region; None where it would have to be made larger."""
        matrix = self._display_matrix
        turned = is_turned(matrix)
        width, height, left, top = _whole_size(modality)
        across, down = (height, width) if turned else (width, height)
        if across > self._frame.width or down > self._frame.height:
            return None
        small = self._converter.reformat(
            self._frame, width=across, height=down, format="rgb24", interpolation=_BY_AREA, threads=1
        )
        whole = upright(small.to_ndarray(), matrix)
        return np.ascontiguousarray(whole[top : top + modality.height, left : left + modality.width])

    @property
    def _display_matrix(self) -> Matrix | None:
        own = display_matrix(self._frame)
        return self._matrix if own is None else own

    def _upright(self, pixels: str) -> Any:
        converted = self._converter.reformat(self._frame, format=pixels, threads=1)
        return upright(converted.to_ndarray(), self._display_matrix)


class StillPicture(Picture):
    """Picture of an image file: upright RGB of standard range from the start, at time 0."""

    def __init__(self, rgb: ByteArray) -> None:
        super().__init__(None, 0.0, None)
        self.__dict__["rgb"] = rgb

    def _transfer(self) -> Transfer | None:
        return None

    def _scaled(self, modality: Frames) -> None:
        return None


def display_matrix(frame: Any) -> Matrix | None:
    """Display matrix ``[3, 3]`` that a decoded frame carries, None without one."""
    try:
        side_data = frame.side_data
        # Most frames have none, and to find out by a key takes twenty times as long.
        matrix = side_data.get("DISPLAYMATRIX") if len(side_data) else None
    except ValueError:
        # Side data of a kind that this PyAV has no name for.
        return None
    if matrix is None or matrix.buffer_size != _MATRIX_BYTES:
        return None
    return np.frombuffer(bytes(matrix), dtype=np.int32).reshape(3, 3)


def upright(rgb: npt.NDArray[_Level], matrix: Matrix | None) -> npt.NDArray[_Level]:
    """Apply the rotation and reflection of a display matrix (ISO/IEC 14496-12, 6.2.2), as quarter turns; a view.

    The matrix sends a pixel (x, y) to (a·x + c·y, b·x + d·y), with a, b in its first and c, d in its second row.
    """
    if matrix is None:
        return rgb
    (a, b), (c, d) = matrix[:2, :2].tolist()
    if not is_turned(matrix):
        flip_x, flip_y = a < 0, d < 0
    else:
        rgb, flip_x, flip_y = rgb.transpose(1, 0, 2), c < 0, b < 0
    return rgb[:: -1 if flip_y else 1, :: -1 if flip_x else 1]


def is_turned(matrix: Matrix | None) -> bool:
    """Whether a display matrix exchanges width and height."""
    if matrix is None:
        return False
    (a, b), (c, d) = matrix[:2, :2].tolist()
    return bool(abs(a) + abs(d) < abs(b) + abs(c))


def _whole_size(modality: Frames) -> tuple[int, int, int, int]:
    """Width and height of an upright picture whose region has the modality's size, and the region's left and top."""
    region = modality.region
    if region is None:
        return modality.width, modality.height, 0, 0
    width = max(modality.width, round(modality.width / (region.right - region.left)))
    height = max(modality.height, round(modality.height / (region.bottom - region.top)))
    left, top = round(region.left * width), round(region.top * height)
    return width, height, min(left, width - modality.width), min(top, height - modality.height)


def region_of(picture: npt.NDArray[_Pixel], region: Region | None) -> npt.NDArray[_Pixel]:
    """Cut a picture to the region, at least one pixel: contiguous ``[height, width, channels]``. None: all of it."""
    if region is not None:
        height, width = picture.shape[:2]
        left, top = min(round(region.left * width), width - 1), min(round(region.top * height), height - 1)
        right, bottom = max(round(region.right * width), left + 1), max(round(region.bottom * height), top + 1)
        picture = picture[top:bottom, left:right]
    return np.ascontiguousarray(picture)


def prepared(rgb: npt.NDArray[_Level], modality: Frames | Flow) -> npt.NDArray[_Level]:
    """Cut to the region of interest and resize: ``[height, width, 3]`` of the modality."""
    rgb = region_of(rgb, modality.region)
    height, width = rgb.shape[:2]
    if (height, width) == (modality.height, modality.width):
        return rgb
    shrinks = height >= modality.height and width >= modality.width
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(rgb, (modality.width, modality.height), interpolation=interpolation), rgb.dtype)


class PictureRow:
    """Row of one modality while it is filled: pictures come in order, each shown until the next one begins."""

    def __init__(self, modality: Frames | Flow, window: Window) -> None:
        self.modality = modality
        self.array = np.zeros(modality.shape, np.uint8)
        self.times_s: list[float] = []
        step_s = window.seconds / modality.frames
        #: Times of the frames, in seconds from the start of the recording.
        self.wanted_s = [window.start_s + (i + 0.5) * step_s for i in range(modality.frames)]
        self._last: Picture | None = None

    @property
    def done(self) -> bool:
        """Whether every frame of the row is there."""
        return len(self.times_s) == len(self.wanted_s)

    @property
    def first_wanted_s(self) -> float:
        """Time of the first frame, in seconds from the start of the recording."""
        return self.wanted_s[0]

    @property
    def last_wanted_s(self) -> float:
        """Time of the last frame, in seconds from the start of the recording."""
        return self.wanted_s[-1]

    def show(self, picture: Picture, following: Picture | None) -> None:
        """Show ``picture`` until ``following`` begins, None: to the end. The first one is shown before its time too."""
        while not self.done and (following is None or self.wanted_s[len(self.times_s)] < following.time_s - EPSILON_S):
            index = len(self.times_s)
            if picture is self._last:
                self.array[index] = self.array[index - 1]
            else:
                self.array[index] = self._pixels(picture, following)
            self._last = picture
            self.times_s.append(picture.time_s)

    def _pixels(self, picture: Picture, following: Picture | None) -> ByteArray:
        first = picture.prepared(self.modality)
        if isinstance(self.modality, Frames):
            return first
        # The last picture of a stream has no next one: it is at rest.
        second = first if following is None else following.prepared(self.modality)
        return flow_between(first, second, self.modality.bound_px)


def check_pixels(width: int, height: int, limits: MediaLimits) -> None:
    """Raise TooLargeError for a picture above ``max_pixels``."""
    if width * height > limits.max_pixels:
        raise TooLargeError(f"a picture of {width}x{height} has more pixels than max_pixels = {limits.max_pixels}")


def enough_pixels(modalities: Sequence[Frames | Flow]) -> tuple[int, int]:
    """Compute the size from which reducing a picture is left to ``prepared``.

    Returns:
        Width and height in pixels of a whole picture whose regions still have four times each modality's size: what is
        reduced twice, the first time while it is decoded, is on average within a level of what is reduced once.
    """
    sizes = [(1.0, 1.0)]
    for modality in modalities:
        region = modality.region
        across, down = (1.0, 1.0) if region is None else (region.right - region.left, region.bottom - region.top)
        sizes.append((_ENOUGH * modality.width / across, _ENOUGH * modality.height / down))
    return math.ceil(max(width for width, _ in sizes)), math.ceil(max(height for _, height in sizes))


def rows_of_one_picture(picture: Picture, modalities: Sequence[Frames | Flow]) -> list[PictureRow]:
    """Make rows that show ``picture`` all the time."""
    rows = [PictureRow(modality, Window(0.0, 0.0)) for modality in modalities]
    for row in rows:
        row.show(picture, None)
    return rows
