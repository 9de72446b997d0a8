"""Where recordings are: local paths, and URLs that fsspec knows."""

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

#: Characters that make a glob of a name.
GLOB: Final = frozenset("*?[")
_DISK_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


def is_url(location: str) -> bool:
    """Whether fsspec is to find it."""
    return "://" in location


def suffix(location: str) -> str:
    """The ending in lower case, with its dot; of a URL, of its path."""
    return Path(urlsplit(location).path if is_url(location) else location).suffix.lower()


def filesystem(url: str) -> tuple[Any, str]:
    """The file system of a URL and the path in it. Raises ConfigurationError where no library here speaks it."""
    try:
        found: tuple[Any, str] = fsspec.url_to_fs(url)
    except ImportError as error:
        raise ConfigurationError(f"{url}: {error}", field=url) from error
    except ValueError as error:
        raise ConfigurationError(f"{url}: {error}; see docs/scoring.md for what can be read", field=url) from error
    return found


@contextmanager
def at_hand(location: str, max_bytes: int) -> Iterator[Path]:
    """A local file with the recording's bytes: itself, or a copy for as long as it is needed.

    Raises UnreadableError, and TooLargeError where a store says that it holds more than ``max_bytes``; OSError where
    there is no room for the copy.
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
                # Not the recording's fault: the next would fare no better.
                raise
            # Every store has errors of its own, and no common base.
            words = str(error).strip().split("\n", 1)[0][:200] or "no reason given"
            raise UnreadableError(f"cannot read {location}: {type(error).__name__}: {words}", field=location) from error
        if not fits:
            raise TooLargeError(f"{location} has {size} bytes, more than max_bytes = {max_bytes}")
        yield copy
