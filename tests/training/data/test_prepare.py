"""Preparing a data set: unusable or repeated clips are reported; the cache follows content."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from dimml.cli import main
from dimml.errors import DataError
from dimml.modality import Frames
from dimml_training.config import parse_config
from dimml_training.data.cache import ClipCache
from dimml_training.data.prepare import prepare
from dimml_training.evaluation.heads import head_logits
from dimml_training.loop.train import train
from dimml_training.run.directory import load_run
from support.media_maker import tone, write_clip
from support.tiny_training import configured, document, stripes


def test_media_that_cannot_be_used_stand_in_one_report_with_the_rest(clips: Path, tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    for source in clips.parent.glob("*.mp4"):
        (folder / source.name).symlink_to(source)
    write_clip(folder / "silent.mp4", 0.8, sound="silence")
    write_clip(folder / "frozen.mp4", 0.8, picture="frozen")
    (folder / "broken.mp4").write_bytes(b"this is no recording")
    extra = [
        *(f"{name}.mp4,low,train,x,0.2,0.7" for name in ("silent", "frozen", "broken", "gone")),
        "train_low_0.mp4,low,train,x,0.9,1.4",
        "train_low_0.mp4,low,train,x,0.2,5",
    ]
    manifest = folder / "clips.csv"
    manifest.write_text(clips.read_text() + "\n".join(extra) + "\n")
    with pytest.raises(DataError) as raised:
        prepare(configured(manifest), tmp_path / "cache")
    report = raised.value.message
    for expected in (
        "silent.mp4: audio unusable:silent",
        "frozen.mp4: visual unusable:frozen",
        "broken.mp4: audio unusable:undecodable, visual unusable:undecodable (its first bytes are those of no media",
        "missing file " + str(folder / "gone.mp4"),
        "line 28: " + str(folder / "train_low_0.mp4"),
        "end_s (5) is past the end of the media (0.8",
    ):
        assert expected in report
    assert len(raised.value.problems) == 6
    assert raised.value.problems[-1] not in raised.value.problems[:-1]


def test_the_cache_follows_content(clips: Path, tmp_path: Path) -> None:
    """Decoded once, whatever the file is called; again when what is in it changes."""
    folder, store = tmp_path / "clips", tmp_path / "cache"
    folder.mkdir()
    for source in (clips, *clips.parent.glob("*.mp4")):
        (folder / source.name).write_bytes(source.read_bytes())
    decoded: list[int] = []

    def count(done: int, total: int) -> None:
        decoded.append(done)

    config = configured(folder / "clips.csv")
    first = prepare(config, store, progress=count)
    assert decoded == list(range(1, 23))
    decoded.clear()
    prepare(config, store, progress=count)
    assert decoded == []
    (folder / "train_low_0.mp4").rename(folder / "moved.mp4")
    (folder / "clips.csv").write_text((folder / "clips.csv").read_text().replace("train_low_0.mp4", "moved.mp4"))
    prepare(config, store, progress=count)
    assert decoded == []
    write_clip(folder / "moved.mp4", 0.8, sound=tone(700), picture=stripes(9))
    changed = prepare(config, store, progress=count)
    assert decoded == [1]
    before, after = first.splits["train"].rows, changed.splits["train"].rows
    differ = [not np.array_equal(before.rows("audio", [i]), after.rows("audio", [i])) for i in range(10)]
    assert differ == [clip.media["audio"].name == "moved.mp4" for clip in changed.splits["train"].clips]
    # A damaged row is decoded again; the sound ones are not.
    expected = changed.splits["test"].rows.rows("visual", slice(None))
    folder_of_rows = ClipCache(store, config.inputs, config.clip_s, config.quality).folder
    with (folder_of_rows / "visual.rows").open("rb+") as file:
        file.seek(int(changed.splits["test"].rows.slots[0]) * expected[0].nbytes)
        file.write(b"\x00" * 10)
    decoded.clear()
    healed = prepare(config, store, progress=count)
    assert decoded == [1]
    np.testing.assert_array_equal(healed.splits["test"].rows.rows("visual", slice(None)), expected)


def test_a_copy_of_a_clip_in_another_split_is_refused(clips: Path, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "copy.mp4").write_bytes((clips.parent / "train_low_0.mp4").read_bytes())
    manifest = table(clips, tmp_path, "copy.mp4,low,test,x,0.2,0.7", "copy.mp4,low,train,x,0.2,0.7")
    with pytest.raises(DataError) as raised:
        prepare(configured(manifest), cache)
    assert len(raised.value.problems) == 2
    assert raised.value.problems[0] == "lines 24, 25: the same clip stands in test and train"
    assert raised.value.problems[1].startswith("lines 2, 24, 25: the same content stands in test and train: ")
    assert "copy.mp4" in raised.value.problems[1]
    again = table(clips, tmp_path, "copy.mp4,low,train,x,0.2,0.7")
    assert prepare(configured(again), cache).splits["train"].rows.labels.sum() == 6, "within a split it may repeat"


def test_ranges_that_overlap_across_splits_are_a_warning(
    clips: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "copy.mp4").write_bytes((clips.parent / "train_low_0.mp4").read_bytes())
    # Lines 2 and 24 are one recording; only with the margin of 0.3 s do their ranges meet.
    manifest = table(clips, tmp_path, "copy.mp4,low,test,low0,0.05,0.15")
    content = document(manifest)
    data = prepare(parse_config(content, "test"), cache)
    expected = "ranges of one recording overlap across splits (lines 2 and 24): figures are too good"
    assert expected in data.warnings
    content["data"]["margin_s"] = 0.0
    assert prepare(parse_config(content, "test"), cache).warnings == data.warnings[:1]
    # The run repeats it, and so does the evaluation of one split, which cannot see the other's files.
    content["data"]["margin_s"] = 0.3
    content["stage1"] |= {"epochs": 1, "lambda_duc": 0.0}
    train(parse_config(content, "test"), tmp_path / "run", cache_dir=cache)
    assert expected in load_run(tmp_path / "run").training["warnings"]
    assert main(["evaluate", str(tmp_path / "run"), "--cache-dir", str(cache), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["warnings"] == data.warnings


def test_what_is_accepted_does_not_depend_on_what_is_cached(clips: Path, tmp_path: Path) -> None:
    """0.7 + 0.3 s of margin may reach past the end at 0.8 s; 1.0 s may not."""
    prepare(configured(clips), tmp_path / "cache")
    manifest = tmp_path / "clips.csv"
    manifest.write_text(clips.read_text().replace(",0.2,0.7", ",0.0,1.0"))
    content = document(manifest)
    content["data"] |= {"margin_s": 0.0, "media_root": str(clips.parent)}
    for store in ("cache", "empty"):
        with pytest.raises(DataError, match="22 problems"):
            prepare(parse_config(content, "test"), tmp_path / store)


def test_a_long_range_whose_margin_reaches_past_the_end_is_cut_to_its_middle(clips: Path, tmp_path: Path) -> None:
    """0.3 to 0.79 s with 0.4 s of margin is 0 to 0.8 s, where the recording ends, of which 0.5 s are 0.15 to 0.65 s."""
    (tmp_path / "long.csv").write_text(clips.read_text().replace(",0.2,0.7", ",0.3,0.79"))
    content = document(tmp_path / "long.csv")
    content["data"]["media_root"] = str(clips.parent)
    content["data"]["margin_s"] = 0.4
    widened = prepare(parse_config(content, "test"), tmp_path / "cache")
    text = clips.read_text().replace(",0.2,0.7", ",0.15,0.65")
    (tmp_path / "clips.csv").write_text(text)
    content = document(tmp_path / "clips.csv")
    content["data"] |= {"margin_s": 0.0, "media_root": str(clips.parent)}
    middle = prepare(parse_config(content, "test"), tmp_path / "cache")
    for name in ("audio", "visual"):
        expected = middle.splits["test"].rows.rows(name, slice(None))
        np.testing.assert_array_equal(widened.splits["test"].rows.rows(name, slice(None)), expected)


def test_a_still_picture_is_judged_as_at_serving(clips: Path, tmp_path: Path) -> None:
    """A PNG fills every frame: `ok` to the decoder, which knows that the frames are of one time, so no freezing."""
    lines = ["sound,picture,label,split"]
    for number, line in enumerate(clips.read_text().splitlines()[1:]):
        media, label, split, *_ = line.split(",")
        pixels = stripes(6 if label == "low" else 24)(number)
        assert cv2.imwrite(str(tmp_path / f"{number}.png"), pixels)
        lines.append(f"{clips.parent / media},{number}.png,{label},{split}")
    (tmp_path / "clips.csv").write_text("\n".join(lines) + "\n")
    content = document(tmp_path / "clips.csv")
    content["data"] = {
        "manifest": str(tmp_path / "clips.csv"),
        "columns": {"media": {"audio": "sound", "visual": "picture"}},
    }
    content["stage1"] |= {"epochs": 2}
    config = parse_config(content, "test")
    assert [m.frames for m in config.inputs if isinstance(m, Frames)] == [3]
    metrics = train(config, tmp_path / "run", cache_dir=tmp_path / "cache")
    run = load_run(tmp_path / "run")
    assert run.quality_report["visual"]["false_alarms"]["frozen"] == 0
    assert metrics["test"]["heads"]["visual"]["mean_weight"] > 0.0
    rows = prepare(config, tmp_path / "cache").splits["test"].rows
    votes = head_logits(run.encoders, run.fused_head, run.modalities, rows, run.quality)
    assert votes.present_NH.all()


def table(clips: Path, folder: Path, *lines: str) -> Path:
    """The clips' table with more lines, in another folder that has the clips too."""
    for source in clips.parent.glob("*.mp4"):
        if not (folder / source.name).exists():
            (folder / source.name).symlink_to(source)
    manifest = folder / "clips.csv"
    manifest.write_text(clips.read_text() + "".join(f"{line}\n" for line in lines))
    return manifest
