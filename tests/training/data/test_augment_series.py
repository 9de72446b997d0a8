"""Augmentation of series: off by default, each field for itself, and what is missing stays missing."""

from __future__ import annotations

import pytest
import torch

from dimml_training.config import SeriesAugmentConfig
from dimml_training.data.augment_series import augment_series

ROWS = torch.randn(64, 100, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 10.0, 100.0]) + 5.0
RATE_HZ = 50.0


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(1)


def test_by_default_nothing_happens() -> None:
    assert torch.equal(augment_series(ROWS, SeriesAugmentConfig(), RATE_HZ), ROWS)


def test_a_shift_moves_whole_clips_and_leaves_missing_behind() -> None:
    ramp = torch.arange(100.0).view(1, 100, 1).expand(64, 100, 3)
    out = augment_series(ramp, SeriesAugmentConfig(shift_ms=200.0), RATE_HZ)
    by_B = (out - ramp).nanmean(dim=(1, 2))
    assert by_B.abs().max() <= 10.0
    assert by_B.std() > 3.0
    torch.testing.assert_close(
        (out - ramp).nan_to_num(0), ((out - ramp) * 0 + by_B.view(-1, 1, 1)).nan_to_num(0), atol=1e-3, rtol=0
    )
    missing = torch.isnan(out)[:, :, 0].sum(dim=1)
    assert (missing.float() - by_B.abs()).abs().max() <= 1.0


def test_a_stretch_changes_the_speed_about_the_middle() -> None:
    ramp = torch.arange(100.0).view(1, 100, 1).expand(64, 100, 3) - 49.5
    out = augment_series(ramp, SeriesAugmentConfig(stretch=0.2), RATE_HZ)
    speed = (out[:, 60] - out[:, 40]) / 20
    assert 0.8 <= float(speed.min()) < 0.85
    assert 1.15 < float(speed.max()) <= 1.2
    assert out[:, 49:51].mean(dim=1).abs().max() < 1e-3


def test_scale_and_drift_keep_within_their_bounds() -> None:
    ratio = augment_series(ROWS, SeriesAugmentConfig(scale=0.3), RATE_HZ) / ROWS
    assert 0.69 < float(ratio.min()) < 0.75
    assert float((ratio - ratio[:, :1]).abs().max()) < 1e-4
    off = augment_series(ROWS, SeriesAugmentConfig(drift_probability=1.0, drift=2.0), RATE_HZ) - ROWS
    deviation = ROWS.std(dim=1, correction=0)
    assert float((off[:, -1].abs() / deviation).max()) <= 2.001
    assert float(off[:, 0].abs().max()) == 0.0


def test_noise_is_relative_to_each_channel() -> None:
    config = SeriesAugmentConfig(noise_probability=1.0, noise_snr_db=(10.0, 10.0))
    noise = augment_series(ROWS, config, RATE_HZ) - ROWS
    ratio = (ROWS.var(dim=1) / noise.var(dim=1)).mean(dim=0)
    torch.testing.assert_close(10 * ratio.log10(), torch.full((3,), 10.0), atol=0.4, rtol=0)


def test_dead_channels_leave_one_alive() -> None:
    out = augment_series(ROWS, SeriesAugmentConfig(dead_probability=1.0, dead_share=1.0), RATE_HZ)
    dead = (out == 0).all(dim=1)
    assert int(dead.sum(dim=1).max()) == 2
    assert torch.equal(out[:, :, :][~dead[:, None, :].expand_as(out)], ROWS[~dead[:, None, :].expand_as(out)])


def test_gaps_are_missing_on_all_channels_in_one_run() -> None:
    out = augment_series(ROWS, SeriesAugmentConfig(gap_probability=1.0, gap_share=0.4), RATE_HZ)
    gone = torch.isnan(out)
    assert torch.equal(gone.all(dim=2), gone.any(dim=2))
    lengths = gone[:, :, 0].sum(dim=1)
    assert 30 < int(lengths.max()) <= 41
    assert (gone[:, :, 0].int().diff(dim=1).abs().sum(dim=1) <= 2).all()


def test_what_is_missing_stays_missing_and_spoils_nothing_else() -> None:
    holes = ROWS.clone()
    holes[:, 30:50, 1] = torch.nan
    everything = SeriesAugmentConfig(
        scale=0.2, drift_probability=1.0, noise_probability=1.0, dead_probability=1.0, dead_share=0.5
    )
    out = augment_series(holes, everything, RATE_HZ)
    assert torch.equal(torch.isnan(out), torch.isnan(holes))


def test_a_range_must_rise() -> None:
    with pytest.raises(ValueError, match="noise_snr_db must go from the lowest"):
        SeriesAugmentConfig(noise_snr_db=(10.0, 0.0))
