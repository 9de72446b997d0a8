"""Request bodies that are kept on disk beyond a threshold, and read there."""

from __future__ import annotations

import mmap
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from dimml.errors import UnavailableError
from dimml.media.types import Source


@dataclass(frozen=True, slots=True)
class Spool:
    """Where bodies beyond ``threshold`` bytes go; ``folder`` None means the system's folder for temporary files."""

    threshold: int
    folder: Path | None = None


@contextmanager
def storing() -> Iterator[None]:
    """Guard writing to the spool. Raises UnavailableError if the disk is full."""
    try:
        yield
    except OSError as error:
        raise UnavailableError(f"the server cannot store the body now: {error.strerror}") from error


class SpooledBody:
    """Accumulated bytes, in memory up to the threshold; a context manager.

    The ``content`` of a large body stays readable after the end, as long as it is referenced.
    """

    def __init__(self, spool: Spool) -> None:
        self._threshold = spool.threshold
        # The file has no name: nothing is left behind, however the process ends.
        folder = None if spool.folder is None else str(spool.folder)
        self._file = tempfile.SpooledTemporaryFile(max(1, spool.threshold), dir=folder)  # noqa: SIM115 (see __exit__)
        self._size = 0

    def write(self, data: bytes) -> None:
        """Append. Raises UnavailableError."""
        with storing():
            self._file.write(data)
        self._size += len(data)

    def content(self) -> bytes | memoryview:
        """Return the whole body: a view of the file if it is on disk."""
        with storing():
            if self._size <= max(1, self._threshold):
                self._file.seek(0)
                return self._file.read()
            self._file.flush()
            return memoryview(mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


class SpooledSource:
    """A recording that arrives piece by piece, in memory up to the threshold; a context manager that deletes it."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._data = bytearray()
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._file: BinaryIO | None = None

    def write(self, data: bytes) -> None:
        """Append. Raises UnavailableError."""
        if self._file is None and len(self._data) + len(data) <= self._spool.threshold:
            self._data += data
            return
        with storing():
            if self._file is None:
                self._folder = tempfile.TemporaryDirectory(prefix="dimml-upload-", dir=self._spool.folder)
                self._file = (Path(self._folder.name) / "0").open("xb")
                self._file.write(self._data)
                self._data = bytearray()
            self._file.write(data)

    def source(self) -> Source:
        """Return the whole recording, of which no more may come. Raises UnavailableError."""
        if self._file is None:
            return bytes(self._data)
        with storing():
            self._file.close()
        return Path(self._file.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            # What it still has to write may find no room, and goes anyway.
            with suppress(OSError):
                self._file.close()
        if self._folder is not None:
            self._folder.cleanup()


@contextmanager
def as_sources(elements: Mapping[str, bytes | memoryview], folder: Path | None) -> Iterator[dict[str, Source]]:
    """Provide recordings for the decoder: a view of a body on disk becomes a file, which is deleted at the end.

    Raises UnavailableError if the disk is full.
    """
    views = {name: element for name, element in elements.items() if isinstance(element, memoryview)}
    sources: dict[str, Source] = {name: bytes(e) for name, e in elements.items() if name not in views}
    if not views:
        yield sources
        return
    with storing():
        place = Path(tempfile.mkdtemp(prefix="dimml-upload-", dir=folder))
    try:
        for number, (name, view) in enumerate(views.items()):
            path = place / str(number)
            with storing(), path.open("xb") as file:
                file.write(view)
            sources[name] = path
        yield sources
    finally:
        shutil.rmtree(place, ignore_errors=True)
