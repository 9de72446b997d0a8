"""What the columns of a table are, which rows can be used, and the splits of those that have none."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from dimml.errors import ConfigurationError, DataError
from dimml_training.first_config.columns import InspectedTable, inspect_table
from dimml_training.first_config.rows import UsableRow, check_splits, usable_rows, with_splits


def inspected(folder: Path, text: str, *, files: int = 9, media: str = "clips", **given: object) -> InspectedTable:
    (folder / media).mkdir(exist_ok=True)
    for number in range(files):
        (folder / media / f"{number}.mp4").touch()
    path = folder / "table.csv"
    path.write_text(text)
    return inspect_table(path, **given)  # type: ignore[arg-type]


def test_columns_are_found_by_name_and_content(tmp_path: Path) -> None:
    text = "id,Path,Speaker,word,usage,word_start,word_end\n" + "".join(
        f"{n},{n}.mp4,ann,{'yes' if n % 2 else 'no'},{use},0.5,1.5\n"
        for n, use in enumerate(["training", "dev", "test", "training", "training", "training"])
    )
    table = inspected(tmp_path, text)
    columns = table.columns
    assert (columns.media, columns.label, columns.split, columns.subject) == (("Path",), "word", "usage", "Speaker")
    assert (columns.start_s, columns.end_s) == ("word_start", "word_end")
    assert table.splits == {"train": "training", "validation": "dev", "test": "test"}
    assert table.root == tmp_path / "clips"


def test_the_class_is_asked_for_where_several_columns_may_be_it(tmp_path: Path) -> None:
    text = "clip,colour,digit\n" + "".join(f"{n}.mp4,{'ab'[n % 2]},{n % 3}\n" for n in range(9))
    with pytest.raises(ConfigurationError, match="Give it with --label; likely ones are colour"):
        inspected(tmp_path, text)
    assert inspected(tmp_path, text, label="digit").columns.label == "digit"
    with pytest.raises(ConfigurationError, match=r"--label size: .* has no such column; it has clip, colour, digit"):
        inspected(tmp_path, text, label="size")


def test_a_column_of_files_that_are_not_there_costs_no_row(tmp_path: Path) -> None:
    text = "clip,thumbnail,label\n" + "".join(f"{n}.mp4,{n}.jpg,{'ab'[n % 2]}\n" for n in range(9))
    table = inspected(tmp_path, text)
    assert table.columns.media == ("clip",)
    assert len(usable_rows(table)[0]) == 9


def test_a_folder_and_a_table_without_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text("label,seconds\nyes,1\nno,2\n")
    with pytest.raises(DataError, match=r"is a folder: give a table, .*; it holds clips\.csv"):
        inspect_table(tmp_path)
    with pytest.raises(DataError, match=r"no column of media files \(it has label, seconds\)"):
        inspect_table(tmp_path / "clips.csv")


def test_rows_that_cannot_be_used_are_named_with_the_reason(tmp_path: Path) -> None:
    text = (
        "file,label,split,start,end\n"
        "0.mp4,yes,train,0,1\n"
        "gone.mp4,yes,train,0,1\n"
        "1.mp4,,train,0,1\n"
        ",no,train,0,1\n"
        "2.mp4,no,train,1,1\n"
        "0.mp4,yes,test,0,1\n"
        "3.mp4,no,,0,1\n"
    )
    rows, left_out = usable_rows(inspected(tmp_path, text))
    assert [(row.line, row.split) for row in rows] == [(2, "train"), (8, None)]
    assert [(out.line, out.reason) for out in left_out] == [
        (3, "missing file gone.mp4"),
        (4, "no label"),
        (5, "no file"),
        (6, "no time range (start, end)"),
        (7, "the same clip as line 2"),
    ]


def test_a_row_that_lacks_a_modality_is_of_use(tmp_path: Path) -> None:
    text = "audio,visual,label\n0.mp4,1.mp4,a\n,2.mp4,b\n3.mp4,,a\n,,b\n"
    table = inspected(tmp_path, text)
    assert table.columns.media == ("audio", "visual")
    rows, left_out = usable_rows(table)
    assert [row.files for row in rows] == [("0.mp4", "1.mp4"), ("", "2.mp4"), ("3.mp4", "")]
    assert [row.group for row in rows] == ["0.mp4", "2.mp4", "3.mp4"]
    assert [(out.line, out.reason) for out in left_out] == [(5, "no file")]


def row(line: int, label: str, split: str | None = None, subject: str | None = None, file: str = "") -> UsableRow:
    return UsableRow(line, (file or f"{line}.mp4",), label, split, subject)  # type: ignore[arg-type]


def test_without_splits_each_class_gives_its_share_and_at_least_one() -> None:
    """15 % of 40 recordings are 6, of 4 at least 1 each."""
    rows = [row(n, "many") for n in range(40)] + [row(n, "few") for n in range(40, 44)]
    placed = with_splits(rows)
    assert Counter((one.label, one.split) for one in placed) == {
        ("many", "train"): 28,
        ("many", "validation"): 6,
        ("many", "test"): 6,
        ("few", "train"): 2,
        ("few", "validation"): 1,
        ("few", "test"): 1,
    }
    assert [one.split for one in with_splits(rows)] == [one.split for one in placed]


@pytest.mark.parametrize("by", ["subject", "recording"])
def test_one_subject_or_recording_stays_in_one_split(by: str) -> None:
    rows = [
        row(n, "ab"[n // 30], subject=f"who{n // 5}" if by == "subject" else None, file=f"{n // 5}.mp4")
        for n in range(60)
    ]
    placed = with_splits(rows)
    splits: dict[str, set[str | None]] = {}
    for one in placed:
        splits.setdefault(one.group, set()).add(one.split)
    assert all(len(found) == 1 for found in splits.values())
    assert {one.split for one in placed} == {"train", "validation", "test"}


def test_splits_that_a_table_gives_stay_and_what_is_missing_comes_out_of_training() -> None:
    rows = [row(n, "ab"[n % 2], "train" if n < 12 else "test") for n in range(16)] + [row(16, "a")]
    placed = with_splits(rows)
    assert [one.split for one in placed if one.line in range(12, 16)] == ["test"] * 4
    assert Counter(one.split for one in placed) == {"train": 11, "validation": 2, "test": 4}
    assert check_splits(placed, Path("t.csv")) == []


def test_too_little_for_a_training_is_refused_with_what_is_missing() -> None:
    rows = with_splits([row(n, "ab"[n % 2]) for n in range(4)])
    with pytest.raises(DataError) as raised:
        check_splits(rows, Path("t.csv"))
    assert raised.value.problems == ["no clip for the validation split", "no clip for the test split"]
    assert "a class needs 3 recordings or more" in raised.value.message
