"""Clip tables in Parquet: recordings within them, classes as numbers, and columns of the wrong type."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dimml.errors import DataError
from dimml_training.config import DataConfig
from dimml_training.data.manifest import ClipTable, read_clip_table
from dimml_training.data.prepare import prepare
from support.hugging_face import inside, outside, write_parquet
from support.tiny_training import configured, write_clips

SPLITS = ["train", "train", "train", "validation", "test"]


def read(folder: Path, name: str = "t.parquet", **fields: Any) -> ClipTable:
    config = DataConfig.model_validate({"manifest": str(folder / name), **fields})
    return read_clip_table(config, ["audio"], folder / "kept")


def write(folder: Path, label: pa.Array, **columns: pa.Array) -> None:
    """Five clips, three of them for training."""
    media = [f"{k}.mp4" for k in range(5)]
    for name in media:
        (folder / name).write_bytes(name.encode())
    pq.write_table(pa.table({"media": media, "split": SPLITS, "label": label, **columns}), folder / "t.parquet")


@pytest.mark.parametrize(
    ("label", "labels"),
    [
        (pa.array([10, 2, 9, 2, 10]), ("2", "9", "10")),
        (pa.array([10.0, 2.0, 9.0, 2.0, 10.0]), ("2", "9", "10")),
        (pa.array(["10", "2", "9", "2", "10"]), ("2", "9", "10")),
        (pa.array(["10", "b", "9", "9", "10"]), ("10", "9", "b")),
    ],
)
def test_whole_numbers_keep_their_order(tmp_path: Path, label: pa.Array, labels: tuple[str, ...]) -> None:
    write(tmp_path, label)
    table = read(tmp_path)
    assert (table.problems, table.labels) == ([], labels)


def test_a_label_that_is_no_class_is_a_problem(tmp_path: Path) -> None:
    write(tmp_path, pa.array([1.0, 2.5, 2.0, 1.0, None]))
    assert "line 3: label is 2.5; a class is a whole number, or a name" in read(tmp_path).problems
    assert "line 6: no label" in read(tmp_path).problems


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"label": pa.array([["a", "b"]] * 5)}, "column 'label' holds 'list<.*it must be one value"),
        ({"label": pa.array([b"x" * 40_000] * 5)}, "column 'label' holds 'bytes'; it must be one value"),
        ({"split": pa.array([{"a": 1}] * 5)}, "column 'split' holds 'struct<a: int64>'"),
        ({"media": pa.array([["a.wav"]] * 5)}, "column 'media' holds .*a recording is one file"),
    ],
)
def test_a_column_that_is_not_one_value_is_refused(tmp_path: Path, columns: dict[str, pa.Array], said: str) -> None:
    table: dict[str, Any] = {"media": ["a.mp4"] * 5, "split": SPLITS, "label": ["a"] * 5}
    pq.write_table(pa.table({**table, **columns}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=said) as raised:
        read(tmp_path)
    assert len(raised.value.message) < 300 + len(str(tmp_path))


def test_recordings_in_the_table_are_kept_by_content_and_classes_are_named(tmp_path: Path) -> None:
    (tmp_path / "e.wav").write_bytes(b"e")
    media = [inside(b"a", "a.wav"), inside(b"b"), inside(b"a"), inside(b"d"), outside("e.wav")]
    names = ["yes", "unused", "no"]
    columns = {"media": media, "split": SPLITS, "label": [2, 0, 2, 0, 2]}
    write_parquet(tmp_path / "t.parquet", columns, media={"media": "Audio"}, classes={"label": names})
    table = read(tmp_path)
    assert table.problems == []
    assert table.labels == ("yes", "no")
    assert [clip.label for clip in table.clips] == ["no", "yes", "no", "yes", "no"]
    kept = [clip.media["audio"] for clip in table.clips]
    assert [path.read_bytes() for path in kept] == [b"a", b"b", b"a", b"d", b"e"]
    assert kept[0] == kept[2] == tmp_path / "kept" / hashlib.sha256(b"a").hexdigest()
    assert len(list((tmp_path / "kept").iterdir())) == 3
    columns["label"] = [2, 3, 2, -1, 2]
    write_parquet(tmp_path / "t.parquet", columns, media={"media": "Audio"}, classes={"label": names})
    problems = read(tmp_path).problems
    assert "line 3: label is 3; the 3 classes are numbered from 0" in problems
    assert "line 5: no label" in problems


def test_a_table_for_each_split(tmp_path: Path) -> None:
    for name, label in (("train-0", "a"), ("train-1", "b"), ("validation-0", "a"), ("test-0", "c")):
        (tmp_path / f"{name}.mp4").touch()
        pq.write_table(pa.table({"media": [f"{name}.mp4"], "label": [label]}), tmp_path / f"{name}.parquet")
    table = read(tmp_path, "{split}-*.parquet")
    assert [(clip.split, clip.label) for clip in table.clips] == [("train", "a"), ("train", "b"), ("validation", "a")]
    assert table.problems[-1] == "line 2 of test-0.parquet: label 'c' is not in the train split"
    with pytest.raises(DataError, match=r"no clip table .*dev-\*\.parquet, for the validation split"):
        read(tmp_path, "{split}-*.parquet", splits={"train": "train", "validation": "dev", "test": "test"})


def test_a_data_set_of_hugging_face_has_the_rows_of_its_files(tmp_path: Path) -> None:
    """Decoded from the files of a CSV table, and from the same recordings within Parquet: the same bits."""
    manifest = write_clips(tmp_path)
    expected = prepare(configured(manifest), tmp_path / "cache")
    with manifest.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for split in ("train", "validation", "test"):
        mine = [row for row in rows if row["split"] == split]
        columns = {
            "media": [inside((tmp_path / row["media"]).read_bytes(), row["media"]) for row in mine],
            "label": [["high", "low"].index(row["label"]) for row in mine],
            "subject": [row["subject"] for row in mine],
            "start_s": [float(row["start_s"]) for row in mine],
            "end_s": [float(row["end_s"]) for row in mine],
        }
        path = tmp_path / f"{split}-00000-of-00001.parquet"
        write_parquet(path, columns, media={"media": "Video"}, classes={"label": ["high", "low"]})
    found = prepare(configured(tmp_path / "{split}-*.parquet"), tmp_path / "cache")
    assert found.labels == expected.labels == ("high", "low")
    assert found.digest == expected.digest
    for split, data in expected.splits.items():
        assert found.splits[split].rows.labels.tolist() == data.rows.labels.tolist()
        for name in ("audio", "visual"):
            everything = range(len(data.rows))
            np.testing.assert_array_equal(
                found.splits[split].rows.rows(name, everything), data.rows.rows(name, everything)
            )


def test_a_run_whose_numbers_were_sorted_as_text_keeps_its_order(tmp_path: Path) -> None:
    manifest = write_clips(tmp_path)
    manifest.write_text(manifest.read_text().replace(",low,", ",10,").replace(",high,", ",9,"))
    assert prepare(configured(manifest), tmp_path / "cache").labels == ("9", "10")
    old = prepare(configured(manifest), tmp_path / "cache", labels=("10", "9"))
    assert old.labels == ("10", "9")
    assert [old.labels[k] for k in old.splits["test"].rows.labels] == [c.label for c in old.splits["test"].clips]
