"""The sealed final families: the seal, what they do to clips, and who may import them."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from import_graph import PACKAGES, imported_names, read_package

from dimml.errors import SetupError
from dimml.modality import Flow, Frames, Modality, Waveform
from dimml_training.config.corruption_suite import FAMILIES, Condition, Corruption
from dimml_training.corruptions.final.applying import corrupt_finally
from dimml_training.corruptions.final.families import (
    PAIR_FAMILIES,
    PICTURE_FAMILIES,
    SOUND_FAMILIES,
    FinalFamily,
    final_conditions,
    skipped,
)
from dimml_training.corruptions.final.sound import conceal, low_rate_codec, tune, wind
from dimml_training.final_scoring.seal import FOLDER, SEAL, unbroken_seal

#: SHA-256 of the seal as it was first committed, before anything else of issue 23. It never changes.
SEALED = "86f90bb72050c7525448f38863654e064dc0dd06b9ae2af30b2db98019ef5f0c"
AUDIO = Waveform(name="audio", sample_rate_hz=16_000, samples=8_000)
FACE = Frames(name="visual", frames=8, height=24, width=32)
MOTION = Flow(name="motion", frames=8, height=24, width=32)
PHOTO = Frames(name="photo", frames=1, height=24, width=24)


def test_the_final_families_are_as_they_were_sealed() -> None:
    assert unbroken_seal() == SEALED
    listed = (FOLDER / SEAL).read_text().split()
    assert dict(zip(listed[1::2], listed[::2], strict=True)) == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in FOLDER.glob("*.py")
    }


@pytest.mark.parametrize("harm", ["changed", "added", "missing", "seal"])
def test_a_broken_seal_is_named(tmp_path: Path, harm: str) -> None:
    folder = tmp_path / "final"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__"))
    assert unbroken_seal(folder) == SEALED
    if harm == "changed":
        (folder / "sound.py").write_text((folder / "sound.py").read_text() + "\n")
    elif harm == "added":
        (folder / "more.py").write_text("")
    elif harm == "missing":
        (folder / "picture.py").unlink()
    else:
        (folder / SEAL).unlink()
    named = {"changed": "sound.py", "added": "more.py", "missing": "picture.py", "seal": SEAL}[harm]
    with pytest.raises(SetupError, match=named):
        unbroken_seal(folder)


def test_they_share_nothing_with_the_families_that_training_and_choices_know() -> None:
    package = read_package("dimml_training", PACKAGES["dimml_training"])
    used = {t for module, targets in package.imports.items() if ".corruptions.final" in module for t in targets}
    outside = {module for module in used if not module.startswith("dimml_training.corruptions.final")}
    assert outside == {"dimml_training.config.corruption_suite"}
    of_interface = {
        name.rpartition(".")[2]
        for path in FOLDER.glob("*.py")
        for name in imported_names(path)
        if name.startswith("dimml_training.config")
    }
    assert of_interface == {"Condition", "Corruption", "Sense"}
    names = {f.name for f in (*SOUND_FAMILIES, *PICTURE_FAMILIES, *PAIR_FAMILIES)}
    assert not names & {family.name for family in FAMILIES}


def test_nothing_that_trains_or_chooses_imports_them() -> None:
    users = {
        module
        for module, targets in read_package("dimml_training", PACKAGES["dimml_training"]).imports.items()
        if any(".corruptions.final" in target for target in targets) and ".corruptions.final" not in module
    }
    assert users
    assert {module.split(".")[1] for module in users} == {"final_scoring"}


def clip_of(modality: Modality) -> npt.NDArray[np.float32] | npt.NDArray[np.uint8]:
    if isinstance(modality, Waveform):
        time_s = np.arange(modality.samples) / modality.sample_rate_hz
        voiced = sum(np.sin(2 * np.pi * 140 * k * time_s) / k for k in range(1, 12))
        return np.float32(0.2) * (voiced * (1 + np.sin(2 * np.pi * 4 * time_s))).astype(np.float32)
    t, y, x = np.mgrid[0 : modality.frames, 0 : modality.height, 0 : modality.width]
    channels = [128 + 90 * np.sin(x / 5 + t / 2 + c) * np.cos(y / 4 - c) for c in range(modality.shape[-1])]
    return np.stack(channels, axis=-1).astype(np.uint8)


def every_damage() -> Iterator[tuple[Modality, Condition, Corruption]]:
    for modalities in ((AUDIO, FACE, MOTION), (AUDIO, PHOTO), (FACE, MOTION)):
        for condition in final_conditions(modalities):
            for m in modalities:
                corruption = condition.by_modality.get(m.name)
                if isinstance(corruption, Corruption):
                    yield m, condition, corruption


def test_every_family_damages_every_modality_that_it_names() -> None:
    seen = set()
    for modality, condition, corruption in every_damage():
        rows = np.stack([clip_of(modality)] * 9)
        made = corrupt_finally(rows, modality, corruption, clip_ids=range(9), draw=0, seed=0)
        assert (made.shape, made.dtype) == (rows.shape, rows.dtype)
        assert np.isfinite(made).all()
        assert np.abs(made.astype(np.float64)).max() <= (1.0 if modality.kind == "waveform" else 255)
        assert not np.array_equal(made, rows), (condition.name, modality.name)
        again = corrupt_finally(rows[5:6], modality, corruption, clip_ids=[5], draw=0, seed=0)
        np.testing.assert_array_equal(again[0], made[5])  # of the clip's number, not of its batch
        other = corrupt_finally(rows, modality, corruption, clip_ids=range(9), draw=1, seed=0)
        assert np.array_equal(other, made) == (corruption.draws == 1), condition.name
        seen.add((corruption.family, modality.kind))
    wanted = {(f.name, "waveform") for f in (*SOUND_FAMILIES, *PAIR_FAMILIES)}
    wanted |= {(f.name, kind) for f in (*PICTURE_FAMILIES, *PAIR_FAMILIES) for kind in ("frames", "flow")}
    assert seen == wanted


def look(rows: npt.NDArray[Any], modality: Modality) -> npt.NDArray[np.float64]:
    """Of sound the magnitudes of its 20 ms spectra, since phases differ as soon as anything is done to it."""
    if modality.kind != "waveform":
        return rows.astype(np.float64)
    return np.abs(np.fft.rfft(rows.reshape(len(rows), -1, 320)))


@pytest.mark.parametrize(
    ("modality", "family"), [*((AUDIO, f) for f in SOUND_FAMILIES), *((FACE, f) for f in PICTURE_FAMILIES)]
)
def test_a_severer_condition_changes_more(modality: Modality, family: FinalFamily) -> None:
    rows = np.stack([clip_of(modality)] * 12)
    changes = []
    for severity in family.severities:
        corruption = family.at(severity, "sound" if modality.kind == "waveform" else "picture")
        made = corrupt_finally(rows, modality, corruption, clip_ids=range(12), draw=0, seed=1)
        changes.append(np.abs(look(made, modality) - look(rows, modality)).mean())
    assert changes[0] < changes[1]


def test_conditions_of_one_cause_have_one_course() -> None:
    """A link that is down is down for sound and picture at once: frames with broken blocks are concealed packets."""
    link = next(f for f in PAIR_FAMILIES if f.name == "bad_link")
    rng = np.random.default_rng(0)
    sound = (0.1 * rng.standard_normal((1, AUDIO.samples))).astype(np.float32)
    face = rng.integers(0, 256, (1, *FACE.shape), dtype=np.uint8)
    for clip_id in range(12):
        heard = corrupt_finally(sound, AUDIO, link.at("60pct", "sound"), clip_ids=[clip_id], draw=0, seed=0)
        shown = corrupt_finally(face, FACE, link.at("60pct", "picture"), clip_ids=[clip_id], draw=0, seed=0)
        of_frame = (heard != sound)[0].reshape(FACE.frames, -1).mean(axis=1)
        broken = (shown != face)[0].any(axis=(1, 2, 3))
        assert broken.any()
        assert of_frame[broken].mean() > of_frame[~broken].mean() + 0.3 if not broken.all() else True


def test_sound_and_picture_go_out_of_step_in_opposite_directions() -> None:
    lag = next(f for f in PAIR_FAMILIES if f.name == "out_of_step")
    pulse = np.zeros((1, AUDIO.samples), np.float32)
    pulse[0, 4000] = 1.0
    stairs = np.broadcast_to((np.arange(8) * 20)[None, :, None, None, None], (1, *FACE.shape)).astype(np.uint8)
    senses = set()
    for clip_id in range(8):
        heard = corrupt_finally(pulse, AUDIO, lag.at("50pct", "sound"), clip_ids=[clip_id], draw=0, seed=0)[0]
        shown = corrupt_finally(stairs, FACE, lag.at("50pct", "picture"), clip_ids=[clip_id], draw=0, seed=0)[0]
        later, frames = int(np.argmax(heard)) - 4000, 4 - int(shown[4, 0, 0, 0]) // 20
        assert (later, frames) in {(2000, -2), (-2000, 2)}
        senses.add(later > 0)
    assert senses == {True, False}


def test_a_lag_needs_pictures_that_move_and_pairs_need_sound() -> None:
    of_photo = {c.name for c in final_conditions((AUDIO, PHOTO))}
    assert "audio+photo:gale_strong" in of_photo
    assert not any("out_of_step" in name for name in of_photo)
    of_views = [c for c in final_conditions((FACE, MOTION)) if c.group == "both"]
    assert {c.name for c in of_views} == {
        "visual+motion:rain_heavy",
        "visual+motion:fog_thick",
        "visual+motion:moving_bar_60pct",
        "visual+motion:rolling_band_0.95",
    }
    assert final_conditions((AUDIO,))[0].name == "clean"
    assert all(c.seen is False and c.in_means for c in final_conditions((AUDIO, FACE))[1:])


def test_a_kind_without_final_families_stays_whole_and_is_said() -> None:
    class Series:
        """As a later kind may be: no final family knows it."""

        name, kind, covers_time = "inertial", "series", True

    series: Modality = Series()  # type: ignore[assignment]  # stands in for a kind that this version does not have
    suite = final_conditions((FACE, series))
    assert {name for c in suite for name in c.by_modality} == {"visual"}
    assert {c.group for c in suite} == {"clean", "picture"}
    assert skipped((FACE, series)) == [
        "inertial: no final family damages a series; it stays whole in every final condition"
    ]
    assert skipped((AUDIO, FACE, MOTION)) == []


def test_lost_packets_are_filled_with_the_last_period_fading() -> None:
    """A steady 200 Hz tone goes on through one lost packet, and is half as loud in the next."""
    rate_hz, size = 16_000, 320
    tone = np.sin(2 * np.pi * 200 * np.arange(10 * size) / rate_hz).astype(np.float32)
    lost = np.zeros(10, np.bool_)
    lost[5:7] = True
    made = conceal(tone, lost, rate_hz)
    np.testing.assert_allclose(made[5 * size : 6 * size], tone[5 * size : 6 * size], atol=1e-3)
    np.testing.assert_allclose(made[6 * size : 7 * size], 0.5 * tone[6 * size : 7 * size], atol=1e-3)
    np.testing.assert_array_equal(made[: 5 * size], tone[: 5 * size])
    assert (conceal(tone, np.ones(10, np.bool_), rate_hz) == 0).all()


def power_below(sound: npt.NDArray[np.float64], hertz: float, rate_hz: int) -> float:
    power = np.abs(np.fft.rfft(sound)) ** 2
    return float(power[np.fft.rfftfreq(len(sound), 1 / rate_hz) < hertz].sum() / power.sum())


def test_sounds_are_where_they_should_be_in_the_spectrum() -> None:
    rng = np.random.default_rng(3)
    silence_like = np.full(16_000, 1e-3, np.float32) * rng.standard_normal(16_000).astype(np.float32)
    assert power_below(wind(silence_like, -40.0, rng, 16_000), 300.0, 16_000) > 0.7
    # Narrowband telephony ends at 4 kHz, and most of white noise above it is gone.
    assert power_below(np.asarray(low_rate_codec(silence_like, 1.0, rng, 16_000)), 4100.0, 16_000) > 0.999
    assert power_below(np.asarray(silence_like, np.float64), 4100.0, 16_000) < 0.6
    # Tones: a few lines of the spectrum hold most of the power.
    lines = np.sort(np.abs(np.fft.rfft(tune(16_000, rng, 16_000))) ** 2)[::-1]
    assert lines[:200].sum() / lines.sum() > 0.9
