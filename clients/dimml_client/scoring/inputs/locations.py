"""Locations of recordings: local paths, URLs that fsspec supports, members of archives and cells of Parquet tables."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import urlsplit

import fsspec
from fsspec.implementations.local import LocalFileSystem

from dimml.errors import ConfigurationError, DimmlError, TooLargeError, UnreadableError
from dimml_client.scoring.inputs import cells
from dimml_client.scoring.inputs.archives import contents_of, is_member, opened_archive, options_of, whole_archive

#: Characters that make a name a glob.
GLOB: Final = frozenset("*?[")
#: Separates a file in an archive from the archive's own location: ``tar://a.mp4::file:///shard.tar``.
LINK: Final = "::"
_DISK_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
#: Most characters of another library's words in a message.
_WORDS: Final = 200


class NoRoomError(Exception):
    """Copies of recordings cannot be written on this machine: no recording's fault, so that it ends the run."""


def is_url(location: str) -> bool:
    """Whether a location is a URL for fsspec."""
    return "://" in location


def suffix(location: str) -> str:
    """Return the ending of a path, or of a URL's path, in lower case with its dot; in an archive, of the member."""
    if not is_url(location):
        return Path(location).suffix.lower()
    first, link, _ = location.partition(LINK)
    path = first.partition("://")[2] if link else urlsplit(first).path
    return PurePosixPath(path).suffix.lower()


def beside(location: str, name: str) -> str:
    """Return the location of ``name`` in the folder of ``location``; absolute ones stay as they are."""
    first, link, rest = location.partition(LINK) if is_url(location) else (location, "", "")
    scheme, mark, path = first.rpartition("://")
    folder = path.rpartition("/")[0]
    if link and not is_url(name) and not name.startswith("/"):
        return f"{below(scheme + mark + folder, name) if folder else scheme + mark + name}{link}{rest}"
    return below(f"{scheme}{mark}{folder}" if folder or mark else "", name)


def below(base: str, name: str) -> str:
    """Return the location of ``name`` below the folder ``base``; absolute ones stay as they are."""
    if is_url(name) or name.startswith("/") or base in ("", "."):
        return name
    return f"{base.rstrip('/')}/{name}"


def filesystem(url: str) -> tuple[Any, str]:
    """Return a URL's file system and the path in it.

    Raises ConfigurationError if no installed library supports it, and UnreadableError for a host or archive that does
    not open.
    """
    try:
        found: tuple[Any, str] = fsspec.url_to_fs(url, **options_of(url))
    except ImportError as error:
        raise ConfigurationError(f"{url}: {error}", field=url) from error
    except ValueError as error:
        raise ConfigurationError(f"{url}: {error}; see docs/scoring.md for what can be read", field=url) from error
    except Exception as error:
        # Every file system has exceptions of its own, without a common base.
        raise UnreadableError(f"cannot read {url}: {in_words(error)}", field=url) from error
    return found


def in_words(error: BaseException) -> str:
    """Describe an error of another library in one short line; fsspec hides a dead host in the cause."""
    words = str(error).strip().split("\n", 1)[0][:_WORDS] or "no reason given"
    if isinstance(error, FileNotFoundError):
        if isinstance(error.__cause__, Exception) and not isinstance(error.__cause__, KeyError | FileNotFoundError):
            return f"there is no such object, or no such host ({in_words(error.__cause__)})"
        return f"{error.strerror}: {error.filename}" if error.filename else "there is no such object"
    return f"{type(error).__name__}: {words}"


@contextmanager
def at_hand(location: str, max_bytes: int) -> Iterator[Path]:
    """Provide a local file with the recording's bytes: the file itself, or a copy for the block.

    Raises UnreadableError whatever a file system, archive or host raises, and TooLargeError above ``max_bytes``;
    NoRoomError if the copy cannot be written.
    """
    if not is_url(location):
        yield Path(location)
        return
    with tempfile_folder() as folder:
        copy = folder / "recording"
        try:
            yield _local_or_copied(location, copy, max_bytes)
        finally:
            copy.unlink(missing_ok=True)


@contextmanager
def tempfile_folder() -> Iterator[Path]:
    """Make a folder for copies. Raises NoRoomError."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="dimml-score-", ignore_cleanup_errors=True)
    except OSError as error:
        raise _no_room(error) from error
    with folder as name:
        yield Path(name)


def _local_or_copied(location: str, copy: Path, max_bytes: int) -> Path:
    try:
        if cells.is_cell(location):
            _check_size(location, cells.copy_cell(location, copy, max_bytes), max_bytes)
        elif (archive := whole_archive(location)) is not None:
            _refuse_archive(archive)
        elif is_member(location):
            with opened_archive(location) as (files, path):
                _copied(files, path, location, copy, max_bytes)
        else:
            files, path = filesystem(location)
            if isinstance(files, LocalFileSystem):
                return Path(path)
            _copied(files, path, location, copy, max_bytes)
    except ConfigurationError as error:
        raise UnreadableError(f"cannot read {error.message}", field=location) from error
    except DimmlError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _DISK_FULL:
            # Not the recording's fault: the next one would fail too.
            raise _no_room(error) from error
        raise UnreadableError(f"cannot read {location}: {in_words(error)}", field=location) from error
    return copy


def _refuse_archive(archive: str) -> None:
    """Raise UnreadableError that says what is wrong with an archive of which no file is named."""
    raise contents_of(archive).error or UnreadableError(
        f"cannot read {archive}: it is an archive, not a recording in one", field=archive
    )


def _copied(files: Any, path: str, location: str, copy: Path, max_bytes: int) -> None:
    size = files.info(path).get("size")
    _check_size(location, size, max_bytes)
    files.get_file(path, str(copy))


def _check_size(location: str, size: int | None, max_bytes: int) -> None:
    if size is not None and size > max_bytes:
        raise TooLargeError(f"{location} has {size} bytes, more than max_bytes = {max_bytes}")


def _no_room(error: OSError) -> NoRoomError:
    return NoRoomError(
        f"no copies of recordings in {tempfile.gettempdir()}: {error.strerror}; make room, or name another folder in "
        "TMPDIR"
    )
