"""The rows of a run that is not finished: a hidden folder beside the table, to which whole parts are added.

``run.json`` says which run it is, ``inputs.parquet`` what it scores, ``part-<first>-<end>.parquet`` holds the rows
of the recordings from ``first`` up to before ``end``. A part is written under another name and renamed when it is
whole, so that whatever is killed, what stands there is whole, and the next recording is where the last part ends.
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
#: A part is made whole when it has so many rows…
ROWS_PER_PART: Final = 20_000
#: …or is so old: what a kill costs at most, beside the recording under way.
PART_S: Final = 10.0
#: Rows that become one row group.
_ROWS_PER_WRITE: Final = 1_000


def folder_of(out: Path) -> Path:
    """Where the parts of a table are until it is whole."""
    return out.with_name(f".{out.name}.parts")


def remove_checkpoint(folder: Path) -> None:
    """Delete a folder of parts that nobody needs; what another process deletes at the same time is as good."""
    shutil.rmtree(folder, ignore_errors=True)


class Checkpoint:
    """The folder of one run, locked while it is open. Rows come in the order of the inputs.

    Raises OSError where the folder cannot be made or written, ConfigurationError where another process has it open.
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
        """What ``begin`` wrote; None in a new folder."""
        try:
            found: dict[str, Any] = json.loads((self.folder / _RUN).read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise DataError(f"{self.folder / _RUN} is damaged; remove {self.folder} to start over") from error
        return found

    @property
    def listing(self) -> Listing:
        """The inputs that the run began with."""
        return Listing(pq.read_table(self.folder / _INPUTS, memory_map=True))

    @property
    def files(self) -> list[Path]:
        """Whole parts in order. Raises DataError where one is missing between others."""
        found = sorted((int(m[1]), int(m[2])) for p in self.folder.iterdir() if (m := _PART.fullmatch(p.name)))
        for (_, end), (first, _) in pairwise(found):
            if end != first:
                raise DataError(f"a part is missing in {self.folder}; remove the folder to start over")
        return [self.folder / _name(*part) for part in found]

    @property
    def next_index(self) -> int:
        """The first recording that no whole part has."""
        files = self.files
        match = _PART.fullmatch(files[-1].name) if files else None
        return int(match[2]) if match else 0

    def begin(self, record: dict[str, Any], listing: Listing) -> None:
        """Note which run this is; the inputs first, so that a record never stands without them."""
        write_atomically(self.folder / _INPUTS, lambda path: pq.write_table(listing.table, path), durable=True)
        write_atomically(self.folder / _RUN, json.dumps(record, indent=1).encode(), durable=True)

    def add(self, row: Row) -> None:
        """One row of the recording under way."""
        if self._sink is None and not self._rows:
            self._began = time.monotonic()
        self._rows.append(row)
        if len(self._rows) >= _ROWS_PER_WRITE:
            self._write()

    def done(self, index: int) -> None:
        """Recording ``index`` has all of its rows; a part that is large or old enough is made whole."""
        rows = self._sunk + len(self._rows)
        if rows >= ROWS_PER_PART or time.monotonic() - self._began >= PART_S:
            self.commit(index + 1)

    def commit(self, end: int) -> None:
        """Make a whole part of all recordings from the last part up to before ``end``."""
        if self._sink is None and not self._rows:
            return
        self._write().close()
        self._sink, self._sunk = None, 0
        (self.folder / _OPEN).replace(self.folder / _name(self._first, end))
        sync_to_disk(self.folder)
        self._first = end

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All rows of whole parts, in order."""
        for path in self.files:
            with pq.ParquetFile(path) as file:
                yield from file.iter_batches(_ROWS_PER_WRITE)

    def count(self) -> int:
        """Rows in whole parts."""
        return sum(pq.read_metadata(path).num_rows for path in self.files)

    def close(self) -> None:
        """Let go of the lock; rows that are in no whole part are lost, which ``commit`` prevents."""
        self._lock.close()

    def remove(self) -> None:
        """Delete the folder: its rows stand in the table."""
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
