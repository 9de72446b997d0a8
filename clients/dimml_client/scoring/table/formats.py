"""File formats of the table: Parquet, JSON lines or CSV, written under a temporary name and renamed in one step."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Protocol

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from dimml.errors import ConfigurationError
from dimml.system.files import sync_to_disk

SUFFIXES: Final = (".parquet", ".jsonl", ".csv")
#: A Parquet table with more rows becomes a folder of files with at most this many rows.
ROWS_PER_FILE: Final = 1_000_000
METADATA_KEY: Final = b"dimml"


class Sink(Protocol):
    """Takes batches of the table in order."""

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows."""
        ...

    def close(self) -> None:
        """Complete the file, and flush it to disk."""
        ...


class ParquetSink:
    """One Parquet file."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path = path
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows, as one row group."""
        self._writer.write_batch(batch)

    def close(self) -> None:
        """Write the footer."""
        self._writer.close()
        sync_to_disk(self._path)


class ParquetFolder:
    """A folder of Parquet files with at most ``rows_per_file`` rows, named so that they sort in order."""

    def __init__(self, path: Path, schema: pa.Schema, rows_per_file: int) -> None:
        path.mkdir()
        self._path, self._schema, self._rows_per_file = path, schema, rows_per_file
        self._files = self._rows = 0
        self._sink: ParquetSink | None = None

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows; the files fill up to the last row."""
        while batch.num_rows:
            if self._sink is None:
                self._sink = ParquetSink(self._path / f"part-{self._files:05d}.parquet", self._schema)
                self._files, self._rows = self._files + 1, 0
            fits = batch.slice(0, self._rows_per_file - self._rows)
            self._sink.write(fits)
            self._rows += fits.num_rows
            batch = batch.slice(fits.num_rows)
            if self._rows == self._rows_per_file:
                self._sink.close()
                self._sink = None

    def close(self) -> None:
        """Finish the last file."""
        if self._sink is not None:
            self._sink.close()
        sync_to_disk(self._path)


class JsonLinesSink:
    """One object per line; empty columns are null."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("w", encoding="utf-8")

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows."""
        self._file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in batch.to_pylist())

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        sync_to_disk(self._path)


class CsvSink:
    """CSV with a header; null values are empty, and a list is a cell of JSON."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path = path
        self._schema = _flat(schema)
        self._writer = pa_csv.CSVWriter(path, self._schema)

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows."""
        columns = [_as_json(column) if pa.types.is_list(column.type) else column for column in batch.columns]
        self._writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=self._schema))

    def close(self) -> None:
        """Close the file."""
        self._writer.close()
        sync_to_disk(self._path)


def _flat(schema: pa.Schema) -> pa.Schema:
    """Return the schema with a text in place of each list."""
    fields = [pa.field(f.name, pa.string()) if pa.types.is_list(f.type) else f for f in schema]
    return pa.schema(fields, metadata=schema.metadata)


def _as_json(column: pa.Array) -> pa.Array:
    texts = [None if value is None else json.dumps(value, ensure_ascii=False) for value in column.to_pylist()]
    return pa.array(texts, pa.string())


def checked_out(text: str) -> Path:
    """Return the path of ``--out``. Raises ConfigurationError for a URL, and for an ending that names no format."""
    if "://" in text:
        raise ConfigurationError(
            f"--out {text}: the table is written on this machine, where its parts outlive a kill and it appears in one "
            "step; give a path, and copy the whole table to the store",
            field="--out",
        )
    out = Path(text)
    if out.suffix.lower() not in SUFFIXES:
        raise ConfigurationError(f"--out {out}: the ending must be one of {', '.join(SUFFIXES)}", field="--out")
    return out


def open_sink(path: Path, out: Path, schema: pa.Schema, rows: int, rows_per_file: int = ROWS_PER_FILE) -> Sink:
    """Open a sink at ``path`` in the format of ``out``."""
    ending = out.suffix.lower()
    if ending == ".jsonl":
        return JsonLinesSink(path)
    if ending == ".csv":
        return CsvSink(path, schema)
    return ParquetFolder(path, schema, rows_per_file) if rows > rows_per_file else ParquetSink(path, schema)


def sidecar(out: Path) -> Path:
    """Return the path of the metadata, for a format that cannot hold any."""
    return out.with_name(out.name + ".meta.json")


def with_metadata(schema: pa.Schema, metadata: dict[str, Any]) -> pa.Schema:
    """Return the schema with dimml's metadata as JSON under the key ``dimml``."""
    return schema.with_metadata({METADATA_KEY: json.dumps(metadata).encode()})


def read_metadata(out: Path) -> dict[str, Any] | None:
    """Read the metadata of a finished table; None if dimml did not write it."""
    try:
        if out.suffix.lower() != ".parquet":
            text = sidecar(out).read_bytes()
        else:
            first = sorted(out.glob("part-*.parquet"))[0] if out.is_dir() else out
            text = (pq.read_schema(first).metadata or {})[METADATA_KEY]
        found = json.loads(text)
    except (OSError, ValueError, KeyError, IndexError, pa.ArrowException):
        return None
    return found if isinstance(found, dict) else None


def removed(path: Path) -> None:
    """Remove a file or a folder, if it exists."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def read_rows(out: Path, schema: pa.Schema) -> Iterator[dict[str, Any]]:
    """Read the rows of a finished table in any format; ``schema`` names at least its columns."""
    ending = out.suffix.lower()
    if ending == ".csv":
        # A column's type cannot be inferred from its first rows: they may be empty, or hold labels that are digits.
        convert = pa_csv.ConvertOptions(
            column_types={field.name: field.type for field in _flat(schema)}, null_values=[""], strings_can_be_null=True
        )
        with pa_csv.open_csv(out, convert_options=convert) as reader:
            lists = [field.name for field in schema if pa.types.is_list(field.type)]
            for batch in reader:
                for row in batch.to_pylist():
                    yield row | {name: json.loads(row[name]) for name in lists if row.get(name) is not None}
    elif ending == ".jsonl":
        with out.open(encoding="utf-8") as file:
            yield from map(json.loads, file)
    else:
        for path in sorted(out.glob("part-*.parquet")) if out.is_dir() else [out]:
            with pq.ParquetFile(path) as whole:
                for batch in whole.iter_batches(4096):
                    yield from batch.to_pylist()
