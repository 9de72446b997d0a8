"""Files that are written whole or not at all, and locks that end with their process."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def write_atomically(
    path: Path,
    data: bytes | memoryview | Callable[[Path], object],
    *,
    durable: bool = False,
    temporary: Path | None = None,
) -> None:
    """Write a temporary file, then move it into place: a reader sees the old file or the new one, never half of one.

    ``data`` may be a function that writes the temporary file. Where writing fails, the old file stays and the temporary
    one is removed. ``durable`` brings the file to the disk before it takes its place, and then its name. The new file
    has the permissions of a new file, not those of the old one; a symbolic link at ``path`` is replaced.

    ``temporary`` is by default ``.<name>.part`` in the same folder, so that what a killed process left is overwritten
    by the next one; give another one, on the same file system, where several processes write ``path`` at once.

    Raises OSError, and what ``data`` raises.
    """
    temporary = temporary or path.with_name(f".{path.name}.part")
    try:
        if callable(data):
            data(temporary)
        else:
            temporary.write_bytes(data)
        if durable:
            sync_to_disk(temporary)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_to_disk(path.parent)


def sync_to_disk(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems have no such call for folders.
        if error.errno != errno.EINVAL or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


@contextmanager
def exclusive_lock(path: Path, *, wait: bool = True, best_effort: bool = False) -> Iterator[bool]:
    """Hold the lock of a file, which is made where there is none, or of a folder; the kernel frees it with the process.

    Yields True, or without ``wait`` False where another one holds it. The lock belongs to what was opened: a second
    call in the same process counts as another one. The file stays when the lock is freed. With ``best_effort``, a file
    system that has no locks counts as held.

    Raises OSError where the file cannot be opened or locked.
    """
    flags = os.O_RDONLY if path.is_dir() else os.O_WRONLY | os.O_CREAT
    descriptor = os.open(path, flags, 0o666)
    try:
        try:
            held = lock_descriptor(descriptor, wait=wait)
        except OSError:
            if not best_effort:
                raise
            held = True
        yield held
    finally:
        os.close(descriptor)


def lock_descriptor(descriptor: int, *, wait: bool = True) -> bool:
    """Lock an open file until its last descriptor is closed, those that child processes inherited among them.

    Returns False where another one holds the lock and ``wait`` is False. Raises OSError.
    """
    import fcntl  # Not where clients read and write files on another system than Linux.

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
