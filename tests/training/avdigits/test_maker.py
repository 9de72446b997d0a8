"""AVDIGITS from end to end: what is on disk, that it is the same each time, and that it goes on where it stopped."""

from __future__ import annotations

import csv
from pathlib import Path

import av
import numpy as np
import pytest

from dimml.errors import ConfigurationError, DataError
from dimml_training.avdigits.make import CLIP_FRAMES, CLIP_SAMPLES, LABELS, SAMPLE_RATE_HZ, make_avdigits, plan
from dimml_training.avdigits.voices import SPLITS, VOICES
from support.commands import dimml

pytestmark = pytest.mark.slow(reason="speaks, draws and encodes a data set")

CLIPS = 20
SEED = 10


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set, made once."""
    root = tmp_path_factory.mktemp("avdigits")
    done: list[int] = []
    make_avdigits(root, clips=CLIPS, seed=SEED, jobs=2, progress=done.append)
    assert sum(done) == CLIPS
    return root


def rows(root: Path) -> list[dict[str, str]]:
    with (root / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*.mp4"))}


def test_the_manifest_lists_what_is_there(made: Path) -> None:
    listed = rows(made)
    assert len(listed) == CLIPS
    assert sorted(row["path"] for row in listed) == list(files(made))
    assert {row["split"] for row in listed} == set(SPLITS)
    assert {row["label"] for row in listed if row["split"] == "train"} == set(LABELS)
    for row in listed:
        assert row["subject"] in VOICES[row["split"]]  # type: ignore[index]  # checked by the line above


def test_every_clip_has_both_tracks_as_promised(made: Path) -> None:
    for path in made.rglob("*.mp4"):
        with av.open(str(path)) as container:
            video, audio = container.streams.video[0], container.streams.audio[0]
            assert (video.width, video.height, float(video.average_rate or 0)) == (96, 96, 12.5)
            assert (audio.sample_rate, audio.channels) == (SAMPLE_RATE_HZ, 1)
            pictures, sound = 0, []
            for frame in container.decode(video, audio):
                if isinstance(frame, av.VideoFrame):
                    pictures += 1
                else:
                    sound.append(frame.to_ndarray()[0])
        samples = np.concatenate(sound)
        assert pictures == CLIP_FRAMES
        assert CLIP_SAMPLES <= len(samples) < CLIP_SAMPLES + 2048
        assert 0.05 < np.abs(samples).max() < 1.2
        assert path.stat().st_size < 40_000


def test_an_interrupted_run_goes_on_and_ends_up_the_same(made: Path) -> None:
    before = files(made)
    by_voice: dict[str, list[str]] = {}
    for row in rows(made):
        by_voice.setdefault(row["subject"], []).append(row["path"])
    # The first clip of each voice, so that of some voices one clip is lost and another one kept.
    lost = [paths[0] for paths in by_voice.values()][::2] + [paths[0] for paths in by_voice.values() if len(paths) > 1]
    assert any(len(paths) > 1 for paths in by_voice.values())
    for name in lost:
        (made / name).unlink(missing_ok=True)
    (made / "manifest.csv").unlink()
    kept = {name: (made / name).stat().st_mtime_ns for name in before if name not in lost}
    make_avdigits(made, clips=CLIPS, seed=SEED, jobs=1)
    assert files(made) == before
    assert {name: (made / name).stat().st_mtime_ns for name in kept} == kept
    assert len(rows(made)) == CLIPS


def test_another_seed_is_not_mixed_in(made: Path) -> None:
    with pytest.raises(ConfigurationError, match="choose another folder"):
        make_avdigits(made, clips=CLIPS, seed=SEED + 1, jobs=1)


def test_a_folder_with_a_strange_recipe_is_refused(tmp_path: Path) -> None:
    (tmp_path / "avdigits.json").write_text("not json")
    with pytest.raises(DataError, match=r"avdigits\.json is not JSON"):
        make_avdigits(tmp_path, clips=CLIPS, seed=SEED, jobs=1)


def test_the_command_prints_the_manifest_and_refuses_politely(made: Path) -> None:
    said = dimml("make-avdigits", "--out", str(made), "--clips", str(CLIPS), "--seed", str(SEED))
    assert said.splitlines()[-1] == str(made / "manifest.csv")
    refused = dimml("make-avdigits", "--out", str(made), "--clips", str(CLIPS), "--seed", "11", code=1)
    assert "choose another folder" in refused
    assert "Traceback" not in refused
    dimml("make-avdigits", "--out", str(made), "--clips", "3", code=2, lines=None)


@pytest.fixture
def planned() -> list[tuple[str, int, str]]:
    return [(clip.split, clip.label, clip.voice) for clip in plan(2000, 1)]


def test_the_plan_splits_seven_to_one_to_two_and_balances_labels(planned: list[tuple[str, int, str]]) -> None:
    counts = {split: [label for s, label, _ in planned if s == split] for split in SPLITS}
    assert {split: len(labels) for split, labels in counts.items()} == {"train": 1400, "validation": 200, "test": 400}
    for labels in counts.values():
        assert np.ptp(np.bincount(labels, minlength=10)) == 0


def test_every_voice_is_used_and_none_in_two_splits(planned: list[tuple[str, int, str]]) -> None:
    used = {split: {voice for s, _, voice in planned if s == split} for split in SPLITS}
    assert used == {split: set(VOICES[split]) for split in SPLITS}
    assert sum(map(len, used.values())) == len(set.union(*used.values()))


def test_more_clips_only_append() -> None:
    assert plan(100, 3)[:40] == plan(40, 3)
    assert plan(40, 3) != plan(40, 4)
