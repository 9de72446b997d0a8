"""Bodies past the threshold are on disk: without a name, readable to the end, and gone with it."""

from __future__ import annotations

import asyncio
import gc
import mmap
import os
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from dimml.errors import UnavailableError
from dimml_server.kserve.http.compression import read_body
from dimml_server.kserve.tensors import InputTensor, decode
from dimml_server.prediction.spool import Spool, SpooledBody, SpooledSource, as_sources


def open_files() -> int:
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize(("size", "on_disk"), [(0, False), (100, False), (101, True), (5000, True)])
def test_what_is_past_the_threshold_is_a_view_of_a_file_without_a_name(
    tmp_path: Path, size: int, on_disk: bool
) -> None:
    data = os.urandom(size)
    with SpooledBody(Spool(100, tmp_path)) as body:
        for at in range(0, size, 7):
            body.write(data[at : at + 7])
        content = body.content()
        assert list(tmp_path.iterdir()) == []
    assert bytes(content) == data
    assert (isinstance(content, memoryview) and isinstance(content.obj, mmap.mmap)) == on_disk


def test_nothing_stays_open(tmp_path: Path) -> None:
    before = open_files()
    for _ in range(20):
        with SpooledBody(Spool(10, tmp_path)) as body:
            body.write(bytes(1000))
            content = body.content()
        del content
    assert open_files() <= before


def test_no_room_is_the_servers_trouble_and_not_a_fault(tmp_path: Path) -> None:
    with SpooledBody(Spool(10, tmp_path / "gone")) as body, pytest.raises(UnavailableError, match="store the body"):
        body.write(bytes(1000))
    view = memoryview(b"x")
    with pytest.raises(UnavailableError, match="store the body"), as_sources({"media": view}, tmp_path / "gone"):
        pass


@pytest.mark.parametrize(("size", "on_disk"), [(0, False), (100, False), (101, True), (5000, True)])
def test_a_recording_that_comes_in_pieces_is_a_file_past_the_threshold_and_gone_after(
    tmp_path: Path, size: int, on_disk: bool
) -> None:
    data = os.urandom(size)
    with SpooledSource(Spool(100, tmp_path)) as spool:
        for at in range(0, size, 7):
            spool.write(data[at : at + 7])
        source = spool.source()
        assert isinstance(source, Path) == on_disk
        assert (source.read_bytes() if isinstance(source, Path) else source) == data
    assert list(tmp_path.iterdir()) == []
    with SpooledSource(Spool(10, tmp_path / "gone")) as spool, pytest.raises(UnavailableError, match="store the body"):
        spool.write(bytes(11))


def test_recordings_on_disk_become_files_for_the_decoder_and_go_with_the_request(tmp_path: Path) -> None:
    with as_sources({"media": b"small", "audio": memoryview(b"large")}, tmp_path) as sources:
        assert sources["media"] == b"small"
        path = sources["audio"]
        assert isinstance(path, Path)
        assert path.read_bytes() == b"large"
        assert path.is_relative_to(tmp_path)
    assert list(tmp_path.iterdir()) == []


def body_on_disk(data: bytes, folder: Path, encoding: str = "") -> memoryview:
    async def chunks() -> AsyncIterator[bytes]:
        for at in range(0, len(data), 1000):
            yield data[at : at + 1000]

    content = asyncio.run(read_body(chunks(), encoding, 2**24, Spool(64, folder)))
    assert isinstance(content, memoryview)
    return content


def test_tensors_are_read_from_disk(tmp_path: Path) -> None:
    numbers = np.arange(1000, dtype="<f4")
    view = body_on_disk(numbers.tobytes(), tmp_path)
    np.testing.assert_array_equal(decode(InputTensor("X", "FP32", (10, 100), view), "FP32", "m").ravel(), numbers)
    element = os.urandom(5000)
    raw = body_on_disk(len(element).to_bytes(4, "little") + element, tmp_path)
    (found,) = decode(InputTensor("MEDIA", "BYTES", (1,), raw), "BYTES", "m")
    assert isinstance(found, memoryview), "a copy in memory would be all of it"
    assert bytes(found) == element


@pytest.mark.parametrize("size", [2**20 - 1, 2**20, 2**20 + 1, 3 * 2**20 + 5])
def test_what_unfolds_does_so_piece_by_piece(tmp_path: Path, size: int) -> None:
    assert bytes(body_on_disk(zlib.compress(bytes(size)), tmp_path, "deflate")) == bytes(size)
