"""From the command line's words to a listing: manifests, folders, globs, URLs, and what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dimml.errors import ConfigurationError, DataError, TooLargeError, UnreadableError
from dimml_client.scoring.inputs.listing import list_inputs
from dimml_client.scoring.inputs.locations import at_hand
from dimml_client.scoring.inputs.manifest import column_names
from dimml_client.scoring.recording import Recording

LINES: list[dict[str, Any]] = [
    {"id": "a", "path": "a.mp4", "path_audio": None, "start_s": None, "end_s": None, "label": "one"},
    {"id": "b", "path": "/abs/b.mp4", "path_audio": "b.wav", "start_s": 1.5, "end_s": 3.0, "label": None},
    {"id": "c", "path": None, "path_audio": "c.wav", "start_s": 2.0, "end_s": 1.0, "label": "two"},
    {"id": "d", "path": None, "path_audio": None, "start_s": None, "end_s": None, "label": None},
]


def listed(*words: object, columns: dict[str, str] | None = None, root: str | None = None) -> list[Recording]:
    return list(list_inputs([str(word) for word in words], columns or {}, root).recordings())


def write(path: Path) -> Path:
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(LINES[0]))
            writer.writeheader()
            writer.writerows(LINES)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(line) + "\n\n" for line in LINES))
    else:
        pq.write_table(pa.Table.from_pylist(LINES), path)
    return path


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_manifest_reads_the_same_in_every_format(tmp_path: Path, ending: str) -> None:
    a, b, c, d = listed(write(tmp_path / f"m.{ending}"))
    assert (a.id, a.parts, a.truth, a.problem) == ("a", {"media": f"{tmp_path}/a.mp4"}, "one", None)
    assert b.parts == {"media": "/abs/b.mp4", "audio": f"{tmp_path}/b.wav"}
    assert (b.start_s, b.end_s, b.truth) == (1.5, 3.0, None)
    assert c.problem is not None
    assert "end_s" in c.problem
    assert d.problem is not None
    assert "names no file" in d.problem


def test_own_names_of_columns_and_a_root(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("clip,from\nx.mp4,nonsense\n")
    (one,) = listed(tmp_path / "m.csv", columns=column_names(["path=clip", "start_s=from"]), root="/data")
    assert one.parts == {"media": "/data/x.mp4"}
    assert one.problem is not None
    assert "'nonsense'" in one.problem
    with pytest.raises(DataError, match="no column 'film'"):
        listed(tmp_path / "m.csv", columns={"path": "film"})
    with pytest.raises(DataError, match="--column path=COLUMN"):
        listed(tmp_path / "m.csv")
    with pytest.raises(ConfigurationError, match="NAME=COLUMN"):
        column_names(["colour=clip"])


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("m.csv", b""),
        ("m.csv", b"path\n\xff\xfe\n"),
        ("m.jsonl", b"[1]\n"),
        ("m.jsonl", b"{\n"),
        ("m.parquet", b"PAR1"),
    ],
)
def test_a_manifest_that_is_none_is_refused_by_name(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=name):
        listed(tmp_path / name)


def test_folders_and_globs_are_walked_by_name_and_what_is_named_keeps_its_place(tmp_path: Path) -> None:
    for name in ("b.mp4", "a.wav", "sub/c.mp4", ".hidden.mp4", ".git/d.mp4", "table.csv", "meta.json"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    names = [Path(one.path).name for one in listed(tmp_path / "z.mp4", tmp_path / "in", tmp_path / "in" / "*.mp4")]
    assert names == ["z.mp4", "a.wav", "b.mp4", "c.mp4", "b.mp4"]
    with pytest.raises(DataError, match="no recordings in"):
        listed(tmp_path / "in" / "*.avi")


def test_a_path_twice_has_two_rows_and_is_counted() -> None:
    listing = list_inputs(["x.mp4", "y.mp4", "x.mp4", "x.mp4"], {}, None)
    assert [one.id for one in listing.recordings()] == ["x.mp4", "y.mp4", "x.mp4#2", "x.mp4#3"]
    assert listing.repeated == 1


def test_ids_that_stand_twice_are_refused_with_their_lines(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("id,path\none,a.mp4\ntwo,b.mp4\none,c.mp4\n")
    with pytest.raises(DataError, match=r"line 4 of .*m.csv has the id 'one' of line 2"):
        listed(tmp_path / "m.csv")


def test_an_object_store_is_listed_and_its_objects_are_fetched() -> None:
    store = fsspec.filesystem("memory")
    store.pipe({"/bucket/b.mp4": b"two", "/bucket/a.mp4": b"one", "/bucket/list.csv": b"path\nb.mp4\n"})
    try:
        assert [one.path for one in listed("memory://bucket")] == ["memory:///bucket/a.mp4", "memory:///bucket/b.mp4"]
        (one,) = listed("memory://bucket/list.csv")
        with at_hand(one.path, 10) as path:
            assert path.read_bytes() == b"two"
        assert not path.exists()
        with pytest.raises(UnreadableError, match="no such object"), at_hand("memory://bucket/gone.mp4", 10):
            pass
        with pytest.raises(TooLargeError, match="max_bytes"), at_hand("memory://bucket/a.mp4", 2):
            pass
        with pytest.raises(ConfigurationError, match=r"docs/scoring\.md"):
            listed("nosuch://bucket/a.mp4")
    finally:
        store.rm("/bucket", recursive=True)
