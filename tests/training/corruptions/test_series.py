"""Families of damage to a series, against numbers worked out here; what is missing stays missing."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from dimml.modality import Series
from dimml.signal_check import QualityThresholds, no_signal
from dimml.status import Reason
from dimml_training.config.corruption_suite import FAMILIES, FLAT, Corruption
from dimml_training.corruptions.applying import corrupt

IMU = Series(name="imu", channels=4, sample_rate_hz=50, samples=100)
RNG = np.random.default_rng(5)
#: Four clips of different units per channel; the last two end early, and one has a hole.
ROWS = (RNG.standard_normal((4, 100, 4)) * [1, 10, 100, 0.1] + [9.8, 0, 5, -1]).astype(np.float32)
ROWS[2:, 80:] = np.nan
ROWS[1, 30:40, 2] = np.nan
OURS = [family for family in FAMILIES if family.kind == "series"]
EVERYTHING = [family.at(severity) for family in OURS for severity in family.severities]


def family(name: str, severity: str) -> Corruption:
    return next(one for one in OURS if one.name == name).at(severity)


def damaged(corruption: Corruption, rows: npt.NDArray[Any] = ROWS, draw: int = 0) -> npt.NDArray[Any]:
    return corrupt(rows, IMU, corruption, clip_ids=range(len(rows)), draw=draw, seed=0)


@pytest.mark.parametrize("corruption", EVERYTHING, ids=lambda one: one.name)
def test_every_family_damages_draws_and_keeps_holes(corruption: Corruption) -> None:
    before = ROWS.copy()
    out = damaged(corruption)
    np.testing.assert_array_equal(ROWS, before, err_msg="what came in was changed")
    assert (out.shape, out.dtype) == (ROWS.shape, ROWS.dtype)
    assert not np.isinf(out).any()
    assert np.isnan(out[np.isnan(ROWS)]).all(), "a missing value came from nowhere"
    for clip, was in zip(out, ROWS, strict=True):
        assert not np.array_equal(clip, was, equal_nan=True)
    np.testing.assert_array_equal(damaged(corruption), out)
    again = damaged(corruption, draw=1)
    assert (not np.array_equal(again, out, equal_nan=True)) == (corruption.draws > 1)
    np.testing.assert_array_equal(
        corrupt(ROWS[2:], IMU, corruption, clip_ids=[2, 3], draw=0, seed=0), out[2:], err_msg="the batch matters"
    )


@pytest.mark.parametrize("snr_db", [20, 0, -10])
def test_noise_is_relative_to_each_channel(snr_db: int) -> None:
    long = Series(name="imu", channels=4, sample_rate_hz=50, samples=20_000)
    rows = (RNG.standard_normal((1, 20_000, 4)) * [1, 10, 100, 0.1] + 50).astype(np.float32)
    noise = corrupt(rows, long, family("sensor_noise", f"{snr_db}db"), clip_ids=[0], draw=0, seed=0) - rows
    ratio_db = 10 * np.log10(rows[0].var(axis=0) / noise[0].var(axis=0))
    np.testing.assert_allclose(ratio_db, snr_db, atol=0.2)


@pytest.mark.parametrize(("severity", "dead"), [("25pct", 1), ("50pct", 2), ("75pct", 3)])
def test_dead_channels_give_zero(severity: str, dead: int) -> None:
    out = damaged(family("dead_channels", severity))
    for clip, was in zip(out, ROWS, strict=True):
        gone = [c for c in range(4) if (clip[:, c][np.isfinite(was[:, c])] == 0).all()]
        assert len(gone) == dead
        others = [c for c in range(4) if c not in gone]
        np.testing.assert_array_equal(clip[:, others], was[:, others])


def test_lost_samples_are_that_share_of_the_recording() -> None:
    out = damaged(family("lost_samples", "40pct"))
    for clip, length in zip(out, (100, 100, 80, 80), strict=True):
        gone = np.isnan(clip[:length]).all(axis=1)
        assert gone.sum() == round(0.4 * length)
        assert np.abs(np.diff(np.r_[False, gone, False].astype(int))).sum() in {2, 4}, "more than two runs"


def test_drift_is_even_and_ends_where_it_says() -> None:
    out = damaged(family("drift", "2"))
    off = (out - ROWS)[0]
    deviation = ROWS[0].astype(np.float64)[:, :2].std(axis=0)
    np.testing.assert_allclose(np.abs(off[-1, :2]), 2 * deviation, rtol=1e-4)
    np.testing.assert_allclose(off[:, :2], np.linspace(0, 1, 100)[:, None] * off[-1, :2], atol=1e-4 * deviation.max())


def test_jitter_moves_samples_in_time_and_invents_none() -> None:
    ramp = np.tile(np.arange(100, dtype=np.float32)[None, :, None], (4, 1, 4))
    off_s = (damaged(family("jitter", "0.2s"), ramp) - ramp)[..., 0] / 50
    assert 0.05 < off_s.std() < 0.25
    assert np.ptp(damaged(family("jitter", "0.2s"), ramp)) <= 99


def test_saturation_cuts_at_a_share_of_the_largest_value() -> None:
    out = damaged(family("saturation", "30pct"))
    for clip, was in zip(out, ROWS, strict=True):
        most = 0.3 * np.nanmax(np.abs(was), axis=0)
        np.testing.assert_allclose(np.nanmax(np.abs(clip), axis=0), most, rtol=1e-6)
        inside = np.abs(was) < most
        np.testing.assert_array_equal(clip[inside], was[inside])


def test_a_stuck_sensor_holds_one_value_for_that_share() -> None:
    out = damaged(family("stuck", "50pct"))
    still = (np.diff(out[0][:, 0]) == 0).sum()
    assert still == 49


def test_spikes_are_as_many_and_as_high_as_they_say() -> None:
    long = Series(name="imu", channels=4, sample_rate_hz=50, samples=20_000)
    rows = RNG.standard_normal((1, 20_000, 4)).astype(np.float32)
    off = corrupt(rows, long, family("spikes", "5pct"), clip_ids=[0], draw=0, seed=0) - rows
    assert (off != 0).mean() == pytest.approx(0.05, abs=0.005)
    np.testing.assert_allclose(np.abs(off[off != 0]), 8.0, rtol=0.05)


def test_what_leaves_nothing_is_no_signal_and_the_rest_is() -> None:
    quality = QualityThresholds()
    assert no_signal(IMU, damaged(FLAT)[0], quality) is Reason.FLAT
    for corruption in EVERYTHING:
        assert no_signal(IMU, damaged(corruption)[0], quality) is None, corruption.name
