"""The files of a request, opened for reading."""

from __future__ import annotations

import io
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from dimml.errors import TooLargeError, UnreadableError
from dimml.media.types import DecodeRequest, Source
from dimml.modality import Modality


def by_source(request: DecodeRequest) -> list[tuple[Source, list[Modality]]]:
    """Group the modalities that share one source object, in the order of the request.

    Series are groups of their own: what a file is to them does not depend on what it is to sound and pictures.
    """
    groups: dict[tuple[int, bool], tuple[Source, list[Modality]]] = {}
    for modality in request.modalities:
        source = request.sources.get(modality.name)
        if source is not None:
            groups.setdefault((id(source), modality.track == "data"), (source, []))[1].append(modality)
    return list(groups.values())


@contextmanager
def opened(source: Source, max_bytes: int) -> Iterator[tuple[BinaryIO, int]]:
    """Open the source as a seekable file, with its size in bytes.

    Raises UnreadableError, and TooLargeError above ``max_bytes``.
    """
    if isinstance(source, bytes):
        _check_bytes(len(source), max_bytes)
        yield io.BytesIO(source), len(source)
        return
    path = Path(source)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableError(f"cannot read {source}: not a regular file", field=str(source))
        file = path.open("rb")
    except OSError as error:
        raise UnreadableError(f"cannot read {source}: {error.strerror}", field=str(source)) from error
    except ValueError as error:
        # A name that no file has: with NUL, or with characters that the file system's encoding lacks.
        raise UnreadableError(f"cannot read {str(source)!a}: {error}", field=ascii(str(source))) from error
    with file:
        _check_bytes(status.st_size, max_bytes)
        yield file, status.st_size


def _check_bytes(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise TooLargeError(f"the file has {size} bytes, more than max_bytes = {max_bytes}")
