"""Locations of recordings: local paths, and URLs that fsspec supports."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import fsspec
from fsspec.implementations.local import LocalFileSystem

from dimml.errors import ConfigurationError, TooLargeError, UnreadableError

#: Characters that make a name a glob.
GLOB: Final = frozenset("*?[")
_DISK_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


def is_url(location: str) -> bool:
    """Whether a location is a URL for fsspec."""
    return "://" in location


def suffix(location: str) -> str:
    """Return the ending of a path, or of a URL's path, in lower case with its dot."""
    return Path(urlsplit(location).path if is_url(location) else location).suffix.lower()


def filesystem(url: str) -> tuple[Any, str]:
    """Return a URL's file system and the path in it. Raises ConfigurationError if no installed library supports it."""
    try:
        found: tuple[Any, str] = fsspec.url_to_fs(url)
    except ImportError as error:
        raise ConfigurationError(f"{url}: {error}", field=url) from error
    except ValueError as error:
        raise ConfigurationError(f"{url}: {error}; see docs/scoring.md for what can be read", field=url) from error
    return found


@contextmanager
def at_hand(location: str, max_bytes: int) -> Iterator[Path]:
    """Provide a local file with the recording's bytes: the file itself, or a copy for the block.

    Raises UnreadableError, and TooLargeError if a store reports more than ``max_bytes``; OSError if there is no room
    for the copy.
    """
    if not is_url(location):
        yield Path(location)
        return
    try:
        files, path = filesystem(location)
    except ConfigurationError as error:
        raise UnreadableError(f"cannot read {error.message}", field=location) from error
    if isinstance(files, LocalFileSystem):
        yield Path(path)
        return
    with tempfile.TemporaryDirectory(prefix="dimml-score-") as folder:
        copy = Path(folder) / "recording"
        try:
            size = files.info(path).get("size")
            fits = size is None or size <= max_bytes
            if fits:
                files.get_file(path, str(copy))
        except FileNotFoundError as error:
            raise UnreadableError(f"cannot read {location}: there is no such object", field=location) from error
        except Exception as error:
            if isinstance(error, OSError) and error.errno in _DISK_FULL:
                # Not the recording's fault: the next one would fail too.
                raise
            # Every store has exceptions of its own, without a common base.
            words = str(error).strip().split("\n", 1)[0][:200] or "no reason given"
            raise UnreadableError(f"cannot read {location}: {type(error).__name__}: {words}", field=location) from error
        if not fits:
            raise TooLargeError(f"{location} has {size} bytes, more than max_bytes = {max_bytes}")
        yield copy
