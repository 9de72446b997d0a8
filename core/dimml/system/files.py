"""Files that are written whole or not at all, and locks that end with their process."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeAlias

#: A file's or folder's path, as callers may give it.
StrPath: TypeAlias = str | os.PathLike[str]


def write_atomically(
    path: Path,
    data: bytes | memoryview | Callable[[Path], object],
    *,
    durable: bool = False,
    temporary: Path | None = None,
) -> None:
    """Write a temporary file, then move it into place: a reader sees the old file or the new one, never half of one.

    ``data`` may be a function that writes the temporary file. If writing fails, the old file stays and the temporary
    one is removed. ``durable`` flushes the file to disk before the rename, and then the folder. The new file has the
    permissions of a new file, not those of the old one; a symbolic link at ``path`` is replaced.

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
    """Flush a file, or the names in a folder, to disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems do not support this for folders.
        if error.errno != errno.EINVAL or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


@contextmanager
def exclusive_lock(path: Path, *, wait: bool = True, best_effort: bool = False) -> Iterator[bool]:
    """Hold the lock of a file, created if necessary, or of a folder; the kernel releases it when the process ends.

    Yields True, or without ``wait`` False if the lock is held elsewhere. The lock belongs to the open file: a second
    call in the same process counts as another holder. The file stays when the lock is released. With ``best_effort``,
    the lock counts as held on a file system without locks.

    Raises OSError if the file cannot be opened or locked.
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
    """Lock an open file until its last descriptor is closed, including those that child processes inherited.

    Returns False if the lock is held elsewhere and ``wait`` is False. Raises OSError.
    """
    import fcntl  # Not available if a client runs on a system other than Linux.

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
