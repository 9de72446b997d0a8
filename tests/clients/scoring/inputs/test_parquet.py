"""Parquet manifests: the types of their columns, and recordings that stand in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dimml.errors import DataError, TooLargeError, UnreadableError
from dimml_client.scoring.inputs.listing import list_inputs
from dimml_client.scoring.inputs.locations import at_hand
from dimml_client.scoring.inputs.manifest import column_names
from dimml_client.scoring.recording import Recording
from support.hugging_face import inside, outside, write_parquet
from support.scoring import rows_of, score

CLASSES = {"label": ["zero", "one", "two"]}


def listed(*words: object, columns: tuple[str, ...] = ()) -> list[Recording]:
    return list(list_inputs([str(word) for word in words], column_names(list(columns)), None).recordings())


def content(location: str, max_bytes: int = 1000) -> bytes:
    with at_hand(location, max_bytes) as path:
        return path.read_bytes()


def test_recordings_in_the_table_are_read_from_it(tmp_path: Path) -> None:
    """In row groups of two: with bytes in all, in some, and in none."""
    media = [inside(b"a", "a.wav"), inside(b"b"), inside(b"c"), outside("d.wav"), outside("e.wav"), None, inside(b"g")]
    labels = [2, 0, 1, -1, None, 0, 1]
    table = write_parquet(
        tmp_path / "t.parquet", {"audio": media, "label": labels}, media={"audio": "Audio"}, classes=CLASSES
    )
    rows = listed(table)
    assert [row.truth for row in rows] == ["two", "zero", "one", None, None, "zero", "one"]
    assert [content(rows[k].path) for k in (6, 0, 2, 1)] == [b"g", b"a", b"c", b"b"]
    assert [rows[k].path for k in (3, 4)] == [f"{tmp_path}/d.wav", f"{tmp_path}/e.wav"]
    assert rows[5].problem == "line 6 names no file"
    assert rows[0].path == f"parquet://audio/0::file://{table}"
    assert content(listed(rows[0].path)[0].path) == b"a"


def test_what_a_cell_lacks_is_its_rows_error(tmp_path: Path) -> None:
    table = write_parquet(tmp_path / "t.parquet", {"video": [inside(b"abc")], "n": [1]}, media={"video": "Video"})
    for place, said in (
        ("video/7", "no such row"),
        ("video/x", "invalid literal"),
        ("n/0", "no column 'n' of recordings"),
    ):
        with pytest.raises(UnreadableError, match=said):
            content(f"parquet://{place}::file://{table}")
    with pytest.raises(UnreadableError, match="No such file"):
        content(f"parquet://video/0::file://{tmp_path}/gone.parquet")
    with pytest.raises(TooLargeError, match="3 bytes"):
        content(f"parquet://video/0::file://{table}", max_bytes=2)


def test_a_column_for_each_modality_a_plain_binary_one_and_tables_by_glob(tmp_path: Path) -> None:
    for number in range(2):
        columns = {"sound": [inside(b"s%d" % number)], "film": [inside(b"f%d" % number)]}
        write_parquet(tmp_path / f"{number}.parquet", columns, media={"sound": "Audio", "film": "Video"})
    with pytest.raises(DataError, match=r"holds recordings in sound, film; .* --column path_<modality>=COLUMN"):
        listed(tmp_path / "0.parquet")
    found = listed(tmp_path / "*.parquet", columns=("path_audio=sound", "path_visual=film"))
    assert [{k: content(v) for k, v in row.parts.items()} for row in found] == [
        {"audio": b"s0", "visual": b"f0"},
        {"audio": b"s1", "visual": b"f1"},
    ]
    pq.write_table(pa.table({"odd/name::x": pa.array([b"raw"], pa.large_binary())}), tmp_path / "raw.parquet")
    assert [content(row.path) for row in listed(tmp_path / "raw.parquet")] == [b"raw"]
    store = fsspec.filesystem("memory")
    store.pipe("/hub/raw.parquet", (tmp_path / "raw.parquet").read_bytes())
    try:
        assert [content(row.path) for row in listed("memory://hub/*.parquet")] == [b"raw"]
    finally:
        store.rm("/hub", recursive=True)
    with pytest.raises(DataError, match="no recordings in"):
        listed(tmp_path / "none-*.parquet")


@pytest.mark.parametrize(
    ("values", "truths"),
    [
        (pa.array([2, 10, None], pa.int64()), ["2", "10", None]),
        (pa.array([2.0, 10.0, None], pa.float64()), ["2", "10", None]),
        (pa.array([2.0, float("nan")], pa.float32()), ["2", None]),
        (pa.array(["2.0", "no", ""]), ["2.0", "no", None]),
        (pa.array(["b", "a"]).dictionary_encode(), ["b", "a"]),
        (pa.array([True, False]), ["True", "False"]),
    ],
)
def test_a_label_of_any_type_of_one_value(tmp_path: Path, values: pa.Array, truths: list[str | None]) -> None:
    """pandas makes floats of whole numbers where one is missing: 2.0 is class 2."""
    table = pa.table({"path": pa.array([f"{k}.mp4" for k in range(len(values))]), "label": values})
    pq.write_table(table, tmp_path / "t.parquet")
    assert [row.truth for row in listed(tmp_path / "t.parquet")] == truths


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("label", pa.array([[1, 2]]), r"column 'label', read as label, holds 'list<.*it must be one value"),
        ("label", pa.array([{"a": 1}]), "holds 'struct<a: int64>'; it must be one value"),
        ("label", pa.array([b"x" * 40_000]), "holds 'bytes'; it must be one value"),
        ("id", pa.array([b"x" * 40_000]), "column 'id', read as id, holds 'bytes'"),
        ("start_s", pa.array([b"1"]), "holds 'bytes'"),
        ("path_audio", pa.array([["a.wav", "b.wav"]]), "a recording is one file"),
    ],
)
def test_a_column_that_is_not_one_value_is_refused(tmp_path: Path, column: str, values: pa.Array, said: str) -> None:
    pq.write_table(pa.table({"path": ["a.mp4"], column: values}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=said) as raised:
        listed(tmp_path / "t.parquet")
    assert len(raised.value.message) < 300 + len(str(tmp_path))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"label": ["a", "b"]}, "label is a list, not one value: ['a', 'b']"),
        ({"label": 2.5}, "label is 2.5; a class is a whole number, or a name"),
        ({"id": {"a": "x" * 40_000}}, "id is an object, not one value"),
        ({"path": {"bytes": "x" * 40_000}}, "path is an object, not one value"),
        ({"start_s": "x" * 40_000}, "start_s is 'xxx"),
    ],
)
def test_a_nested_value_in_json_lines_is_its_rows_problem(tmp_path: Path, line: dict[str, Any], said: str) -> None:
    (tmp_path / "t.jsonl").write_text(json.dumps({"path": "a.mp4", **line}) + "\n" + json.dumps({"path": "b.mp4"}))
    bad, good = listed(tmp_path / "t.jsonl")
    assert good.problem is None
    assert bad.problem is not None
    assert said in bad.problem
    assert len(bad.problem) + len(bad.id) < 300 + len(str(tmp_path))


def test_a_data_set_of_hugging_face_is_scored_as_it_is(tiny_repository: Path, mixed: Path, tmp_path: Path) -> None:
    names = ["red", "green", "blue"]
    clips = [mixed / f"{names[k % 3]}_{k:03d}.mp4" for k in range(6)]
    table = write_parquet(
        tmp_path / "train-00000-of-00001.parquet",
        {
            "video": [*(inside(clip.read_bytes(), clip.name) for clip in clips), inside(b"no film"), None],
            "label": [*(k % 3 for k in range(6)), 0, 0],
        },
        media={"video": "Video"},
        classes={"label": names},
    )
    out = tmp_path / "t.parquet"
    assert score(table, "--out", out, "-q", repository=tiny_repository) == 3
    rows = rows_of(out)
    assert [row["label"] for row in rows[:6]] == [row["truth"] for row in rows[:6]] == names * 2
    assert [row["error"] for row in rows[6:]] == ["unusable_media", "invalid_parameter"]
    assert max(len(str(value)) for row in rows for value in row.values()) < 300 + len(str(tmp_path))
