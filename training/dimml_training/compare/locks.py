"""One process per training: a lock that goes with the process that holds it, however that ends."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dimml.errors import SetupError


@contextmanager
def only_one(path: Path) -> Iterator[bool]:
    """Try to lock the file, and say whether this process has it now. Never waits."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError as error:
        raise SetupError(f"cannot write {path}: {error.strerror}; choose another place with --work") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True  # closing the file lets go of the lock
