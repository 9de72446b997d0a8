"""Checkpoint of an unfinished run's rows: a hidden folder beside the table, to which whole parts are added.

``run.json`` identifies the run, ``inputs.parquet`` lists what it scores, ``part-<first>-<end>.parquet`` holds the rows
of the recordings from ``first`` up to, not including, ``end``. A part is written under another name and renamed when it
is complete, so that after a kill every part is whole, and the run resumes where the last part ends.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from dimml.errors import ConfigurationError, DataError
from dimml.system.files import exclusive_lock, sync_to_disk, write_atomically
from dimml_client.scoring.inputs.listing import Listing
from dimml_client.scoring.table.formats import ParquetSink
from dimml_client.scoring.table.rows import Row

_RUN, _INPUTS, _LOCK, _OPEN = "run.json", "inputs.parquet", "lock", "part.tmp"
_PART: Final = re.compile(r"part-(\d+)-(\d+)\.parquet")
#: A part is completed when it has this many rows…
ROWS_PER_PART: Final = 20_000
#: …or is this old: the most that a kill costs, beside the current recording.
PART_S: Final = 10.0
#: Rows per row group.
_ROWS_PER_WRITE: Final = 1_000


def folder_of(out: Path) -> Path:
    """Return the folder of a table's parts until the table is complete."""
    return out.with_name(f".{out.name}.parts")


def remove_checkpoint(folder: Path) -> None:
    """Delete a checkpoint that is no longer needed; another process may delete it at the same time."""
    shutil.rmtree(folder, ignore_errors=True)


class Checkpoint:
    """The folder of one run, locked while it is open. Rows come in the order of the inputs.

    Raises OSError if the folder cannot be created or written, ConfigurationError if another process has it open.
    """

    def __init__(self, out: Path, schema: pa.Schema) -> None:
        self.folder = folder_of(out)
        self.schema = schema
        self.folder.mkdir(exist_ok=True)
        self._lock = ExitStack()
        if not self._lock.enter_context(exclusive_lock(self.folder / _LOCK, wait=False)):
            self._lock.close()
            raise ConfigurationError(f"another `dimml score` is writing {out}", field="--out")
        (self.folder / _OPEN).unlink(missing_ok=True)
        self._rows: list[Row] = []
        self._sink: ParquetSink | None = None
        self._sunk = 0
        self._began = 0.0
        self._first = self.next_index

    @property
    def record(self) -> dict[str, Any] | None:
        """The record that ``begin`` wrote; None in a new folder."""
        try:
            found: dict[str, Any] = json.loads((self.folder / _RUN).read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise DataError(f"{self.folder / _RUN} is damaged; remove {self.folder} to start over") from error
        return found

    @property
    def listing(self) -> Listing:
        """The inputs with which the run began."""
        return Listing(pq.read_table(self.folder / _INPUTS, memory_map=True))

    @property
    def files(self) -> list[Path]:
        """List complete parts in order. Raises DataError if one is missing between others."""
        found = sorted((int(m[1]), int(m[2])) for p in self.folder.iterdir() if (m := _PART.fullmatch(p.name)))
        for (_, end), (first, _) in pairwise(found):
            if end != first:
                raise DataError(f"a part is missing in {self.folder}; remove the folder to start over")
        return [self.folder / _name(*part) for part in found]

    @property
    def next_index(self) -> int:
        """The first recording that no complete part has."""
        files = self.files
        match = _PART.fullmatch(files[-1].name) if files else None
        return int(match[2]) if match else 0

    def begin(self, record: dict[str, Any], listing: Listing) -> None:
        """Record the run's identity; the inputs are written first, so that a record never exists without them."""
        write_atomically(self.folder / _INPUTS, lambda path: pq.write_table(listing.table, path), durable=True)
        write_atomically(self.folder / _RUN, json.dumps(record, indent=1).encode(), durable=True)

    def add(self, row: Row) -> None:
        """Add a row of the current recording."""
        if self._sink is None and not self._rows:
            self._began = time.monotonic()
        self._rows.append(row)
        if len(self._rows) >= _ROWS_PER_WRITE:
            self._write()

    def done(self, index: int) -> None:
        """Report that recording ``index`` has all its rows; a part that is large or old enough is completed."""
        rows = self._sunk + len(self._rows)
        if rows >= ROWS_PER_PART or time.monotonic() - self._began >= PART_S:
            self.commit(index + 1)

    def commit(self, end: int) -> None:
        """Complete a part with all recordings since the last part, up to but not including ``end``."""
        if self._sink is None and not self._rows:
            return
        self._write().close()
        self._sink, self._sunk = None, 0
        (self.folder / _OPEN).replace(self.folder / _name(self._first, end))
        sync_to_disk(self.folder)
        self._first = end

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Iterate over all rows of complete parts, in order."""
        for path in self.files:
            with pq.ParquetFile(path) as file:
                yield from file.iter_batches(_ROWS_PER_WRITE)

    def count(self) -> int:
        """Count the rows in complete parts."""
        return sum(pq.read_metadata(path).num_rows for path in self.files)

    def close(self) -> None:
        """Release the lock; rows in no complete part are lost, which ``commit`` prevents."""
        self._lock.close()

    def remove(self) -> None:
        """Delete the folder, once its rows are in the table."""
        remove_checkpoint(self.folder)

    def _write(self) -> ParquetSink:
        if self._sink is None:
            self._sink = ParquetSink(self.folder / _OPEN, self.schema)
        self._sink.write(pa.RecordBatch.from_pylist(self._rows, self.schema))
        self._sunk += len(self._rows)
        self._rows = []
        return self._sink


def _name(first: int, end: int) -> str:
    return f"part-{first:09d}-{end:09d}.parquet"
