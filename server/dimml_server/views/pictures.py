"""Pictures for the eye: frames and optical flow as PNG, bounded in number and size.

Pillow is imported when the first one is drawn: most servers never do.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

#: Pictures of one modality, at most…
MAX_PICTURES: Final = 32
#: …and of their longer side in pixels…
MAX_SIDE: Final = 512
#: …and of all their pixels together: 32 of 224 x 224, 8 of 512 x 512.
MAX_PIXELS: Final = 2 * 2**20
#: Least effort of compression: it is a quarter of the time of zlib's default, for a tenth more bytes.
_COMPRESSION: Final = 1
#: Flow below it is shown as pale as it is: noise would be brought out otherwise.
_LEAST_SCALE_PX: Final = 1.0
_FLOW_STILL: Final = 128
_FLOW_RANGE: Final = 127.0


def shown_size(height: int, width: int) -> tuple[int, int]:
    """Return the height and width in which a picture is shown: its own, or made smaller to ``MAX_SIDE``."""
    share = min(1.0, MAX_SIDE / max(height, width))
    return max(1, round(height * share)), max(1, round(width * share))


def chosen(count: int, height: int, width: int) -> list[int]:
    """Choose which of ``count`` pictures of this size are shown, evenly, the first and the last among them."""
    shown = shown_size(height, width)
    most = max(1, min(MAX_PICTURES, count, MAX_PIXELS // (shown[0] * shown[1])))
    return [round(index * (count - 1) / max(1, most - 1)) for index in range(most)]


def frame_pngs(frames_FHWC: npt.NDArray[np.uint8], numbers: Sequence[int]) -> list[bytes]:
    """Write these of the RGB frames ``[frames, height, width, 3]`` as PNG."""
    return [_png(frames_FHWC[number]) for number in numbers]


def flow_scale_px(flow_FHWC: npt.NDArray[np.uint8], bound_px: float) -> float:
    """Return the displacement that is shown in full colour: the largest of all, at least one pixel."""
    offset = flow_FHWC.astype(np.float32) - _FLOW_STILL
    largest = float(np.sqrt((offset**2).sum(axis=-1)).max(initial=0.0)) * bound_px / _FLOW_RANGE
    return max(_LEAST_SCALE_PX, largest)


def flow_pngs(
    flow_FHWC: npt.NDArray[np.uint8], numbers: Sequence[int], bound_px: float, scale_px: float
) -> list[bytes]:
    """Draw these of the flows ``[frames, height, width, 2]`` on the colour wheel, as PNG.

    Hue is the direction (right red, down yellow-green, left cyan, up violet), saturation the distance as a share of
    ``scale_px``; white is rest.
    """
    return [_png(_wheel(flow_FHWC[number], bound_px, scale_px)) for number in numbers]


def grey_png(grey_HW: npt.NDArray[np.uint8]) -> bytes:
    """Write a grey picture ``[height, width]`` as PNG."""
    return _png(grey_HW)


def _wheel(flow_HWC: npt.NDArray[np.uint8], bound_px: float, scale_px: float) -> npt.NDArray[np.uint8]:
    right, down = np.moveaxis((flow_HWC.astype(np.float32) - _FLOW_STILL) * (bound_px / _FLOW_RANGE), -1, 0)
    saturation = np.minimum(1.0, np.hypot(right, down) / scale_px)
    sixth = np.arctan2(down, right) % (2.0 * np.pi) * (3.0 / np.pi)
    # HSV at full value: a channel falls by the saturation with its distance from its own place on the wheel.
    distance = np.abs((sixth[..., None] - np.array([0.0, 2.0, 4.0]) + 3.0) % 6.0 - 3.0)
    colour = 1.0 - saturation[..., None] * np.clip(distance - 1.0, 0.0, 1.0)
    pixels: npt.NDArray[np.uint8] = np.round(255.0 * colour).astype(np.uint8)
    return pixels


def _png(pixels: npt.NDArray[np.uint8]) -> bytes:
    from PIL import Image

    image = Image.fromarray(pixels)
    height, width = shown_size(image.height, image.width)
    if (height, width) != (image.height, image.width):
        image = image.resize((width, height), Image.Resampling.BOX, reducing_gap=2.0)
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=_COMPRESSION)
    return file.getvalue()
