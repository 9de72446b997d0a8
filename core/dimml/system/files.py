"""Files that are written whole or not at all."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def replace_whole(path: Path, data: bytes | memoryview) -> None:
    """Write aside, then move into place: a reader never sees half a file, and a full disk leaves what was there before.

    Raises OSError.
    """
    aside = path.with_name(f"{path.name}.part")
    try:
        aside.write_bytes(data)
        aside.replace(path)
    except OSError:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        raise
