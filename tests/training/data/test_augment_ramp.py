"""Severity that rises over the first epochs: the arithmetic, and which fields it touches."""

from __future__ import annotations

import pytest

from dimml_training.config import PictureAugmentConfig, SeriesAugmentConfig, SoundAugmentConfig
from dimml_training.data.augment_ramp import SEVERITIES, ramp_factor, ramped

#: Fields without a mildest value.
NO_SEVERITY = {"band_cut_hz", "flip"}


def test_severity_rises_in_equal_steps_and_stays() -> None:
    assert [ramp_factor(epoch, 3) for epoch in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert [ramp_factor(epoch, 0) for epoch in range(3)] == [1.0, 1.0, 1.0]


def test_severities_are_scaled_and_probabilities_are_not() -> None:
    sound = SoundAugmentConfig(
        gain_db=6, shift_ms=50, noise_probability=0.3, noise_snr_db=(-5, 20), gap_probability=0.1, gap_share=0.5
    )
    found = ramped(sound, 0.2)
    assert (found.gain_db, found.shift_ms) == pytest.approx((1.2, 10.0))
    assert found.noise_snr_db == pytest.approx((15.0, 20.0))
    assert found.gap_share == pytest.approx(0.1)
    assert (found.noise_probability, found.gap_probability, found.band_cut_hz) == (0.3, 0.1, sound.band_cut_hz)
    pictures = ramped(PictureAugmentConfig(shift_frames=2, down_sampling_factor=4, brightness=20, flip=True), 0.5)
    assert (pictures.shift_frames, pictures.down_sampling_factor, pictures.brightness) == (1, 2.5, 10.0)
    assert pictures.flip
    assert ramped(SeriesAugmentConfig(drift=2.0), 0.25).drift == 0.5
    assert ramped(sound, 1.0) is sound


@pytest.mark.parametrize("config", list(SEVERITIES))
def test_every_severity_is_in_the_table(
    config: type[SoundAugmentConfig | PictureAugmentConfig | SeriesAugmentConfig],
) -> None:
    severities = {name for name in config.model_fields if not name.endswith("_probability")} - NO_SEVERITY
    assert set(SEVERITIES[config]) == severities
