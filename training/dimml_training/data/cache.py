"""Decoded clips on disk: one growing, memory-mapped file of rows per modality, and an index by content.

::

    <cache>/<settings>/settings.json     what the rows were made with; the folder's name is its hash
    <cache>/<settings>/<modality>.rows   row after row, each of modality.shape and dtype
    <cache>/<settings>/index.jsonl       one line per clip: key, slot, CRC-32 of its rows, what it lacks and why

The settings include the decoder, by ``DECODER_VERSION`` and the versions of its libraries: rows of another decoder
would make training differ from serving. A field that came later counts once it differs from its historic value
(``dimml.digests``). A clip's key holds the SHA-256 of its files, its time range and the margin in it: a file that
changes is decoded again, one that moves is not. Rows are only ever appended, and a row counts once its index line is
written, so an interrupted run continues where it stopped. A row whose checksum does not match is decoded again into a
new slot. A modality that a clip lacks has a hole there: zeros that take no space.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dimml.digests import historic
from dimml.errors import SetupError
from dimml.media.decoders.version import DECODER_VERSION
from dimml.modality import Modality
from dimml.signal_check import QualityThresholds
from dimml.system.files import exclusive_lock, sync_to_disk


@dataclass(frozen=True)
class CachedClip:
    """Location of one clip's rows. ``end_s`` is the end of the range requested from the decoder.

    ``absent`` has the status, as text, of every modality that the clip lacks: it has no row of it.
    """

    key: str
    slot: int
    crc32: dict[str, int]
    end_s: float | None
    absent: dict[str, str] = field(default_factory=dict)


def clip_key(digests: Mapping[str, str], start_s: float | None, end_s: float | None, margin_s: float = 0.0) -> str:
    """Key of one clip, from the SHA-256 of its file per modality, its time range, and the margin in that range.

    The margin is part of the key because it may reach past the end of a recording, and the labelled range may not.
    """
    return _digest({"files": dict(digests), "start_s": start_s, "end_s": end_s, "margin_s": margin_s})


def default_cache_dir() -> Path:
    """``$XDG_CACHE_HOME/dimml``, or ``~/.cache/dimml``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "dimml"


class ClipCache:
    """Cache of the rows made with one set of settings. Raises SetupError if the folder cannot be used."""

    def __init__(self, root: Path, modalities: Sequence[Modality], clip_s: float, quality: QualityThresholds) -> None:
        settings = {
            "decoder": _decoder(),
            "clip_s": clip_s,
            "modalities": [modality.model_dump(mode="json", exclude=historic(modality)) for modality in modalities],
            "quality": quality.model_dump(mode="json", exclude=historic(quality)),
        }
        self.modalities = tuple(modalities)
        self.folder = root / _digest(settings)[:16]
        self._index = self.folder / "index.jsonl"
        with _disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "settings.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")
            for modality in modalities:
                self._rows_file(modality).touch()

    def find(self, wanted: Iterable[str]) -> tuple[dict[str, CachedClip], int]:
        """Return the intact clips among the wanted keys, and the number of damaged ones."""
        keys = set(wanted)
        found: dict[str, CachedClip] = {}
        damaged: set[str] = set()
        # The index is read before the rows are mapped: rows of all its lines are then there, even if another process
        # appends in between.
        index = list(self._read_index())
        arrays = self.arrays()
        for entry in index:
            if entry.key not in keys:
                continue
            if self._intact(entry, arrays):
                found[entry.key] = entry
                damaged.discard(entry.key)
            elif entry.key not in found:
                damaged.add(entry.key)
        return found, len(damaged)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Map all rows written so far, per modality ``[slots, *shape]``, read-only."""
        return {modality.name: self._mapped(modality) for modality in self.modalities}

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the folder's lock, so that other writers wait; on exit everything is flushed to disk."""
        with _disk_errors(self.folder), exclusive_lock(self.folder / "lock"):
            yield
            for path in (*map(self._rows_file, self.modalities), self._index):
                if path.exists():
                    sync_to_disk(path)

    def add(
        self,
        key: str,
        rows: Mapping[str, npt.NDArray[Any]],
        end_s: float | None,
        absent: Mapping[str, str] | None = None,
    ) -> CachedClip:
        """Append one clip, with a row of every modality that ``absent`` does not name; call it only within ``writing``.

        ``absent`` has the status of each modality that the clip lacks.
        """
        with _disk_errors(self.folder):
            # The slot lies beyond anything that an interrupted append may have left.
            slot = max(math.ceil(self._rows_file(m).stat().st_size / self._row_bytes(m)) for m in self.modalities)
            checksums = {}
            for modality in self.modalities:
                if modality.name in (absent or {}):
                    # So long that the slot can be read, as zeros.
                    with self._rows_file(modality).open("rb+") as file:
                        file.truncate((slot + 1) * self._row_bytes(modality))
                    continue
                data = np.ascontiguousarray(rows[modality.name], dtype=modality.dtype).tobytes()
                checksums[modality.name] = zlib.crc32(data)
                with self._rows_file(modality).open("rb+") as file:
                    file.seek(slot * len(data))
                    file.write(data)
            entry = CachedClip(key, slot, checksums, end_s, dict(absent or {}))
            # Lines of clips that lack nothing are as they were before a clip could lack something.
            line = {name: value for name, value in asdict(entry).items() if name != "absent" or value}
            # The leading newline ends a line that a killed process left unfinished.
            with self._index.open("a", encoding="utf-8") as file:
                file.write("\n" + json.dumps(line) + "\n")
        return entry

    def _read_index(self) -> Iterator[CachedClip]:
        if not self._index.exists():
            return
        for line in self._index.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = CachedClip(**json.loads(line))
            except (ValueError, TypeError):
                continue  # an empty line, or one that a killed process left unfinished
            whole = isinstance(entry.crc32, dict) and isinstance(entry.absent, dict)
            if isinstance(entry.slot, int) and entry.slot >= 0 and whole:
                yield entry

    def _intact(self, entry: CachedClip, arrays: Mapping[str, npt.NDArray[Any]]) -> bool:
        return all(
            entry.slot < len(arrays[m.name])
            and (m.name in entry.absent or zlib.crc32(arrays[m.name][entry.slot]) == entry.crc32.get(m.name))
            for m in self.modalities
        )

    def _rows_file(self, modality: Modality) -> Path:
        return self.folder / f"{modality.name}.rows"

    def _row_bytes(self, modality: Modality) -> int:
        return math.prod(modality.shape) * modality.dtype.itemsize

    def _mapped(self, modality: Modality) -> npt.NDArray[Any]:
        path = self._rows_file(modality)
        slots = path.stat().st_size // self._row_bytes(modality)
        if slots == 0:  # an empty file cannot be mapped
            return np.empty((0, *modality.shape), modality.dtype)
        return np.memmap(path, modality.dtype, mode="r", shape=(slots, *modality.shape))


def _decoder() -> dict[str, str | int]:
    """Versions of what turns a file into rows: the decoder and its libraries."""
    libraries = ("av", "opencv-python-headless", "pi-heif", "pillow", "soundfile", "soxr")
    return {"version": DECODER_VERSION, **{library: version(library) for library in libraries}}


def _digest(document: Any) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Turn OSError into a SetupError of one line; what is already cached stays usable."""
    try:
        yield
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        way_out = (
            "free some space or choose another place with --cache-dir; what is cached is kept"
            if full
            else ("choose another place with --cache-dir")
        )
        raise SetupError(f"cannot write the clip cache {folder}: {error.strerror}; {way_out}") from error
