"""Shared memory that Triton's Python backend leaves in /dev/shm: named after the run, removed once its processes ended.

`dimml triton`, Triton and its stubs all hold a lock file beside the regions for as long as one of them lives, so
another run can distinguish regions in use from those of a server that was killed.
"""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

from dimml.system.files import lock_descriptor

SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108  # where the kernel mounts it
_PREFIX: Final = "dimml-triton-"
_LOCK: Final = ".lock"


class RunName:
    """A unique name of one run, and the lock that marks it as in use."""

    def __init__(self) -> None:
        self.prefix = f"{_PREFIX}{secrets.token_hex(4)}"
        self._path = SHARED_MEMORY / f"{self.prefix}{_LOCK}"
        self.descriptor = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        lock_descriptor(self.descriptor)

    def close(self) -> None:
        """Remove the run's regions and the lock. Its processes must have ended."""
        _remove(self.prefix)
        os.close(self.descriptor)


def clear_left_over(folders: Path) -> None:
    """Remove regions and run folders (in ``folders``) of runs all of whose processes are gone."""
    for lock in SHARED_MEMORY.glob(f"{_PREFIX}*{_LOCK}"):
        # Another user's, or removed at this moment.
        with suppress(OSError), lock.open("rb+") as file:
            if not lock_descriptor(file.fileno(), wait=False):
                continue
            prefix = lock.name.removesuffix(_LOCK)
            shutil.rmtree(folders / prefix, ignore_errors=True)
            _remove(prefix)


def _remove(prefix: str) -> None:
    for region in sorted(SHARED_MEMORY.glob(f"{prefix}*"), key=lambda path: path.name.endswith(_LOCK)):
        region.unlink(missing_ok=True)
