"""A clip table is checked as a whole: one report names everything that is wrong with it."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from dimml.errors import DataError
from dimml_training.config import DataConfig
from dimml_training.data.manifest import ClipTable, read_clip_table

HEADER = ["media", "label", "split", "who", "from", "to"]
GOOD = [
    ["a.mp4", "yes", "train", "ann", "0.5", "1.5"],
    ["b.mp4", "no", "train", "bob", "0", "1"],
    ["a.mp4", "yes", "validation", "cy", "2", "3"],
    ["b.mp4", "no", "validation", "cy", "2", "3"],
    ["a.mp4", "yes", "test", "di", "4", "5"],
    ["b.mp4", "no", "test", "di", "4", "5"],
]


def read(
    folder: Path, rows: Sequence[Sequence[str]], modalities: Sequence[str] = ("audio",), **fields: Any
) -> ClipTable:
    for name in ("a.mp4", "b.mp4"):
        (folder / name).write_bytes(b"some media")
    with (folder / "clips.csv").open("w", newline="") as file:
        csv.writer(file).writerows([HEADER, *rows])
    columns = {"subject": "who", "start_s": "from", "end_s": "to", **fields.pop("columns", {})}
    config = DataConfig.model_validate({"manifest": str(folder / "clips.csv"), "columns": columns, **fields})
    return read_clip_table(config, modalities)


def test_a_good_table(tmp_path: Path) -> None:
    table = read(tmp_path, GOOD, ("audio", "visual"), margin_s=0.75)
    assert (table.problems, table.warnings) == ([], [])
    assert table.labels == ("no", "yes")
    first = table.split("train")[0]
    assert (first.label, first.subject, first.start_s, first.end_s) == ("yes", "ann", 0.0, 2.25)
    assert first.media == {"audio": tmp_path / "a.mp4", "visual": tmp_path / "a.mp4"}
    assert table.label_indices(table.split("test")).tolist() == [1, 0]


def test_everything_wrong_stands_in_one_report(tmp_path: Path) -> None:
    table = read(
        tmp_path,
        [
            *GOOD[:2],
            ["gone.mp4", "yes", "train", "ann", "0", "1"],
            ["a.mp4", "perhaps", "train", "ann", "0", "1"],
            ["a.mp4", "yes", "dev", "ann", "0", "1"],
            ["a.mp4", "yes", "train", "ann", "2", "1"],
            ["a.mp4", "yes", "train", "ann", "nan", "1"],
            ["", "yes", "train", "ann", "0", "1"],
            ["a.mp4", "", "test", "ann", "0", "1"],
            ["b.mp4", "no", "test", "bob", "0", "1"],
        ],
        labels=["yes", "no"],
        split_by="subject",
    )
    report = "\n".join(table.problems)
    for expected in (
        f"line 4: missing file {tmp_path / 'gone.mp4'}",
        "line 5: unknown label 'perhaps'",
        "line 6: unknown split 'dev'",
        "line 7: bad range from='2', to='1'",
        "line 8: bad range from='nan'",
        "line 9: no file in column 'media'",
        "line 10: no label",
        "the validation split is empty",
        "2 of 2 subjects stand in more than one split (subjects ann, bob)",
        "lines 3, 11: the same clip stands in test and train",
        "lines 5, 10: the same clip stands in test and train",
    ):
        assert expected in report
    assert len(table.problems) == 11
    with pytest.raises(DataError) as raised:
        table.raise_problems(tmp_path / "clips.csv")
    assert raised.value.problems == table.problems
    assert "11 problems" in raised.value.message


def test_rows_with_another_problem_still_count_for_repeats_and_subjects(tmp_path: Path) -> None:
    table = read(
        tmp_path,
        [*GOOD, ["a.mp4", "perhaps", "test", "ann", "0.5", "1.5"], ["gone.mp4", "yes", "test", "bob", "0", "1"]],
        labels=["yes", "no"],
    )
    assert "lines 2, 8: the same clip stands in test and train" in table.problems
    assert len(table.problems) == 3
    assert "2 of 4 subjects stand in more than one split (subjects ann, bob)" in table.warnings[0]


def test_a_problem_names_the_line_of_the_file(tmp_path: Path) -> None:
    read(tmp_path, GOOD)
    table = (tmp_path / "clips.csv").read_text()
    table += '\n\na.mp4,yes,dev,ann,0,1\n"a.mp4","yes","dev","an\nn",0,1\na.mp4,yes,dev,ann,0,1\n'
    (tmp_path / "clips.csv").write_text(table)
    config = DataConfig(manifest=str(tmp_path / "clips.csv"))
    last = len(table.splitlines())
    where = [problem.split(":")[0] for problem in read_clip_table(config, ["audio"]).problems if "dev" in problem]
    assert where == [f"lines {last - 3}, {last - 1}, {last}"]


def test_overlapping_subjects_are_a_warning_unless_the_split_is_by_subject(tmp_path: Path) -> None:
    rows = [*GOOD[:5], ["b.mp4", "no", "test", "ann", "4", "5"]]
    table = read(tmp_path, rows)
    assert table.problems == []
    assert table.warnings == [
        "1 of 4 subjects stand in more than one split (subject ann): figures say little about new subjects"
    ]
    assert read(tmp_path, rows, split_by="subject").problems == table.warnings


def test_labels_of_other_splits_must_be_in_training(tmp_path: Path) -> None:
    table = read(tmp_path, [*GOOD, ["a.mp4", "perhaps", "test", "di", "6", "7"]])
    assert table.problems == ["line 8: label 'perhaps' is not in the train split"]


def test_classes_without_clips(tmp_path: Path) -> None:
    table = read(tmp_path, GOOD[:3] + GOOD[4:], labels=["yes", "no", "maybe"])
    assert table.problems == ["the train split has no clip of class maybe"]
    assert table.warnings == [
        "the validation split has no clip of classes no, maybe",
        "the test split has no clip of class maybe",
    ]


def test_what_many_rows_have_wrong_is_one_line(tmp_path: Path) -> None:
    """GOOD has two rows each of train and validation and two of test; lines are counted from the header's, 1."""
    renamed = [[*row[:2], "val" if row[2] == "validation" else row[2], *row[3:]] for row in GOOD]
    many = [["a.mp4", "perhaps", "val", "ann", str(i), str(i + 1)] for i in range(20, 151)]
    unknown = [problem for problem in read(tmp_path, [*renamed, *many]).problems if "unknown split" in problem]
    first = 2 + len(GOOD)
    old = [2 + i for i, row in enumerate(GOOD) if row[2] == "validation"]
    named = [*old, *range(first, first + 131)]
    assert unknown == [
        f"lines {', '.join(map(str, named[:5]))} and {len(named) - 5} more: unknown split 'val', expected one of "
        "train, validation, test (data.splits gives them other names)"
    ]
    unseen = [["a.mp4", "perhaps", "test", "ann", str(i), str(i + 1)] for i in range(20, 151)]
    problems = read(tmp_path, [*GOOD, *unseen]).problems
    assert problems == [
        f"lines {', '.join(str(first + i) for i in range(5))} and 126 more: label 'perhaps' is not in the train split"
    ]


