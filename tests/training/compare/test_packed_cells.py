"""Packed cells: nothing is lost, the same cells give the same bytes, and everything that reads cells reads them."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pytest

from dimml.errors import SetupError
from dimml_training.compare.cells import write_cell
from dimml_training.compare.packed_cells import find_cell, pack, read_cells, unpack
from support.data import REPOSITORY_ROOT
from support.made_up_cells import cell

RESULTS = REPOSITORY_ROOT / "docs" / "results"


@pytest.fixture
def loose(tmp_path: Path) -> Path:
    """A results folder with six cells of two data sets; one name has a colon, one text is not ASCII."""
    out = tmp_path / "loose"
    for data in ("made_up", "made_up_hard"):
        for method, repeat in (("single:audio", 0), ("dimml", 0), ("dimml", 1)):
            write_cell(out, cell(method, repeat, 0.6, data=data, description="λ = 1", validation={"clean": 0.1})[0])
    return out


def contents(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_packing_and_unpacking_give_the_same_files(loose: Path, tmp_path: Path) -> None:
    before = contents(loose)
    written = pack(loose)
    assert [path.name for path in written] == ["made_up.jsonl.gz", "made_up_hard.jsonl.gz"]
    assert sorted(contents(loose)) == ["cells/made_up.jsonl.gz", "cells/made_up_hard.jsonl.gz"]
    assert len(unpack(loose, tmp_path / "again")) == 6
    assert contents(tmp_path / "again") == before


def test_a_line_holds_all_that_the_loose_file_holds(loose: Path) -> None:
    """By the standard library alone, as somebody without dimml would read it."""
    files = sorted((loose / "cells" / "made_up").glob("*.json"))
    expected = [json.loads(path.read_bytes()) for path in files]
    (packed, _) = pack(loose)
    assert [json.loads(line) for line in gzip.decompress(packed.read_bytes()).splitlines()] == expected


def test_the_same_cells_give_the_same_bytes(loose: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    for one in reversed(list(read_cells(loose))):
        write_cell(other, one)
    for out in (loose, other):
        pack(out)
    assert contents(loose) == contents(other)
    assert gzip.GzipFile(loose / "cells" / "made_up.jsonl.gz").read(1) == b"{"
    assert (loose / "cells" / "made_up.jsonl.gz").read_bytes()[3:8] == bytes(5), "no file name, no time"


def test_cells_are_read_alike_loose_and_packed(loose: Path) -> None:
    before = list(read_cells(loose))
    pack(loose)
    assert list(read_cells(loose)) == before
    assert find_cell(loose, "made_up", "single:audio", 0) == before[2]
    assert find_cell(loose, "made_up", "dimml", 2) is None
    assert find_cell(loose, "elsewhere", "dimml", 0) is None


def test_a_loose_cell_counts_before_a_packed_one_and_is_packed_over_it(loose: Path) -> None:
    pack(loose)
    newer, _ = cell("dimml", 1, 0.9, seconds_training=7.0)
    added, _ = cell("late_logits", 0, 0.5)
    for one in (newer, added):
        write_cell(loose, one)
    found = [one for one in read_cells(loose) if one.data == "made_up"]
    assert [(one.method, one.repeat) for one in found] == [
        ("dimml", 0),
        ("dimml", 1),
        ("late_logits", 0),
        ("single:audio", 0),
    ]
    assert found[1] == newer == find_cell(loose, "made_up", "dimml", 1)
    (written,) = pack(loose)
    assert written.name == "made_up.jsonl.gz"
    assert [one for one in read_cells(loose) if one.data == "made_up"] == found
    assert not (loose / "cells" / "made_up").exists()
    assert pack(loose) == []


def test_what_cannot_be_read_is_named_and_nothing_is_removed(loose: Path) -> None:
    pack(loose)
    path = loose / "cells" / "made_up.jsonl.gz"
    whole = gzip.decompress(path.read_bytes())
    damaged = [
        path.read_bytes()[:-20],
        whole,
        gzip.compress(b"[]\n"),
        gzip.compress(whole.replace(b'"clips":', b'"x":')),
    ]
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(SetupError, match=r"made_up\.jsonl\.gz"):
            list(read_cells(loose))
    kept = write_cell(loose, cell("dimml", 0, 0.6)[0])
    with pytest.raises(SetupError, match=r"made_up\.jsonl\.gz"):
        pack(loose)
    assert kept.is_file()
    assert path.read_bytes() == damaged[-1]
    kept.write_text("{}")
    path.unlink()
    with pytest.raises(SetupError, match=r"dimml__0\.json"):
        pack(loose)
    assert kept.is_file()


def test_the_committed_results_are_packed_as_this_packs_them(tmp_path: Path) -> None:
    """Down to the text; compressed bytes may differ between versions of zlib."""
    committed = sorted((RESULTS / "cells").glob("*.jsonl.gz"))
    assert len(committed) >= 6
    smallest = min(committed, key=lambda path: path.stat().st_size)
    (tmp_path / "cells").mkdir()
    shutil.copy(smallest, tmp_path / "cells")
    unpack(tmp_path, tmp_path)
    (tmp_path / "cells" / smallest.name).unlink()
    (again,) = pack(tmp_path)
    assert gzip.decompress(again.read_bytes()) == gzip.decompress(smallest.read_bytes())
