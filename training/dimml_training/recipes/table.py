"""Writing a clip table, as CSV or Parquet by the file name's suffix.

A clip whose file does not exist is always reported, never skipped silently.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dimml.errors import ConfigurationError, DataError
from dimml.system.files import write_atomically
from dimml_training.config import SPLITS

#: One clip: text by column. Media columns hold paths relative to the data set's root, or absolute ones.
Row = dict[str, str]

#: Most missing files named in a message; ``<out>.missing.csv`` lists them all.
NAMED = 10


@dataclass(frozen=True)
class Listing:
    """Rows found by a recipe, with the names of the columns that hold files (``media``), and warnings."""

    rows: Sequence[Row]
    media: Sequence[str]
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class Written:
    """Summary of a written clip table. ``splits`` counts clips by split, for every column of splits."""

    clips: int
    classes: int
    splits: Mapping[str, Mapping[str, int]]
    missing: int
    warnings: Sequence[str] = field(default_factory=list)


def write_clip_table(listing: Listing, root: Path, out: Path, *, allow_missing: bool = False) -> Written:
    """Write the rows whose files all exist to ``out``, and the others to ``<out>.missing.csv`` beside it.

    Raises DataError if a file is missing and ``allow_missing`` is not set (then only ``<out>.missing.csv`` is written),
    or if no clip was found at all.
    """
    there: list[Row] = []
    missing: list[Row] = []
    exists: dict[str, bool] = {}
    for row in listing.rows:
        paths = [row[column] for column in listing.media]
        for path in paths:
            if path not in exists:
                exists[path] = (root / path).is_file()
        (there if all(exists[path] for path in paths) else missing).append(row)
    sidecar = out.with_suffix(".missing.csv")
    _write(sidecar, missing)
    if missing and not allow_missing:
        raise DataError(
            f"{len(missing)} of {len(listing.rows)} clips have no file beneath {root}, see {sidecar}. "
            "Complete the data set, or go on without them by --allow-missing",
            problems=_named(missing, listing.media, exists),
            field="--root",
        )
    if not there:
        raise DataError(f"no clip of the data set lies beneath {root}; see docs/data.md for its layout", field="--root")
    _write(out, there)
    return Written(
        clips=len(there),
        classes=len({row["label"] for row in there}),
        splits={c: Counter(row[c] for row in there) for c in there[0] if there[0][c] in SPLITS},
        missing=len(missing),
        warnings=listing.warnings,
    )


def read_lines(path: Path, what: str) -> list[str]:
    """Read the non-empty lines of a split file, stripped. Raises DataError that calls the file ``what``."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise DataError(f"cannot read {what} {path}: {reason}", field=str(path)) from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def read_csv(path: Path, what: str, columns: Iterable[str]) -> list[dict[str, str]]:
    """Read a CSV with a header. Raises DataError if it cannot be read, or lacks one of ``columns`` in any line."""
    try:
        rows = list(csv.DictReader(read_lines(path, what)))
    except csv.Error as error:
        raise DataError(f"cannot read {what} {path}: {error}", field=str(path)) from error
    lacking = [column for column in columns if not rows or column not in rows[0]]
    if lacking:
        raise DataError(f"{what} {path} has no column {', '.join(map(repr, lacking))}", field=str(path))
    for row in rows:
        short = [column for column in columns if row[column] is None]
        if short:
            given = ",".join(value for value in row.values() if isinstance(value, str))
            raise DataError(f"{what} {path}: the line {given!r} ends before column {short[0]!r}", field=str(path))
    return rows


def write_whole(path: Path, data: bytes, option: str) -> None:
    """Write a file whole or not at all, so that an interrupted recipe leaves no partial clip or table.

    Raises ConfigurationError that names ``option``, the command line option of the place.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror}", field=option) from error


def count_warning(found: int, published: int, what: str) -> list[str]:
    """Warn if fewer were found than published: a clip without any file leaves no other trace in the folders."""
    return [f"{found} of the {published} {what} that were published are there"] if found < published else []


def folder(root: Path, name: str = ".") -> Path:
    """Path of a folder of the data set. Raises DataError if it does not exist."""
    path = root / name
    if not path.is_dir():
        raise DataError(f"{path} is not a folder; see docs/data.md for the layout that is expected", field="--root")
    return path


def _named(missing: Sequence[Row], media: Sequence[str], exists: Mapping[str, bool]) -> list[str]:
    """Messages for the first ``NAMED`` missing files, once each."""
    paths = list(dict.fromkeys(row[column] for row in missing for column in media if not exists[row[column]]))
    more = [f"and {len(paths) - NAMED} more files"] if len(paths) > NAMED else []
    return [f"missing file {path}" for path in paths[:NAMED]] + more


def _write(path: Path, rows: Sequence[Row]) -> None:
    """Write rows to a file; without rows, remove the file."""
    if not rows:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise ConfigurationError(f"cannot write {path}: {error.strerror}", field="--out") from error
        return
    if path.suffix.lower() == ".parquet":
        import pyarrow
        import pyarrow.parquet

        parquet = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), parquet)
        write_whole(path, parquet.getvalue(), "--out")
        return
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_whole(path, text.getvalue().encode(), "--out")
