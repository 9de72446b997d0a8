"""Files are whole or as they were, whatever stops their writer."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dimml.system.files import sync_to_disk, write_atomically

Data = bytes | Callable[[Path], object]
BEFORE, AFTER = b"before", b"after" * 20_000


@contextmanager
def child(code: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A Python process, killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that is there already, alone in its folder."""
    path = tmp_path / "file.json"
    path.write_bytes(BEFORE)
    return path


def files_beside(path: Path) -> list[Path]:
    return list(path.parent.iterdir())


@pytest.mark.parametrize("data", [AFTER, memoryview(AFTER), lambda path: path.write_bytes(AFTER)])
@pytest.mark.parametrize("durable", [False, True])
def test_the_new_content_takes_the_place_of_the_old(path: Path, data: Data, durable: bool) -> None:
    write_atomically(path, data, durable=durable)
    assert path.read_bytes() == AFTER
    assert files_beside(path) == [path]


def test_a_reader_sees_one_content_or_the_other(path: Path) -> None:
    writer = """
import sys
from pathlib import Path
from dimml.system.files import write_atomically
path, turn = Path(sys.argv[1]), 0
while True:
    write_atomically(path, (b"a" if turn % 2 else b"b") * 300_000)
    turn += 1
    if turn == 2:
        print("begun", flush=True)
"""
    with child(writer, path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        seen: set[bytes] = set()
        reads, end = 0, time.monotonic() + 60.0
        while (reads < 300 or len(seen) < 2) and time.monotonic() < end:
            seen.add(path.read_bytes())
            reads += 1
    assert seen == {b"a" * 300_000, b"b" * 300_000}


def test_a_writer_killed_half_way_leaves_the_old_file_and_nothing_that_stays(path: Path) -> None:
    writer = """
import sys, time
from pathlib import Path
from dimml.system.files import write_atomically
def half(temporary):
    with temporary.open("wb", buffering=0) as file:
        file.write(b"af")
        print("half", flush=True)
        time.sleep(600)
write_atomically(Path(sys.argv[1]), half)
"""
    for _ in range(2):
        with child(writer, path) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "half\n"
        assert path.read_bytes() == BEFORE
        assert len(files_beside(path)) == 2, "one temporary file, however often a writer is killed"
    write_atomically(path, AFTER)
    assert path.read_bytes() == AFTER
    assert files_beside(path) == [path]


@pytest.mark.parametrize("data", [AFTER, lambda path: path.write_bytes(AFTER)])
def test_a_full_disk_leaves_what_was_there(path: Path, data: Data) -> None:
    """A limit on the size of a file stands for the disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_atomically(path, data)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == BEFORE
    assert files_beside(path) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_whatever_stops_the_writing_function_leaves_what_was_there(path: Path, error: type[BaseException]) -> None:
    def broken(temporary: Path) -> None:
        temporary.write_bytes(b"af")
        raise error

    with pytest.raises(error):
        write_atomically(path, broken)
    assert path.read_bytes() == BEFORE
    assert files_beside(path) == [path]


def test_a_place_that_cannot_be_written_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "absent" / "file", AFTER)
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        write_atomically(tmp_path / "folder", AFTER)
    assert files_beside(tmp_path / "folder") == [tmp_path / "folder"]


def test_permissions_are_those_of_a_new_file(path: Path) -> None:
    path.chmod(0o600)
    before = os.umask(0o027)
    try:
        write_atomically(path, AFTER)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_symbolic_link_is_replaced_and_its_target_left_alone(path: Path) -> None:
    link = path.with_name("link")
    link.symlink_to(path)
    write_atomically(link, AFTER)
    assert not link.is_symlink()
    assert (link.read_bytes(), path.read_bytes()) == (AFTER, BEFORE)


def test_another_temporary_file_may_be_chosen(path: Path) -> None:
    temporary = path.parent / "parts" / "own.tmp"
    temporary.parent.mkdir()
    given: list[Path] = []
    write_atomically(path, lambda there: (given.append(there), there.write_bytes(AFTER)), temporary=temporary)
    assert given == [temporary]
    assert path.read_bytes() == AFTER
    assert not temporary.exists()


def test_durable_brings_the_file_to_the_disk_before_its_name(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, synced = os.fsync, []

    def recorded(descriptor: int) -> None:
        synced.append((os.fstat(descriptor).st_ino, path.read_bytes()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", recorded)
    write_atomically(path, BEFORE)
    assert synced == []
    write_atomically(path, AFTER, durable=True)
    assert synced == [(path.stat().st_ino, BEFORE), (path.parent.stat().st_ino, AFTER)]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO])
def test_what_the_disk_refuses_is_raised_but_for_folders_that_cannot_be_synced(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refused(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refused)
    with pytest.raises(OSError, match=os.strerror(number)):
        write_atomically(path, AFTER, durable=True)
    assert path.read_bytes() == BEFORE
    assert files_beside(path) == [path]
    if number == errno.EINVAL:
        sync_to_disk(path.parent)
    else:
        with pytest.raises(OSError, match=os.strerror(number)):
            sync_to_disk(path.parent)
