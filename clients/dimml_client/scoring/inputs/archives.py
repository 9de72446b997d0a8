"""Recordings in tar and zip files: archives kept open for their next member, and the listing of one's members."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import IO, Any, Final

import fsspec

from dimml.errors import UnreadableError
from dimml_client.scoring.inputs.recent import Recent, file_state

#: Schemes of members, by the archive's ending.
SCHEMES: Final = {
    ".tar": "tar",
    ".tar.gz": "tar",
    ".tgz": "tar",
    ".tar.bz2": "tar",
    ".tar.xz": "tar",
    ".zip": "zip",
}
#: Archives that stay open: opening one reads its whole index, and each holds a file descriptor.
_OPEN: Final = 8
_LINK: Final = "::"
#: Bytes in which a tar file stands; a block of zeros ends it.
_BLOCK: Final = 512
#: A label is short; what is longer is none.
_LABEL_BYTES: Final = 1024
LABEL_ENDING: Final = "cls"
#: Endings of what WebDataset shards hold beside recordings.
NO_RECORDINGS: Final = frozenset(
    {"cbor", "class", "cls", "count", "id", "index", "inp", "json", "jsn", "mp", "msg"}
    | {"pickle", "pkl", "pth", "pyd", "text", "transcript", "txt"}
)


def scheme_of(location: str) -> str | None:
    """Return the scheme of an archive's members, by the archive's name; None for a file that is none."""
    name = location.partition(_LINK)[0].lower()
    return next((scheme for ending, scheme in SCHEMES.items() if name.endswith(ending)), None)


def is_member(location: str) -> bool:
    """Whether a URL names a file in a tar or zip file."""
    scheme, mark, _ = location.partition("://")
    return bool(mark) and scheme in SCHEMES.values() and _LINK in location


def member(archive: str, name: str) -> str:
    """Return the URL of a file in an archive, which is a path or a URL."""
    outer = archive if "://" in archive else f"file://{archive}"
    return f"{scheme_of(archive)}://{name}{_LINK}{outer}"


def whole_archive(location: str) -> str | None:
    """Return the archive of a URL that names it without a file in it (``tar://::file:///shard.tar``); else None."""
    first, _, archive = location.partition(_LINK)
    return archive if is_member(location) and not first.partition("://")[2].strip("/") else None


def options_of(location: str) -> dict[str, Any]:
    """Return fsspec's options for a URL: it infers every compression of an archive from its name but this."""
    packed = is_member(location) and location.lower().endswith(".tgz")
    return {"tar": {"compression": "gzip"}} if packed else {}


@contextmanager
def opened_archive(location: str) -> Iterator[tuple[Any, str]]:
    """Give a member's file system and its path there, for one thread at a time. Raises what the archive raises."""
    first, _, archive = location.partition(_LINK)
    scheme, _, path = first.partition("://")

    def index() -> Any:
        files, _ = fsspec.url_to_fs(f"{scheme}://{_LINK}{archive}", **options_of(location))
        return files

    with _archives.using((scheme, archive, file_state(archive)), index) as files:
        yield files, path.strip("/")


_archives: Final[Recent[Any]] = Recent(_OPEN)


@dataclass(frozen=True, slots=True)
class Contents:
    """Files of an archive in order, and the WebDataset labels (``<key>.cls``) among them by key.

    ``error`` says why it does not open, or where it breaks off.
    """

    names: list[str] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    error: UnreadableError | None = None


def contents_of(archive: str) -> Contents:
    """List an archive, a path or a URL, as far as it can be read."""
    found = Contents()
    try:
        with fsspec.open(archive, "rb") as file:
            (_list_zip if scheme_of(archive) == "zip" else _list_tar)(file, found)
    except Exception as error:
        # tarfile, zipfile, zlib, lzma and every file system have exceptions of their own, without a common base.
        words = str(error).strip().split("\n", 1)[0][:200] or type(error).__name__
        after = f" after {len(found.names)} files" if found.names else ""
        message = f"cannot read {archive}{after}: {words}"
        return replace(found, error=UnreadableError(message, field=archive))
    return found


def sample_key(name: str) -> str:
    """Return a WebDataset sample's key: its files' folder, and their name up to the first dot."""
    folder, slash, file = name.rpartition("/")
    return f"{folder}{slash}{file.partition('.')[0]}"


def ending_of(name: str) -> str:
    """Return the ending of a member as WebDataset reads it: after the first dot, in lower case."""
    return name.rpartition("/")[2].partition(".")[2].lower()


def _list_zip(file: IO[bytes], found: Contents) -> None:
    with zipfile.ZipFile(file) as archive:
        found.names.extend(one.filename for one in archive.infolist() if not one.is_dir())
        for name in found.names:
            if ending_of(name) == LABEL_ENDING:
                found.labels[sample_key(name)] = _label(archive.open(name))


def _list_tar(file: IO[bytes], found: Contents) -> None:
    with tarfile.open(fileobj=file, mode="r:*") as archive:
        for one in archive:
            if not (one.isfile() or one.issym() or one.islnk()):
                continue
            found.names.append(one.name)
            content = archive.extractfile(one) if one.isfile() and ending_of(one.name) == LABEL_ENDING else None
            if content is not None:
                found.labels[sample_key(one.name)] = _label(content)
        # tarfile takes a header that it cannot read for the end, unless it is the first.
        if archive.fileobj is not None:
            archive.fileobj.seek(archive.offset)
            if archive.fileobj.read(_BLOCK).strip(b"\0"):
                raise tarfile.ReadError("what follows is no header of a file")


def _label(content: IO[bytes]) -> str:
    with content:
        return content.read(_LABEL_BYTES).decode("utf-8", "replace").strip()
