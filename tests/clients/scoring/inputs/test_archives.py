"""Recordings in tar and zip files, WebDataset shards, and lists of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest

from dimml.errors import DataError, UnreadableError
from dimml_client.scoring.inputs.listing import list_inputs
from dimml_client.scoring.inputs.locations import at_hand, beside, suffix
from dimml_client.scoring.inputs.manifest import column_names
from dimml_client.scoring.recording import Recording
from support.broken_places import write_tar, write_zip

SHARD = {
    "train/000.mp4": b"film 0",
    "train/000.cls": b"2\n",
    "train/000.json": b"{}",
    "train/001.cls": b"0",
    "train/001.mp4": b"film 1",
    "train/001.txt": b"words",
    "train/.hidden.mp4": b"no",
}


def listed(*words: object, columns: tuple[str, ...] = (), root: str | None = None) -> list[Recording]:
    return list(list_inputs([str(word) for word in words], column_names(list(columns)), root).recordings())


def content(location: str) -> bytes:
    with at_hand(location, 1000) as path:
        return path.read_bytes()


@pytest.mark.parametrize("name", ["s.tar", "s.tar.gz", "s.tgz", "s.tar.bz2", "s.tar.xz", "s.zip"])
def test_an_archive_lists_its_recordings_with_their_labels(tmp_path: Path, name: str) -> None:
    modes = {".gz": "w:gz", ".tgz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz"}
    path = tmp_path / name
    written = write_zip(path, SHARD) if path.suffix == ".zip" else write_tar(path, SHARD, modes.get(path.suffix, "w"))
    first, second = listed(written)
    assert (first.truth, second.truth) == ("2", "0")
    assert [content(one.path) for one in (first, second)] == [b"film 0", b"film 1"]
    scheme = "zip" if path.suffix == ".zip" else "tar"
    assert first.path == f"{scheme}://train/000.mp4::file://{path}"
    assert [one.path for one in listed(f"{scheme}://::file://{path}")] == [first.path, second.path]
    assert [one.path for one in listed(first.path)] == [first.path]
    assert [one.path for one in listed(f"{scheme}://train/*.mp4::file://{path}")] == [first.path, second.path]


def test_archives_in_folders_globs_stores_and_lists(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(2):
        write_tar(folder / f"{number}.tar", SHARD)
    (folder / "z.mp4").touch()
    expected = [f"tar://train/00{k}.mp4::file://{folder}/{n}.tar" for n in range(2) for k in range(2)]
    assert [one.path for one in listed(folder)] == [*expected, f"{folder}/z.mp4"]
    assert [one.path for one in listed(folder / "*.tar")] == expected
    (tmp_path / "list.txt").write_text("in/0.tar\n\nin/z.mp4\n")
    assert [one.path for one in listed(tmp_path / "list.txt")] == [*expected[:2], f"{folder}/z.mp4"]
    assert [one.path for one in listed(tmp_path / "list.txt", root="/data")][1:] == ["/data/in/z.mp4"]
    store = fsspec.filesystem("memory")
    store.pipe("/shards/0.tar", (folder / "0.tar").read_bytes())
    try:
        paths = [one.path for one in listed("memory://shards")]
        assert paths == [f"tar://train/00{k}.mp4::memory:///shards/0.tar" for k in range(2)]
        assert content(paths[1]) == b"film 1"
    finally:
        store.rm("/shards", recursive=True)


def test_endings_of_a_sample_are_named_as_columns(tmp_path: Path) -> None:
    files = {"a.wav": b"sound a", "a.jpg": b"picture a", "a.cls": b"1", "b.wav": b"sound b", "b.jpg": b"picture b"}
    a, b = listed(write_tar(tmp_path / "s.tar", files), columns=("path_audio=wav", "path_visual=jpg"))
    assert {name: content(place) for name, place in a.parts.items()} == {"audio": b"sound a", "visual": b"picture a"}
    assert (a.truth, b.truth) == ("1", None)


def test_a_manifest_in_an_archive_names_what_lies_beside_it(tmp_path: Path) -> None:
    files = {"part/list.csv": b"path\na.mp4\n/abs.mp4\n", "part/a.mp4": b"film"}
    write_zip(tmp_path / "s.zip", files)
    location = f"zip://part/list.csv::file://{tmp_path}/s.zip"
    assert suffix(location) == ".csv"
    first, second = listed(location)
    assert content(first.path) == b"film"
    assert second.path == "/abs.mp4"
    assert beside("zip://list.csv::s3://b/s.zip", "a.mp4") == "zip://a.mp4::s3://b/s.zip"
    assert beside("s3://b/list.csv", "a.mp4") == "s3://b/a.mp4"


def noise(path: Path) -> None:
    path.write_bytes(b"no archive" * 100)


def damage_inside(path: Path) -> None:
    write_tar(path, {f"{k}.mp4": b"film" for k in range(3)})
    content = bytearray(path.read_bytes())
    content[2 * 1024 : 2 * 1024 + 512] = b"\x07" * 512
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "members", "said"),
    [(noise, 0, "cannot read"), (damage_inside, 2, "after 2 files"), (lambda path: None, 0, "No such file")],
)
def test_a_damaged_archive_has_a_row_of_its_own(
    tmp_path: Path, harm: Callable[[Path], None], members: int, said: str
) -> None:
    """tarfile alone takes a header that it cannot read for the archive's end, and the files behind it are gone."""
    path = tmp_path / "s.tar"
    harm(path)
    found = listed(path, tmp_path / "other.mp4")
    assert [one.id for one in found[members:]] == [str(path), str(tmp_path / "other.mp4")]
    assert len(found) == members + 2
    with pytest.raises(UnreadableError, match=said), at_hand(found[members].path, 10):
        pass


def test_an_archive_without_recordings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no recordings in"):
        listed(write_tar(tmp_path / "s.tar", {"a.txt": b"words"}))


def test_a_name_that_is_no_text_has_a_row(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    (tmp_path / os.fsdecode(b"\xff.mp4")).touch()
    good, bad = listed(tmp_path)
    assert good.problem is None
    assert bad.path == f"{tmp_path}/\\xff.mp4"
    assert bad.problem is not None
    assert "not UTF-8" in bad.problem


def test_many_archives_are_read_by_many_threads(tmp_path: Path) -> None:
    """Their files are shared by the threads, and no more than a few stay open."""
    members = {f"{k}.mp4": b"%03d" % k * 100 for k in range(20)}
    for number in range(12):
        write_tar(tmp_path / f"{number}.tar", {name: b"%02d" % number + data for name, data in members.items()})
    places = [(k, n, f"tar://{k}.mp4::file://{tmp_path}/{n}.tar") for k in range(20) for n in range(12)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda place: content(place[2]), places))
    assert found == [b"%02d" % n + members[f"{k}.mp4"] for k, n, _ in places]
    files = [one for one in Path("/proc/self/fd").iterdir() if one.resolve().is_relative_to(tmp_path)]
    assert len(files) <= 8
