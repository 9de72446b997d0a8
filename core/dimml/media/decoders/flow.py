"""Optical flow between two pictures, as bytes."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

ByteArray = npt.NDArray[np.uint8]

#: OpenCV's DIS refuses pictures smaller than its patches; smaller ones are padded.
_MIN_SIDE_PX: Final = 16


def flow_between(first: ByteArray, second: ByteArray, bound_px: float) -> ByteArray:
    """Compute DIS flow from one RGB picture ``[height, width, 3]`` to another: ``[height, width, 2]`` UINT8.

    The same object given twice is at rest (128).
    Method: Kroeger et al., "Fast Optical Flow using Dense Inverse Search", ECCV 2016.
    """
    if first is second:
        return np.full((*first.shape[:2], 2), 128, np.uint8)
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in (first, second)]
    height, width = first.shape[:2]
    down, right = max(0, _MIN_SIDE_PX - height), max(0, _MIN_SIDE_PX - width)
    if down or right:
        grey = [cv2.copyMakeBorder(picture, 0, down, 0, right, cv2.BORDER_REPLICATE) for picture in grey]
    displacement = dis.calc(grey[0], grey[1], np.zeros((*grey[0].shape, 2), np.float32))[:height, :width]
    return quantised(np.asarray(displacement, np.float32), bound_px)


def quantised(displacement: npt.NDArray[np.float32], bound_px: float) -> ByteArray:
    """Quantise displacements in pixels to bytes; 128 is rest (docs/adr/0002).

    ``round(clip(d, ±bound_px)·127/bound_px) + 128``.
    """
    scaled = np.clip(displacement, -bound_px, bound_px) * (127.0 / bound_px)
    return np.asarray(np.rint(scaled) + 128, np.uint8)
