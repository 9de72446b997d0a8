"""Kin of real damage, against rooms, held frames and shares that are worked out here."""

from __future__ import annotations

from dataclasses import asdict, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from dimml.digests import historic
from dimml.errors import DataError
from dimml.modality import Flow, Frames, Modality, Series, Waveform
from dimml_training.config.corruption_suite import FAMILIES, Corruption, conditions
from dimml_training.corruptions.applying import corrupt
from dimml_training.corruptions.final.families import PAIR_FAMILIES, PICTURE_FAMILIES, SOUND_FAMILIES
from dimml_training.corruptions.kin.applying import WithKin
from dimml_training.corruptions.kin.families import KIN, NAMES, kin_conditions
from dimml_training.corruptions.kin.picture import PictureKin, collage, held_frames, sheet, stutter
from dimml_training.corruptions.kin.series import SeriesKin, turned
from dimml_training.corruptions.kin.sound import SoundKin, coloured_noise, room_response, training_voices
from dimml_training.corruptions.kin.textures import blob
from dimml_training.data.loader import ClipRows

CLIPS = 6
MODALITIES: tuple[Modality, ...] = (
    Waveform(name="audio", sample_rate_hz=8000, samples=4000),
    Frames(name="visual", frames=6, height=24, width=32),
    Flow(name="motion", frames=6, height=24, width=32),
    Series(name="imu", channels=3, sample_rate_hz=50, samples=80),
)
AUDIO, VISUAL, MOTION, IMU = MODALITIES


def rows(seed: int) -> dict[str, npt.NDArray[Any]]:
    rng = np.random.default_rng(seed)
    found = {
        "audio": rng.uniform(-0.3, 0.3, (CLIPS, 4000)).astype(np.float32),
        "visual": rng.integers(0, 256, (CLIPS, 6, 24, 32, 3)).astype(np.uint8),
        "motion": rng.integers(100, 156, (CLIPS, 6, 24, 32, 2)).astype(np.uint8),
        "imu": (rng.standard_normal((CLIPS, 80, 3)).cumsum(axis=1) * [1, 10, 0.1]).astype(np.float32),
    }
    found["imu"][2:, 70:] = np.nan
    found["imu"][1, 20:25, 1] = np.nan
    return found


TRAIN = ClipRows(rows(0), np.arange(CLIPS), np.zeros(CLIPS, np.int64))
CLEAN = rows(1)
CASES = [(m, family.corruption()) for m in MODALITIES for family in KIN if family.suits(m)]


def damaged(modality: Modality, kin: Corruption, *, draw: int = 0, clips: slice = slice(None)) -> npt.NDArray[Any]:
    ids = list(range(CLIPS))[clips]
    return WithKin(TRAIN)(CLEAN[modality.name][clips], modality, kin, clip_ids=ids, draw=draw, seed=3)


@pytest.mark.parametrize(("modality", "kin"), CASES, ids=lambda one: one.name)
def test_every_family_damages_every_clip_and_the_same_way_again(modality: Modality, kin: Corruption) -> None:
    clean, before = CLEAN[modality.name], CLEAN[modality.name].copy()
    out = damaged(modality, kin)
    np.testing.assert_array_equal(clean, before, err_msg="what came in was changed")
    assert (out.shape, out.dtype) == (clean.shape, clean.dtype)
    assert np.array_equal(np.isfinite(out), np.isfinite(clean)), "a value came or went"
    assert not any(np.array_equal(one, was, equal_nan=True) for one, was in zip(out, clean, strict=True))
    np.testing.assert_array_equal(damaged(modality, kin), out)
    np.testing.assert_array_equal(damaged(modality, kin, clips=slice(3, 5)), out[3:5], err_msg="the batch matters")
    assert not np.array_equal(damaged(modality, kin, draw=1), out, equal_nan=True)
    if modality is AUDIO:
        assert np.abs(out).max() <= 1.0


def test_other_families_are_those_of_the_suite() -> None:
    white = next(f for f in FAMILIES if f.name == "white").at("0db")
    given: dict[str, Any] = {"clip_ids": range(CLIPS), "draw": 0, "seed": 3}
    np.testing.assert_array_equal(
        WithKin(TRAIN)(CLEAN["audio"], AUDIO, white, **given), corrupt(CLEAN["audio"], AUDIO, white, **given)
    )


