"""Milder augmentation for the first epochs: the severities of a config scaled down, its probabilities as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from dimml_training.config import PictureAugmentConfig, SeriesAugmentConfig, SoundAugmentConfig
from dimml_training.data.augment import AugmentConfig


def ramp_factor(epoch: int, ramp_epochs: int) -> float:
    """Share of the full severity in an epoch, counted from 0: ``(epoch + 1) / (ramp_epochs + 1)``, 1 after the ramp."""
    return min(1.0, (epoch + 1) / (ramp_epochs + 1))


def ramped(config: AugmentConfig, factor: float) -> AugmentConfig:
    """Scale every severity by ``factor``, 0 to 1, towards the mildest.

    Amplitudes, lengths and shares are multiplied. A range of SNRs begins nearer to its highest, a block of pixels is
    nearer to one. What has no mildest, such as a cut-off frequency or mirroring, stays.
    """
    if factor >= 1.0:
        return config
    scaled = {name: how(getattr(config, name), factor) for name, how in SEVERITIES[type(config)].items()}
    return config.model_copy(update=scaled)


def _times(value: float, factor: float) -> float:
    return value * factor


def _whole(value: int, factor: float) -> int:
    return round(value * factor)


def _above_one(value: float, factor: float) -> float:
    return 1.0 + (value - 1.0) * factor


def _from_the_top(value: tuple[float, float], factor: float) -> tuple[float, float]:
    low, high = value
    return high - (high - low) * factor, high


#: How the severities of each kind of augmentation are scaled; fields that are not named stay.
SEVERITIES: Final[Mapping[type[AugmentConfig], Mapping[str, Callable[[Any, float], Any]]]] = {
    SoundAugmentConfig: {
        "gain_db": _times,
        "shift_ms": _times,
        "noise_snr_db": _from_the_top,
        "babble_snr_db": _from_the_top,
        "gap_share": _times,
    },
    PictureAugmentConfig: {
        "shift": _times,
        "shift_frames": _whole,
        "brightness": _times,
        "contrast": _times,
        "noise_std": _times,
        "erase_share": _times,
        "blur_share": _times,
        "down_sampling_factor": _above_one,
        "drop_share": _times,
        "gap_share": _times,
    },
    SeriesAugmentConfig: {
        "stretch": _times,
        "shift_ms": _times,
        "scale": _times,
        "drift": _times,
        "noise_snr_db": _from_the_top,
        "dead_share": _times,
        "gap_share": _times,
    },
}
