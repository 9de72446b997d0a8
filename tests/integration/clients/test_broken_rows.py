"""What a file system, an archive or a host raises on opening a row is that row's error, and the run goes on."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import fsspec
import pyarrow.parquet as pq
import pytest

from dimml.errors import DataError
from dimml_client.scoring.engines.local import LocalEngine
from dimml_client.scoring.engines.protocol import Engine
from dimml_client.scoring.engines.remote import ServerEngine
from dimml_client.scoring.inputs.listing import list_inputs
from dimml_client.scoring.run.score_table import score_table
from support.broken_places import broken_manifest
from support.server_process import running_server

Make = Callable[[], Engine]


@pytest.fixture(scope="module", params=["local", "server"])
def engine(request: pytest.FixtureRequest, tiny_repository: Path) -> object:
    if request.param == "local":
        yield lambda: LocalEngine(tiny_repository, cores=2)
        return
    with running_server(tiny_repository) as running:
        yield lambda: ServerEngine(running.url, in_flight=4)


def test_every_row_is_there_with_its_own_error(engine: Make, mixed: Path, tmp_path: Path) -> None:
    manifest, codes = broken_manifest(tmp_path, (mixed / "red_000.mp4").read_bytes())
    out = tmp_path / "t.parquet"
    result = score_table(engine(), list_inputs([str(manifest)], {}, None), out)
    assert result.complete
    rows = pq.read_table(out).to_pylist()
    assert [row["error"] for row in rows] == codes
    assert {row["label"] for row in rows if row["error"] is None} == {"red"}


class _FullDisk(fsspec.AbstractFileSystem):
    """Stands in for a disk of temporary files without room."""

    protocol = "fulldisk"

    def info(self, path: str, **options: object) -> dict[str, object]:
        return {"name": path, "size": 1, "type": "file"}

    def get_file(self, rpath: str, lpath: str, *arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_no_room_for_copies_ends_the_run_and_is_not_laid_on_the_table(tiny_repository: Path, tmp_path: Path) -> None:
    fsspec.register_implementation("fulldisk", _FullDisk, clobber=True)
    out = tmp_path / "t.parquet"
    with pytest.raises(DataError, match=r"no copies of recordings in .*TMPDIR.*the same command goes on") as raised:
        score_table(LocalEngine(tiny_repository, cores=1), list_inputs(["fulldisk://a.mp4"], {}, None), out)
    assert "cannot write" not in raised.value.message