def test_kin_bears_no_name_of_a_family_that_is_scored() -> None:
    scored = {f.name for f in FAMILIES} | {f.name for f in (*SOUND_FAMILIES, *PICTURE_FAMILIES, *PAIR_FAMILIES)}
    assert not NAMES & scored
    seen = {f.name for f in FAMILIES if f.seen}
    for family in KIN:
        assert set(family.near) <= seen
        assert family.corruption().families == {family.name, *family.near}


def test_conditions_are_of_every_target_alone_and_of_every_two() -> None:
    found = kin_conditions(MODALITIES, draws=1)
    assert len({c.name for c in found}) == len(found)
    assert {(c.group, c.seen, c.in_means, c.draws) for c in found} == {("kin", True, False, 1)}
    alone = {name: {k for c in found if list(c.by_modality) == [name] for k in _own(c.by_modality[name])}
             for name in ("audio", "visual", "motion", "imu")}  # fmt: skip
    assert {name: len(own) for name, own in alone.items()} == {"audio": 4, "visual": 8, "motion": 7, "imu": 5}
    assert "exposure" not in alone["motion"]
    pairs = [c for c in found if len(c.by_modality) == 2]
    # The longer list of each two: 8, 7, 5 with the sound, 8 and 8 with the pictures, 7 of flow and series.
    assert len(pairs) == 8 + 7 + 5 + 8 + 8 + 7
    single = Frames(name="photo", frames=1, height=24, width=24)
    assert not any("stutter" in c.name for c in kin_conditions((single,)))


def _own(change: Any) -> set[str]:
    return {change.family}


def test_a_room_has_its_direct_sound_and_its_six_first_reflections() -> None:
    """Source and ear 2 m apart in 4 x 3 x 2.5 m; distances of the six images by hand."""
    rate_hz, reflected = 16_000, 0.01
    response = room_response(
        np.array([4.0, 3.0, 2.5]),
        np.array([1.0, 1.5, 1.2]),
        np.array([3.0, 1.5, 1.2]),
        reflected,
        rate_hz,
        samples=400,
    )
    assert response[0] == pytest.approx(1 / 2)
    metres = {4.0: 2, np.hypot(2, 2.4): 1, np.hypot(2, 2.6): 1, np.hypot(2, 3.0): 2}
    wanted = np.zeros(400)
    wanted[0] = 0.5
    for distance, walls in metres.items():
        wanted[round((distance - 2) / 343 * rate_hz)] += walls * reflected / distance
    # What two walls have reflected is at most a hundredth of that.
    np.testing.assert_allclose(response, wanted, atol=3e-4)
    late = room_response(*(np.array(x) for x in ([4.0, 3, 2.5], [1.0, 1.5, 1.2], [3.0, 1.5, 1.2])), 0.9, rate_hz,
                         samples=3200)  # fmt: skip
    assert np.square(late[1600:]).sum() < np.square(late[:1600]).sum()
    assert (late[1600:] > 0).mean() > 0.2, "the room rings on"


def test_noise_has_the_colour_and_the_level_that_it_drew() -> None:
    """Mean powers within 25 dB of the clip's, and never flat: the exponent is off by at least 0.5."""
    rng = np.random.default_rng(0)
    quiet = np.sin(np.arange(16_000) * 0.3).astype(np.float32)
    slopes = []
    for _ in range(40):
        noise = coloured_noise(quiet, SoundKin(rng, 16_000, quiet[None])) - quiet
        ratio_db = 10 * np.log10(np.square(quiet).mean() / np.square(noise).mean())
        assert -10.1 <= ratio_db <= 15.1
        power, hertz = np.abs(np.fft.rfft(noise)[1:]) ** 2, np.fft.rfftfreq(16_000, 1 / 16_000)[1:]
        # In thirds of octaves, from 100 Hz: the slope of a power law.
        edges = np.geomspace(100, 8000, 20)
        mean_db = [10 * np.log10(power[(hertz >= a) & (hertz < b)].mean()) for a, b in pairwise(edges)]
        slopes.append(np.polyfit(np.log10(edges[:-1]), mean_db, 1)[0] / 10)
    assert np.median([s for s in slopes if s < 0]) < -0.8
    assert 0.1 < np.mean(np.array(slopes) > 0) < 0.6


