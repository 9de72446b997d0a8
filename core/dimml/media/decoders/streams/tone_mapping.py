"""Pictures of high dynamic range (PQ, HLG) as a screen of standard range shows them.

Code values become light in cd/m² (ITU-R BT.2100, tables 4 and 5; HLG as a screen of 1000 cd/m² shows it), primaries of
BT.2020 those of BT.709 (BT.2407, section 2), each channel is rolled off from 1000 to 203 cd/m² (the EETF of BT.2408,
annex 5), and light becomes code values of BT.1886 (gamma 2.4) with 203 cd/m², HDR's reference white, as the most that
SDR shows. Up to 88 cd/m² light is kept as it is; reference white becomes 230 of 255: the rest is left to highlights.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

Transfer = Literal["pq", "hlg"]

#: Transfer characteristics and primaries by their numbers in ITU-T H.273.
_TRANSFERS: Final[dict[int, Transfer]] = {16: "pq", 18: "hlg"}
_BT709: Final = 1
#: The brightest that is distinguished, and HDR's reference white (BT.2408, table 1), in cd/m².
_PEAK, _WHITE = 1000.0, 203.0
#: Constants of PQ (BT.2100, table 4).
_M1, _M2 = 2610 / 16384, 2523 / 4096 * 128
_C1, _C2, _C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
#: Constants of HLG (BT.2100, table 5), its gamma at 1000 cd/m², and the weights of luminance in BT.2020.
_A, _B, _C = 0.17883277, 0.28466892, 0.55991073
_GAMMA: Final = 1.2
_LUMINANCE: Final = np.array([0.2627, 0.6780, 0.0593], np.float32)
_TO_BT709: Final = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)
_STEPS: Final = 4096


def transfer_of(frame: Any) -> Transfer | None:
    """Name the transfer function of a decoded frame of high dynamic range; None for any other frame."""
    return _TRANSFERS.get(frame.color_trc)


def has_wide_gamut(frame: Any) -> bool:
    """Whether a frame of high dynamic range has the primaries of BT.2020: it does unless it names those of BT.709."""
    return bool(frame.color_primaries != _BT709)


def to_standard_range(rgb: npt.NDArray[np.uint16], transfer: Transfer, *, wide_gamut: bool) -> npt.NDArray[np.uint8]:
    """Map a picture to SDR.

    Args:
        rgb: R'G'B' of full range, 16 bits, ``[height, width, 3]``.
        transfer: How its values stand for light.
        wide_gamut: Whether its primaries are those of BT.2020, not of BT.709.

    Returns:
        R'G'B' of BT.709, full range, ``[height, width, 3]``.
    """
    light = _light(transfer)[rgb]
    if transfer == "hlg":
        luminance = light @ _LUMINANCE
        # BT.2100's OOTF. Black stays black, whatever the exponent makes of 0.
        light *= np.maximum(luminance, 1e-9)[..., None] ** np.float32(_GAMMA - 1)
    if wide_gamut:
        light = light @ _TO_BT709.T
    # The fourth root spreads the table's steps about as evenly over what is seen as SDR's own gamma.
    steps = np.sqrt(np.sqrt(np.clip(light, 0.0, 1.0))) * (_STEPS - 1)
    return np.asarray(_shown()[np.rint(steps).astype(np.uint16)])


@cache
def _light(transfer: Transfer) -> npt.NDArray[np.float32]:
    """Light of each 16-bit value, 1 for 1000 cd/m²; of HLG, the scene's light."""
    values = np.arange(65536) / 65535
    if transfer == "pq":
        light = _pq_light(values) / _PEAK
    else:
        light = np.where(values <= 0.5, values**2 / 3, (np.exp((values - _C) / _A) + _B) / 12)
    return np.asarray(light, np.float32)


@cache
def _shown() -> npt.NDArray[np.uint8]:
    """SDR values of light, which is 1 for 1000 cd/m², at equal steps of its fourth root."""
    light = np.linspace(0.0, 1.0, _STEPS) ** 4 * _PEAK
    peak, white = _pq_value(np.array([_PEAK, _WHITE]))
    values = _pq_value(light) / peak
    most = white / peak
    # BT.2408's spline, with black at 0: above the knee a Hermite curve, level where the peak meets white.
    knee = 1.5 * most - 0.5
    t = np.maximum(values - knee, 0.0) / (1 - knee)
    rolled = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * most
    shown = _pq_light(np.where(values < knee, values, rolled) * peak)
    return np.rint(255 * np.clip(shown / _WHITE, 0.0, 1.0) ** (1 / 2.4)).astype(np.uint8)


def _pq_light(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    root = values ** (1 / _M2)
    return np.asarray(10_000 * (np.maximum(root - _C1, 0.0) / (_C2 - _C3 * root)) ** (1 / _M1))


def _pq_value(light: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    power = (light / 10_000) ** _M1
    return np.asarray(((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2)
