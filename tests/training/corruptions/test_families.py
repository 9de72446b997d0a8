"""The corruption suite: what each family does to a clip, and what depends on what."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from dimml.errors import DataError
from dimml.modality import Flow, Frames, Modality, Waveform
from dimml_training.config.corruption_suite import BLACK, FAMILIES, SILENCE, Corruption, conditions
from dimml_training.corruptions.applying import conflicting, corrupt
from dimml_training.corruptions.voices import other_voices

RATE = 8000
SOUND = Waveform(name="audio", sample_rate_hz=RATE, samples=4000)
MOVING = Frames(name="visual", frames=6, height=22, width=33)
STILL = Frames(name="front", tensor="FRONT", frames=1, height=24, width=32)
FLOW = Flow(name="motion", frames=6, height=24, width=32)
MODALITIES: tuple[Modality, ...] = (SOUND, MOVING, STILL, FLOW)
NOISES = ("white", "pink", "another_clip", "voices", "tones", "clicks")
NUMBERS = np.random.default_rng(0)


def clips(modality: Modality, count: int = 5) -> npt.NDArray[Any]:
    """Different clips, far from full scale, smooth enough for a codec."""
    if isinstance(modality, Waveform):
        rows = NUMBERS.standard_normal((count, modality.samples)).cumsum(axis=1)
        rows -= rows.mean(axis=1, keepdims=True)
        return np.asarray(0.02 * rows / rows.std(axis=1, keepdims=True), np.float32)
    frames, height, width, channels = modality.shape
    t, y, x, c = np.ogrid[:frames, :height, :width, :channels]
    phases = NUMBERS.uniform(0, 6, (count, 3))
    waves = [np.sin(x / 5 + t / 2 + a) + np.cos(y / 4 - t / 3 + b) + np.sin(c + d) for a, b, d in phases]
    return np.asarray((128 + 35 * np.stack(waves)).round(), np.uint8)


ROWS = {m.name: clips(m) for m in MODALITIES}
EVERYTHING = [
    *((m, f.at(severity)) for m in MODALITIES for f in FAMILIES if f.suits(m) for severity in f.severities),
    *((SOUND, SILENCE), (MOVING, BLACK), (FLOW, BLACK)),
]


def damaged(
    modality: Modality, corruption: Corruption, *, rows: npt.NDArray[Any] | None = None, draw: int = 0, seed: int = 0
) -> npt.NDArray[Any]:
    rows = ROWS[modality.name] if rows is None else rows
    return corrupt(rows, modality, corruption, clip_ids=range(len(rows)), draw=draw, seed=seed)


def family(name: str, severity: str) -> Corruption:
    return next(f for f in FAMILIES if f.name == name).at(severity)


@pytest.mark.parametrize(("modality", "corruption"), EVERYTHING, ids=lambda value: value.name)
def test_every_corruption_damages_and_draws_as_it_says(modality: Modality, corruption: Corruption) -> None:
    rows = ROWS[modality.name]
    before = rows.copy()
    out = damaged(modality, corruption)
    assert (out.shape, out.dtype) == (rows.shape, rows.dtype)
    np.testing.assert_array_equal(rows, before, err_msg="what came in was changed")
    assert all((a != b).any() for a, b in zip(out, rows, strict=True)), "a clip came out as it was"
    np.testing.assert_array_equal(damaged(modality, corruption), out)
    again = (damaged(modality, corruption, draw=1), damaged(modality, corruption, seed=1))
    assert [bool((a != out).any()) for a in again] == [corruption.draws > 1] * 2
    if isinstance(modality, Waveform):
        assert np.isfinite(out).all()
        assert np.abs(out).max() <= 1.0


@pytest.mark.parametrize("corruption", [c for m, c in EVERYTHING if m is SOUND or m is MOVING], ids=lambda c: c.name)
def test_what_a_clip_suffers_does_not_depend_on_the_batch(corruption: Corruption) -> None:
    modality = SOUND if corruption.kind == "sound" else MOVING
    rows = ROWS[modality.name]
    others = rows[[2, 3, 4, 0, 1]]
    whole = corrupt(rows, modality, corruption, clip_ids=range(5), draw=2, seed=3, others=others)
    part = corrupt(rows[3:], modality, corruption, clip_ids=[3, 4], draw=2, seed=3, others=others[3:])
    np.testing.assert_array_equal(part, whole[3:])


@pytest.mark.parametrize("name", NOISES)
@pytest.mark.parametrize("snr_db", [20, 0, -10])
def test_noise_is_as_loud_as_it_says(name: str, snr_db: int) -> None:
    quiet = 0.1 * ROWS["audio"]  # clicks of -10 dB are high
    noise = damaged(SOUND, family(name, f"{snr_db}db"), rows=quiet) - quiet
    found = 10 * np.log10((quiet**2).mean(axis=1) / (noise**2).mean(axis=1))
    np.testing.assert_allclose(found, snr_db, atol=0.05)


def test_loud_noise_stays_within_full_scale_by_turning_down() -> None:
    loud = 40 * ROWS["audio"]
    out = damaged(SOUND, family("white", "-10db"), rows=loud)
    np.testing.assert_allclose(np.abs(out).max(axis=1), 1.0, rtol=1e-6)


def test_colours_of_noise() -> None:
    long = Waveform(name="audio", sample_rate_hz=RATE, samples=2**16)
    quiet = np.ones((1, 2**16), np.float32) * 1e-3

    def low_against_high(name: str) -> float:
        noise = (damaged(long, family(name, "0db"), rows=quiet) - quiet)[0]
        power = np.abs(np.fft.rfft(noise)) ** 2
        octave_at = [power[hz * 8 : 2 * hz * 8].sum() for hz in (200, 1600)]
        return float(octave_at[0] / octave_at[1])

    assert low_against_high("white") == pytest.approx(1 / 8, rel=0.15)
    assert low_against_high("pink") == pytest.approx(1.0, rel=0.15)


def test_filters_take_what_they_say() -> None:
    noise = 0.01 * NUMBERS.standard_normal((3, 4000)).astype(np.float32)

    def power(rows: npt.NDArray[Any], low_hz: int, high_hz: int) -> float:
        spectrum = np.abs(np.fft.rfft(rows, axis=1)) ** 2
        return float(spectrum[:, low_hz // 2 : high_hz // 2].sum())

    low = damaged(SOUND, family("low_pass", "1000hz"), rows=noise)
    high = damaged(SOUND, family("high_pass", "1000hz"), rows=noise)
    assert power(low, 1300, 4000) < 1e-3 * power(noise, 1300, 4000)
    assert power(low, 0, 700) > 0.95 * power(noise, 0, 700)
    assert power(high, 0, 700) < 1e-3 * power(noise, 0, 700)
    assert power(high, 1500, 4000) > 0.95 * power(noise, 1500, 4000)


def test_gaps_shift_and_clipping() -> None:
    rows = ROWS["audio"]
    gaps = damaged(SOUND, family("gaps", "60pct"))
    np.testing.assert_allclose((gaps == 0).mean(axis=1), 0.6, atol=0.01)
    assert ((gaps == 0) | (gaps == rows)).all()
    for before, after in zip(rows, damaged(SOUND, family("time_shift", "20pct")), strict=True):
        shifts = [s for s in range(-800, 801) if np.array_equal(np.roll(before, s)[800:-800], after[800:-800])]
        assert len(shifts) == 1
        assert 400 <= abs(shifts[0]) <= 800
    clipped = damaged(SOUND, family("clipping", "20db"))
    np.testing.assert_allclose(np.abs(clipped).max(axis=1), np.abs(rows).max(axis=1))
    assert (np.abs(clipped) == np.abs(rows).max(axis=1, keepdims=True)).mean() > 0.5


def test_a_room_keeps_the_power_and_dies_away_by_60_db() -> None:
    long = Waveform(name="audio", sample_rate_hz=RATE, samples=RATE)
    click = np.zeros((200, RATE), np.float32)
    click[:, 800] = 0.5
    out = damaged(long, family("reverberation", "0.3s"), rows=click)
    np.testing.assert_allclose((out**2).mean(axis=1), (click**2).mean(axis=1), rtol=1e-4)
    heard = (out**2).mean(axis=0)
    assert heard[:800].max() < 1e-6 * heard[800:900].mean(), "nothing is heard before it is said"
    fall_db = 10 * np.log10(heard[800:1000].mean() / heard[800 + 1200 : 1000 + 1200].mean())
    assert fall_db == pytest.approx(30.0, abs=1.0), "half of 60 dB after half of 0.3 s"


def test_covers_hide_a_part_and_leave_the_rest() -> None:
    rows = ROWS["visual"]
    for severity, share in (("40pct", 0.4), ("80pct", 0.8)):
        hidden = (damaged(MOVING, family("grey_box", severity)) == 128).all(axis=(1, 4))
        assert np.all(np.abs(hidden.mean(axis=(1, 2)) - share**2) < 0.06), "the same place in all frames"
    lower = damaged(MOVING, family("lower_part", "70pct"))
    for clip, before in zip(lower, rows, strict=True):
        (edges,) = np.where([len(np.unique(clip[:, line:].reshape(-1, 3), axis=0)) == 1 for line in range(22)])
        np.testing.assert_array_equal(clip[:, : edges[0]], before[:, : edges[0]])
        assert 0.5 < 1 - edges[0] / 22 < 0.9
    other = np.zeros_like(rows)
    other[:, :, -1] = 255  # turned upside down, its last line would be the first
    patched = corrupt(rows, MOVING, family("patch", "80pct"), clip_ids=range(5), draw=0, seed=0, others=other)
    changed = patched != rows
    assert 0.5 < changed.mean() < 0.66
    assert set(np.unique(patched[changed])) <= {0, 255}


def test_frames_that_are_dropped_or_stand_still() -> None:
    rows = ROWS["visual"]
    black = (damaged(MOVING, family("dropped_frames", "50pct")) == 0).all(axis=(2, 3, 4))
    assert (black.sum(axis=1) == 3).all()
    for clip, before in zip(damaged(MOVING, family("frozen_frames", "50pct")), rows, strict=True):
        runs = []
        for start in range(4):
            expected = before.copy()
            expected[start : start + 3] = before[max(start - 1, 0)]
            runs.append(np.array_equal(clip, expected))
        assert any(runs)


def test_light_blur_and_scale() -> None:
    rows = ROWS["visual"].astype(float)
    np.testing.assert_array_equal(damaged(MOVING, family("darkness", "0.1")), np.rint(0.1 * rows))
    np.testing.assert_array_equal(damaged(MOVING, family("glare", "120")), np.minimum(rows + 120, 255))
    faded = damaged(MOVING, family("fading", "0.2")).astype(float)
    np.testing.assert_allclose(faded.std(axis=(1, 2, 3, 4)), 0.2 * rows.std(axis=(1, 2, 3, 4)), rtol=0.05)
    np.testing.assert_allclose(faded.mean(axis=(1, 2, 3, 4)), rows.mean(axis=(1, 2, 3, 4)), atol=1)
    noise = NUMBERS.integers(0, 256, rows.shape).astype(np.uint8)
    for name, severity in (("blur", "10pct"), ("down_sampling", "6")):
        out = damaged(MOVING, family(name, severity), rows=noise)
        assert out.std() < 0.4 * noise.std()
        assert abs(out.mean() - noise.mean()) < 2


def test_a_tilted_picture_is_the_same_one_turned() -> None:
    rows = np.zeros((8, 1, 24, 32, 3), np.uint8)
    rows[:, :, 10:14, 24:28] = 255  # 10 pixels to the right of the middle
    for clip in damaged(STILL, family("tilt", "60deg"), rows=rows)[:, 0, :, :, 0].astype(float):
        down, right = np.arange(24) - 11.5, np.arange(32) - 15.5
        at_down, at_right = (clip.sum(axis=1) @ down) / clip.sum(), (clip.sum(axis=0) @ right) / clip.sum()
        assert np.hypot(at_down, at_right) == pytest.approx(10.0, abs=0.5)
        assert 45 < abs(np.degrees(np.arctan2(at_down, at_right))) < 75


@pytest.mark.parametrize("modality", [MOVING, STILL, FLOW], ids=lambda m: m.name)
def test_low_bitrate_goes_through_a_codec(modality: Modality) -> None:
    rows = ROWS[modality.name]

    def error(quantiser: float) -> float:
        corruption = Corruption("low_bitrate", str(quantiser), quantiser, "picture", False, 1)
        return float(np.abs(damaged(modality, corruption).astype(float) - rows).mean())

    assert error(5) < 3.0, "colours, size and order of the frames are kept"
    assert error(5) < error(32) < error(44)


def test_flow_at_rest_stands_where_it_is_covered_or_lost() -> None:
    for name, severity in (("grey_box", "80pct"), ("lower_part", "70pct"), ("dropped_frames", "50pct")):
        changed = damaged(FLOW, family(name, severity))
        assert (changed[changed != ROWS["motion"]] == 128).all()
    assert (damaged(FLOW, BLACK) == 128).all()
    shaken = damaged(FLOW, family("camera_shake", "10")).astype(int) - ROWS["motion"]
    assert all(len(np.unique(frame[..., c])) == 1 for clip in shaken for frame in clip for c in (0, 1))


def test_the_voices_of_babble_are_the_same_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # Set, it lets numpy write to a pipe.
    other_voices.cache_clear()
    voices = other_voices(RATE)
    assert voices.shape[0] == 8
    assert voices.shape[1] > 8 * RATE
    loud = np.sqrt((voices**2).mean(axis=1))
    assert loud.min() > 0.02
    assert np.abs(np.corrcoef(voices) - np.eye(8)).max() < 0.1, "different people"
    other_voices.cache_clear()
    np.testing.assert_array_equal(other_voices(RATE), voices)


def test_a_single_clip_has_no_other() -> None:
    with pytest.raises(DataError, match="another_clip_0db mixes in another clip: the split needs at least two"):
        damaged(SOUND, family("another_clip", "0db"), rows=ROWS["audio"][:1])


def test_in_conflict_every_clip_meets_another_label() -> None:
    labels = NUMBERS.integers(0, 4, 60)
    found = np.stack([conflicting(labels, draw=draw, seed=0) for draw in range(400)])
    assert (labels[found] != labels).all()
    assert (found[0] != found[1]).any()
    for clip in range(3):
        assert set(found[:, clip]) == set(np.flatnonzero(labels != labels[clip])), "any of them, none more than once"
    with pytest.raises(DataError, match="at least two classes"):
        conflicting(np.zeros(3, np.int64), draw=0, seed=0)


def test_names_and_shares_of_the_table() -> None:
    names = [f.name for f in FAMILIES]
    assert len(set(names)) == len(names)
    assert 3 * sum(not f.seen for f in FAMILIES) >= len(FAMILIES)
    for f in FAMILIES:
        assert set(f.standard) <= set(f.severities)


@pytest.mark.parametrize("modalities", [(SOUND, MOVING), (SOUND, STILL), (MOVING, FLOW), (SOUND, MOVING, FLOW)])
def test_conditions(modalities: tuple[Modality, ...]) -> None:
    everything = conditions(modalities, "all")
    assert [c.group for c in everything].count("clean") == 1
    assert everything[0].name == "clean"
    assert len({c.name for c in everything}) == len(everything)
    seen, development = conditions(modalities, "seen"), conditions(modalities, "development")
    assert {c.name for c in seen} | {c.name for c in development} == {c.name for c in everything}
    assert {c.name for c in seen} & {c.name for c in development} == {"clean"}
    kept = {f.name for f in FAMILIES if not f.seen}
    assert not any(c.families & kept for c in seen)
    assert all(c.families & kept or c.group == "conflict" for c in development[1:])
    assert not any(c.in_means for c in everything if c.group in {"clean", "absent", "nosignal", "conflict"})
    for modality in modalities:
        wanted = {
            (change, draw)
            for c in everything
            for draw in range(c.draws)
            if isinstance(change := c.by_modality.get(modality.name), Corruption) and draw < change.draws
        }
        assert len(wanted) <= 60, "a run of the suite stays affordable"
    assert len(conditions(modalities, "all", detail=True)) > len(everything)


def test_nothing_is_taken_from_a_single_modality() -> None:
    assert {c.group for c in conditions([SOUND], "all")} == {"clean", "sound"}