def test_voices_are_of_training_clips_and_of_no_other() -> None:
    """Training clips of one tone each: what was added has no other frequency."""
    samples = 8000
    clips = np.stack([np.sin(2 * np.pi * f * np.arange(samples) / samples) for f in (440, 700, 1100)]).astype(
        np.float32
    )
    silent = np.full(samples, 1e-3, np.float32)
    added = training_voices(silent, SoundKin(np.random.default_rng(4), 8000, clips)) - silent
    spectrum = np.abs(np.fft.rfft(added))
    heard = set(np.flatnonzero(spectrum > 0.01 * spectrum.max()).tolist())
    assert heard
    assert heard <= {440, 700, 1100}


def test_held_frames_stand_and_never_run_ahead() -> None:
    rng = np.random.default_rng(0)
    for frames in (2, 3, 8, 16, 25):
        for _ in range(50):
            shown = held_frames(rng, frames)
            assert (np.diff(shown) >= 0).all()
            assert (shown <= np.arange(frames)).all()
            _, counts = np.unique(shown, return_counts=True)
            assert (counts[:-1] >= 2).all()
            assert len(counts) < frames


def test_flow_that_stutters_rests_and_makes_up_for_it() -> None:
    """What moved in all is what moves between the pictures that are shown."""
    moved = np.random.default_rng(0).integers(-3, 4, (16, 4, 4, 2))
    rng = np.random.default_rng(7)
    shown = held_frames(np.random.default_rng(7), 16)
    out = stutter((moved + 128).astype(np.uint8), PictureKin(rng, True, np.zeros((1, 16, 4, 4, 2), np.uint8)))
    out = out.astype(int) - 128
    assert (out[1:][np.diff(shown) == 0] == 0).all()
    np.testing.assert_array_equal(out.sum(axis=0), moved[: shown[-1] + 1].sum(axis=0))


def test_a_sheet_covers_its_share_and_a_collage_shows_training_clips() -> None:
    white = np.full((2, 40, 50, 3), 255, np.uint8)
    red = np.zeros((1, 2, 40, 50, 3), np.uint8)
    red[..., 0] = 200
    shares = []
    for seed in range(60):
        given = PictureKin(np.random.default_rng(seed), False, red)
        out = sheet(white, given)
        assert np.array_equal(out[0], out[1])
        shares.append(float((out[0] != 255).any(axis=2).mean()))
        piece = collage(white, PictureKin(np.random.default_rng(seed), False, red))
        covered = (piece[0] != 255).any(axis=2)
        assert 0.3**2 * 0.9 <= covered.mean() <= 0.9**2 * 1.1
        assert (piece[0][covered] == (200, 0, 0)).all()
    assert min(shares) >= 0.1
    assert 0.35 < np.mean(shares) < 0.6
    sizes = [blob(np.random.default_rng(seed), 40, 50, 0.2, 3).mean() for seed in range(60)]
    assert 0.05 < np.mean(sizes) < 0.3


def test_a_turned_sensor_is_a_rotation_of_its_channels() -> None:
    series = np.random.default_rng(0).standard_normal((500, 3)).astype(np.float32) * [1, 5, 20] + [3, 0, -7]
    out = turned(series.astype(np.float32), SeriesKin(np.random.default_rng(1), series[None].astype(np.float32)))
    standard = (series - series.mean(axis=0)) / series.std(axis=0)
    found = (out - series.mean(axis=0)) / series.std(axis=0)
    np.testing.assert_allclose(np.square(found).sum(axis=1), np.square(standard).sum(axis=1), rtol=1e-3)
    assert not np.allclose(found, standard, atol=0.1)


def test_without_a_training_clip_there_is_no_kin() -> None:
    lacking = replace(TRAIN, present={"audio": np.zeros(CLIPS, np.bool_)})
    kin = KIN[0].corruption()
    with pytest.raises(DataError, match=r"certainty\.kin"):
        WithKin(lacking)(CLEAN["audio"], AUDIO, kin, clip_ids=range(CLIPS), draw=0, seed=0)


def test_a_corruption_of_the_suite_keeps_its_digest() -> None:
    for condition in conditions(MODALITIES, "all"):
        for change in condition.by_modality.values():
            if isinstance(change, Corruption):
                assert historic(change) == {"then": True, "near": True}
                assert asdict(change)["near"] == ()