def test_one_column_per_modality(tmp_path: Path) -> None:
    rows = [[row[0], row[1], row[2], "b.mp4", *row[4:]] for row in GOOD]
    table = read(
        tmp_path, rows, ("audio", "visual"), columns={"media": {"audio": "media", "visual": "who"}, "subject": None}
    )
    assert table.problems == []
    assert table.clips[0].media == {"audio": tmp_path / "a.mp4", "visual": tmp_path / "b.mp4"}


def test_parquet_is_the_same_table(tmp_path: Path) -> None:
    expected = read(tmp_path, GOOD).clips
    table = [dict(zip(HEADER, row, strict=True)) for row in GOOD]
    typed = [{**row, "from": float(row["from"]), "to": float(row["to"])} for row in table]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(typed), tmp_path / "clips.parquet")
    columns = {"subject": "who", "start_s": "from", "end_s": "to"}
    config = DataConfig.model_validate({"manifest": str(tmp_path / "clips.parquet"), "columns": columns})
    assert read_clip_table(config, ["audio"]).clips == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read the clip table .*: No such file or directory; `dimml make-manifest` lists"),
        (b"", "holds no clips"),
        (b"media,label\n", "holds no clips"),
        (b"media,label\nx,y\n", "has no column 'split'; it has media, label"),
        (b"\xff\xfe\x00", "not CSV or Parquet"),
    ],
)
def test_a_table_that_cannot_be_judged(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "clips.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_clip_table(DataConfig(manifest=str(tmp_path / "clips.csv")), ["audio"])


def test_a_parquet_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "clips.parquet").write_bytes(b"media,label\n")
    with pytest.raises(DataError, match="not CSV or Parquet"):
        read_clip_table(DataConfig(manifest=str(tmp_path / "clips.parquet")), ["audio"])
