"""Graphs that ONNX Runtime has optimised for this machine, kept so that the next start need not do it again.

An optimised graph holds what the processor's instructions allow (layouts of tensors, fused operators): ONNX Runtime
warns that it belongs where it was made. An entry is therefore looked up by everything it depends on, and its name
holds a digest of that together with its bytes: whatever else lies in the folder, and whatever was changed, cut off or
renamed, is not used. What is loaded are the very bytes that were checked.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from dimml.bundle import Bundle
from dimml.errors import first_line
from dimml.system.cpu import processor_identity

logger = logging.getLogger(__name__)

#: Raised with every change of what an entry is or how it is loaded.
FORMAT: Final = 1
_SUFFIX: Final = ".onnx"
#: Folders in which a graph is being written; those of killed processes are removed after this time.
_SCRATCH, _SCRATCH_LIMIT_S = ".writing-", 3600.0
_GROUP_OR_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH

#: Makes a session of a model: of a file, to be optimised and, unless None, written to a path; or of optimised bytes.
MakeSession = Callable[[Path | bytes, Path | None], Any]


def content_of(bundle: Bundle, repository: Path, model: str) -> str | None:
    """Digest of a model's files as the manifest has them, which were verified when the bundle was read.

    It covers all files beside ``model.onnx``, such as external data. None if the manifest does not list the model.
    """
    file = bundle.model_file(repository, model)
    folder = file.parent.relative_to(repository)
    files = {path: record.sha256 for path, record in bundle.files.items() if Path(path).is_relative_to(folder)}
    if str(folder / file.name) not in files:
        return None
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


class GraphCache:
    """Optimised graphs in one folder, of at most ``max_bytes`` together; the least recently used go first.

    Several processes may use the folder at once. Nothing here raises for the folder's sake: without it, or where it is
    full, sessions are made as without a cache.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._processor = processor_identity()
        self._unusable = "" if self._processor else "what processor this is cannot be read"
        self._logged = False

    def session(self, key: dict[str, object], path: Path, make: MakeSession) -> Any:
        """Make the session of the model at ``path``: of its optimised graph if that is kept, else of the model.

        ``key`` names all that the graph depends on, beside the processor. Raises what ``make`` raises for ``path``.
        """
        if not self._usable():
            return make(path, None)
        name = self._name(key)
        for entry in self._entries(name):
            session = self._of_entry(entry, name, make)
            if session is not None:
                return session
        try:
            scratch = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=self._folder))
        except OSError as error:
            logger.warning("graph cache %s: %s; graphs are optimised at every start", self._folder, error)
            return make(path, None)
        try:
            return self._optimised(name, path, scratch / f"graph{_SUFFIX}", make)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _optimised(self, name: str, path: Path, written: Path, make: MakeSession) -> Any:
        try:
            session = make(path, written)
        except Exception as error:  # Of the model, or of writing: no room, or a graph above protobuf's 2 GB.
            session = make(path, None)
            logger.warning("graph cache %s: %s is not kept: %s", self._folder, path, first_line(error))
            return session
        try:
            size = written.stat().st_size
            if size <= self._max_bytes:
                written.replace(self._folder / f"{name}.{_digest(name, written.read_bytes())}{_SUFFIX}")
                self._make_room()
            else:
                logger.warning("graph cache: the graph of %s has %d bytes, graph_cache_bytes allows less", path, size)
        except OSError as error:
            logger.warning("graph cache %s: %s is not kept: %s", self._folder, path, error)
        return session

    def _of_entry(self, entry: Path, name: str, make: MakeSession) -> Any:
        """Make a session of an entry; None, and the entry is removed, if it is not what its name says."""
        try:
            graph = entry.read_bytes()
        except OSError as error:
            if entry.exists():
                logger.warning("graph cache: %s", error)
            return None
        if entry.name == f"{name}.{_digest(name, graph)}{_SUFFIX}":
            try:
                session = make(graph, None)
            except Exception as error:
                logger.warning("graph cache: %s does not load: %s; it is made again", entry, first_line(error))
            else:
                with suppress(OSError):
                    os.utime(entry)  # Used just now.
                return session
        else:
            logger.warning("graph cache: %s is damaged or of something else; it is made again", entry)
        with suppress(OSError):
            entry.unlink()
        return None

    def _usable(self) -> bool:
        if not self._unusable:
            try:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._unusable = _not_ours(self._folder)
            except OSError as error:
                self._unusable = str(error)
        if self._unusable and not self._logged:
            logger.warning("graph cache %s is not used: %s", self._folder, self._unusable)
            self._logged = True
        return not self._unusable

    def _name(self, key: dict[str, object]) -> str:
        whole = {"format": FORMAT, "processor": self._processor, **key}
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()

    def _entries(self, name: str) -> list[Path]:
        return sorted(self._folder.glob(f"{name}.*{_SUFFIX}"))

    def _make_room(self) -> None:
        """Remove the least recently used entries past the bound, and what killed processes left."""
        found = []
        for path in self._folder.iterdir():
            with suppress(OSError):  # Another process removes, too.
                status = path.stat(follow_symlinks=False)
                if path.name.startswith(_SCRATCH):
                    if status.st_mtime < time.time() - _SCRATCH_LIMIT_S:
                        shutil.rmtree(path, ignore_errors=True)
                elif path.suffix == _SUFFIX:
                    found.append((status.st_mtime_ns, path, status.st_size))
        total = sum(size for _, _, size in found)
        for _, path, size in sorted(found):
            if total <= self._max_bytes:
                return
            with suppress(OSError):
                path.unlink(missing_ok=True)
                total -= size


def _digest(name: str, graph: bytes) -> str:
    return hashlib.sha256(name.encode() + graph).hexdigest()


def _not_ours(folder: Path) -> str:
    """Say why a folder's content could be someone else's; empty if it is ours alone."""
    status = folder.stat()
    if status.st_uid != os.geteuid():
        return f"it belongs to user {status.st_uid}, not to this process's {os.geteuid()}"
    if status.st_mode & _GROUP_OR_OTHERS_WRITE:
        return "others may write to it, and what it holds would be run; chmod go-w"
    return ""
