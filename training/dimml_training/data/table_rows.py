"""Rows of the clip table as text: CSV, or Parquet with paths or the recordings themselves."""

from __future__ import annotations

import csv
import glob
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from dimml.errors import DataError, SetupError
from dimml.system.files import write_atomically
from dimml.tables.cells import cell_text, label_text, shown
from dimml.tables.parquet import ParquetTable
from dimml_training.config import SPLITS, DataConfig, Split, expand_path

#: Stands for the split in the name of a table that is one file, or several, for each.
PER_SPLIT: Final = "{split}"


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row: text by column, and what is wrong with its cells. ``line`` also names the file, of several."""

    line: int | str
    cells: Mapping[str, str]
    problems: Sequence[str] = ()


@dataclass(slots=True)
class TableRows:
    """All rows, the table's columns, and the names of the classes in order, if a Parquet file has them."""

    columns: tuple[str, ...]
    rows: list[TableRow] = field(default_factory=list)
    class_names: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Columns that are read, by what they hold; recordings within the table are written to ``media_dir``."""

    media: Sequence[str]
    label: str | None
    others: Sequence[str]
    media_dir: Path | None

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys([*self.media, *([] if self.label is None else [self.label]), *self.others]))


def read_rows(config: DataConfig, media: Sequence[str], media_dir: Path | None = None) -> TableRows:
    """Read the wanted columns of the clip table, or of the tables of each split where ``{split}`` is in its name.

    Recordings that stand in a Parquet file are written to ``media_dir``, each once, under the SHA-256 of its bytes, and
    their cells become these paths. Raises DataError.
    """
    columns = config.columns
    several = PER_SPLIT in config.manifest
    optional = (columns.subject, columns.start_s, columns.end_s)
    others = [*([] if several else [columns.split]), *(name for name in optional if name is not None)]
    wanted = _Wanted(media, columns.label, others, media_dir)
    if not several:
        return _read(expand_path(config.manifest), wanted)
    found: TableRows | None = None
    for split in SPLITS:
        for path in _tables_of(config, split):
            table = _read(path, wanted)
            rows = [
                TableRow(f"{row.line} of {path.name}", {**row.cells, columns.split: config.splits[split]}, row.problems)
                for row in table.rows
            ]
            if found is None:
                found = TableRows((*table.columns, columns.split), rows, table.class_names)
                continue
            if table.class_names != found.class_names:
                raise DataError(
                    f"{path}: the classes of {columns.label!r} are named otherwise than in the tables before"
                )
            found.rows += rows
    return found or TableRows(())


def read_table(path: Path) -> TableRows:
    """Read all columns of one table, but for those of a Parquet file that hold recordings or no single values.

    Raises DataError.
    """
    values: list[str] = []
    if path.suffix.lower() == ".parquet":
        # An error is reported by the reading below.
        with suppress(OSError, ValueError), ParquetTable(path) as table:
            media = table.media_columns
            values = [name for name in table.columns if name not in media and table.type_of(name) is None]
    return _read(path, _Wanted((), None, values, None))


def _tables_of(config: DataConfig, split: Split) -> list[Path]:
    pattern = str(expand_path(config.manifest.replace(PER_SPLIT, config.splits[split])))
    found = sorted(map(Path, glob.glob(pattern)))  # noqa: PTH207  # Path.glob takes no absolute pattern
    if not found:
        raise DataError(f"there is no clip table {pattern}, for the {split} split", field="data.manifest")
    return found


def _read(path: Path, wanted: _Wanted) -> TableRows:
    try:
        table = _parquet(path, wanted) if path.suffix.lower() == ".parquet" else _csv(path, wanted)
    except OSError as error:
        raise DataError(
            f"cannot read the clip table {path}: {error.strerror or error}; `dimml make-manifest` lists a public data "
            "set (docs/data.md), docs/training.md says how to list your own",
            field="data.manifest",
        ) from error
    except (ValueError, csv.Error) as error:
        raise DataError(f"the clip table {path} is not CSV or Parquet: {error}", field="data.manifest") from error
    if not table.rows:
        raise DataError(f"the clip table {path} holds no clips", field="data.manifest")
    return table


def _check_columns(path: Path, columns: Sequence[str], wanted: _Wanted) -> None:
    missing = sorted({name for name in wanted.columns if name not in columns})
    if missing:
        raise DataError(
            f"{path} has no column {', '.join(map(repr, missing))}; it has {', '.join(columns)}; "
            "see data.columns in the config",
            field=missing[0],
        )


def _csv(path: Path, wanted: _Wanted) -> TableRows:
    """Read CSV. A row's number is that of its last line."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        rows = [
            TableRow(reader.line_num, {key: (value or "").strip() for key, value in row.items() if key})
            for row in reader
        ]
        columns = tuple(name for name in reader.fieldnames or () if name)
    if rows:
        _check_columns(path, columns, wanted)
    return TableRows(columns, rows)


def _parquet(path: Path, wanted: _Wanted) -> TableRows:
    """Read Parquet. Rows are numbered as if it were CSV."""
    with ParquetTable(path) as table:
        _check_columns(path, table.columns, wanted)
        _check_types(path, table, wanted)
        found = TableRows(table.columns, class_names=None if wanted.label is None else table.class_names(wanted.label))
        for line, row in enumerate(_kept(table, path, wanted), start=2):
            cells: dict[str, str] = {}
            problems = []
            for name, value in row.items():
                try:
                    cells[name] = label_text(value, found.class_names) if name == wanted.label else cell_text(value)
                except ValueError as error:
                    cells[name] = ""
                    problems.append(f"{name} {error}")
            found.rows.append(TableRow(line, cells, problems))
    return found


def _check_types(path: Path, table: ParquetTable, wanted: _Wanted) -> None:
    media = table.media_columns
    for name in wanted.columns:
        if name in wanted.media and name in table.series_columns:
            continue
        odd = table.type_of(name) or ("bytes" if name in media and name not in wanted.media else None)
        if odd is not None:
            what = "a recording is one file" if name in wanted.media else "it must be one value"
            raise DataError(f"{path}: column {name!r} holds {shown(odd)}; {what}", field=name)


def _kept(table: ParquetTable, path: Path, wanted: _Wanted) -> Iterator[dict[str, Any]]:
    """Read the rows; recordings in them are written to files."""
    folder = wanted.media_dir
    if folder is None:
        if inside := [name for name in wanted.media if name in {*table.media_columns, *table.series_columns}]:
            raise DataError(f"{path}: the recordings stand in column {inside[0]!r}, and nothing keeps them here")
        yield from table.rows(wanted.columns)
        return
    yield from table.rows(wanted.columns, keep=lambda content: str(_kept_file(folder, content)))


def _kept_file(folder: Path, content: bytes) -> Path:
    """Write a recording, unless it is there. Raises SetupError."""
    path = folder / hashlib.sha256(content).hexdigest()
    try:
        if not path.is_file() or path.stat().st_size != len(content):
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)
    except OSError as error:
        raise SetupError(
            f"cannot keep the recordings of the clip table in {folder}: {error.strerror}; choose another place with "
            "--cache-dir"
        ) from error
    return path
