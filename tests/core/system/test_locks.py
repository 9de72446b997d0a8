"""Locks against other processes that use flock(2) themselves."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dimml.system.files import exclusive_lock, lock_descriptor
from support.waiting import wait_until

HOLDER = """
import fcntl, os, sys, time
fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(600)
"""


@contextmanager
def held_elsewhere(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process has the lock; it is killed at the end."""
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def free(path: Path) -> bool:
    """Whether another process could lock it now."""
    code = "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0 or "BlockingIOError" in done.stderr
    return done.returncode == 0


@pytest.fixture(params=["file", "folder"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """What is locked: a file with something in it, or a folder."""
    path = tmp_path / "locked"
    if request.param == "folder":
        path.mkdir()
    else:
        path.write_bytes(b"content")
    return path


def test_a_lock_is_held_within_the_block_and_free_after_it(path: Path) -> None:
    with exclusive_lock(path) as held:
        assert held
        assert not free(path)
        with exclusive_lock(path, wait=False) as again:
            assert not again, "of one process, too, only one holds it"
        assert not free(path), "the one that did not get it let go of nothing"
    assert free(path)
    with pytest.raises(ZeroDivisionError), exclusive_lock(path):
        raise ZeroDivisionError
    assert free(path)
    assert path.is_dir() or path.read_bytes() == b"content"
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_is_not_there_is_made_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with exclusive_lock(path, wait=False) as held:
        assert held
        assert not free(path)
    assert path.read_bytes() == b""
    with pytest.raises(FileNotFoundError), exclusive_lock(tmp_path / "absent" / "lock", best_effort=True):
        pass


@pytest.mark.parametrize("best_effort", [False, True])
def test_without_waiting_one_learns_that_another_process_holds_it_until_it_is_killed(
    path: Path, best_effort: bool
) -> None:
    with held_elsewhere(path), exclusive_lock(path, wait=False, best_effort=best_effort) as held:
        assert not held
    with exclusive_lock(path, wait=False, best_effort=best_effort) as held:
        assert held


def test_waiting_ends_when_the_holder_is_killed(path: Path) -> None:
    entered = threading.Event()

    def wait() -> None:
        with exclusive_lock(path) as held:
            assert held
            entered.set()

    with held_elsewhere(path):
        thread = threading.Thread(target=wait)
        thread.start()
        wait_until(lambda: waited_for(path), 30.0)
        assert not entered.is_set()
    assert entered.wait(30.0)
    thread.join()


def waited_for(path: Path) -> bool:
    """By the kernel's list of locks, in which one that waits has an arrow."""
    inode = path.stat().st_ino
    lines = Path("/proc/locks").read_text().splitlines()
    return any("->" in line and f":{inode} " in line for line in lines)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_an_error_or_good_enough(
    path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refused)
    with pytest.raises(OSError, match=os.strerror(number)), exclusive_lock(path, wait=False):
        pass
    with exclusive_lock(path, wait=False, best_effort=True) as held:
        assert held
    with pytest.raises(OSError, match="within"), exclusive_lock(path, wait=False, best_effort=True):
        raise OSError("within the block")


def test_a_descriptor_that_a_child_inherits_keeps_the_lock(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        assert lock_descriptor(descriptor)
        child = subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(descriptor,), text=True
        )
    finally:
        os.close(descriptor)
    with child:
        assert not free(path)
        other = os.open(path, os.O_RDONLY)
        assert not lock_descriptor(other, wait=False)
        os.close(other)
        child.communicate("\n")
    assert child.returncode == 0
    assert free(path)
