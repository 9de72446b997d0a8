"""Manifests: a table that lists recordings, with files per modality, ids, time ranges and labels."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import pyarrow as pa

from dimml.errors import ConfigurationError, DataError, DimmlError, InvalidParameterError
from dimml.media.track_choice import TRACK_FIELDS, parse_track
from dimml.tables.cells import MediaCell, cell_text, label_text, shown
from dimml.tables.parquet import ParquetTable
from dimml_client.scoring.inputs.cells import cell_location
from dimml_client.scoring.inputs.locations import below, beside, filesystem, in_words, is_url, suffix
from dimml_client.scoring.recording import MEDIA_PART

SUFFIXES: Final = frozenset({".csv", ".parquet", ".jsonl", ".ndjson"})
#: Columns that a manifest may have, beside ``path_<modality>``.
COLUMNS: Final = ("path", "id", "start_s", "end_s", "label", "audio_track", "video_track")
_PATH: Final = "path_"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a manifest; ``id`` may be None, ``problem`` says why a line cannot be scored."""

    number: int
    parts: Mapping[str, str]
    id: str | None
    start_s: float | None
    end_s: float | None
    label: str | None
    problem: str | None
    audio_track: str | None = None
    video_track: str | None = None


def column_names(options: list[str]) -> dict[str, str]:
    """Parse ``--column path=clip`` into the manifest's own name of each column. Raises ConfigurationError."""
    names = {}
    for option in options:
        ours, equals, theirs = option.partition("=")
        if not (equals and theirs and (ours in COLUMNS or ours.startswith(_PATH))):
            known = ", ".join((*COLUMNS, "path_<modality>"))
            raise ConfigurationError(f"--column {option}: write NAME=COLUMN, NAME one of {known}", field="--column")
        names[ours] = theirs
    return names


def read_lines(location: str, columns: Mapping[str, str], root: str | None) -> Iterator[Line]:
    """Read the lines of a manifest: CSV, Parquet or JSON lines, by its ending.

    Relative paths are below ``root``, by default the manifest's folder. Raises DataError if the file cannot be read as
    a table, or names no files.
    """

    def placed(name: str) -> str:
        return beside(location, name) if root is None else below(root, name)

    try:
        with _opened(location) as file:
            rows = _READERS[suffix(location)](file, location, columns)
            first = _checked(next(rows, None), location, columns)
            yield _line(*first, columns, placed, location)
            for number, row in rows:
                yield _line(number, row, columns, placed, location)
    except DimmlError:
        raise
    except OSError as error:
        raise DataError(f"cannot read the manifest {location}: {error.strerror or error}", field=location) from error
    except (ValueError, csv.Error, pa.ArrowException) as error:
        kind = suffix(location).removeprefix(".")
        raise DataError(f"the manifest {location} does not read as {kind}: {error}", field=location) from error
    except Exception as error:
        # Every file system and archive has exceptions of its own, without a common base.
        raise DataError(f"cannot read the manifest {location}: {in_words(error)}", field=location) from error


def read_list(location: str, root: str | None) -> Iterator[str]:
    """Read a list of recordings, archives and manifests, one a line, relative as in ``read_lines``.

    Raises DataError.
    """
    try:
        with _opened(location) as file:
            text = file.read().decode("utf-8-sig")
    except DimmlError:
        raise
    except Exception as error:
        # Every file system and archive has exceptions of its own, without a common base.
        raise DataError(f"cannot read the list {location}: {in_words(error)}", field=location) from error
    for line in text.splitlines():
        if name := line.strip():
            yield beside(location, name) if root is None else below(root, name)


@contextlib.contextmanager
def _opened(location: str) -> Iterator[IO[bytes]]:
    if not is_url(location):
        with Path(location).open("rb") as file:
            yield file
        return
    # An archive closes its files with itself.
    files, path = filesystem(location)
    with files.open(path, "rb") as file:
        yield file


def _csv(file: IO[bytes], location: str, columns: Mapping[str, str]) -> Iterator[tuple[int, dict[str, Any]]]:
    # Closes the file too, even if the generator is not exhausted.
    with io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
        reader = csv.DictReader(text)
        for row in reader:
            yield reader.line_num, {key: (value or "").strip() for key, value in row.items() if key}


def _parquet(file: IO[bytes], location: str, columns: Mapping[str, str]) -> Iterator[tuple[int, dict[str, Any]]]:
    with ParquetTable(file) as table:
        media = table.media_columns
        names = _columns(dict.fromkeys(table.columns), columns)
        # The one column of recordings that `datasets` writes needs no option.
        alone = media[0] if len(media) == 1 and not any(map(_names_file, names)) else None
        if media and alone is None and not any(map(_names_file, names)):
            raise DataError(
                f"{location} holds recordings in {', '.join(media)}; say whose they are: --column path=COLUMN, or "
                "--column path_<modality>=COLUMN for a modality's own",
                field="path",
            )
        wanted = {ours: theirs for ours, theirs in names.items() if theirs in table.columns}
        for ours, theirs in wanted.items():
            if _names_file(ours) and theirs in table.series_columns:
                continue
            odd = table.type_of(theirs) or ("bytes" if theirs in media and not _names_file(ours) else None)
            if odd is not None:
                what = "a recording is one file" if _names_file(ours) else "it must be one value"
                raise DataError(
                    f"{location}: column {theirs!r}, read as {ours}, holds {shown(odd)}; {what}", field=theirs
                )
        label = wanted.get("label")
        classes = None if label is None else table.class_names(label)
        # For the message that lists the table's columns.
        unread = dict.fromkeys(table.columns)
        reads = dict.fromkeys([*wanted.values(), *([] if alone is None else [alone])])
        for number, row in enumerate(table.rows(list(reads)), start=1):
            if label is not None and classes is not None:
                # A number that no class has stays as it is: a label that the bundle does not know.
                with contextlib.suppress(ValueError):
                    row[label] = label_text(row[label], classes)
            if alone is not None:
                row["path"] = row[alone]
            yield number, {**unread, **row}


def _json_lines(file: IO[bytes], location: str, columns: Mapping[str, str]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        row = json.loads(line)
        if not isinstance(row, dict):
            raise ValueError(f"line {number} is not an object")  # noqa: TRY004  # an error of the file, not of the program
        yield number, row


_READERS: Final = {".csv": _csv, ".parquet": _parquet, ".jsonl": _json_lines, ".ndjson": _json_lines}


def _names_file(column: str) -> bool:
    return column == "path" or column.startswith(_PATH)


def _columns(row: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, str]:
    """Map our name of each existing column to the manifest's own; in JSON lines each line has its own columns."""
    return {name: name for name in row if name in COLUMNS or name.startswith(_PATH)} | dict(columns)


def _checked(
    line: tuple[int, dict[str, Any]] | None, location: str, columns: Mapping[str, str]
) -> tuple[int, dict[str, Any]]:
    """Return the first line, once it has the columns that are needed."""
    if line is None:
        raise DataError(f"the manifest {location} lists nothing", field=location)
    _, first = line
    for ours, theirs in columns.items():
        if theirs not in first:
            raise DataError(
                f"{location} has no column {theirs!r} (--column {ours}={theirs}); it has {', '.join(first)}",
                field=theirs,
            )
    if not any(name == "path" or name.startswith(_PATH) for name in _columns(first, columns)):
        raise DataError(
            f"{location} has no column 'path' or 'path_<modality>'; it has {', '.join(first)}; name it with "
            "--column path=COLUMN",
            field="path",
        )
    return line


def _line(
    number: int, row: Mapping[str, Any], columns: Mapping[str, str], placed: Callable[[str], str], location: str
) -> Line:
    texts: dict[str, str] = {}
    parts: dict[str, str] = {}
    problem: str | None = None
    for ours, theirs in _columns(row, columns).items():
        value = row.get(theirs)
        try:
            text = _placed(value, placed, location) if _names_file(ours) else _text(ours, value)
        except ValueError as error:
            problem = problem or f"line {number}: {theirs} {error}"
            continue
        if _names_file(ours) and text:
            parts[MEDIA_PART if ours == "path" else ours.removeprefix(_PATH)] = text
        texts[ours] = text
    problem = problem or (None if parts else f"line {number} names no file")
    times: dict[str, float | None] = {}
    for name in ("start_s", "end_s"):
        given = texts.get(name)
        times[name] = _seconds(given) if given else None
        if given and times[name] is None:
            problem = problem or f"line {number}: {name} is {shown(given)}, not a number of seconds from 0"
    start_s, end_s = times["start_s"], times["end_s"]
    if end_s is not None and end_s <= (start_s or 0.0):
        problem = problem or f"line {number}: end_s ({end_s:g}) must be after start_s ({start_s or 0.0:g})"
    try:
        for kind, field in TRACK_FIELDS.items():
            parse_track(kind, texts.get(field))
    except InvalidParameterError as error:
        problem = problem or f"line {number}: {error.message}"
    texts_or_none = {name: text or None for name, text in texts.items()}
    return Line(
        number,
        parts,
        texts_or_none.get("id"),
        start_s,
        end_s,
        texts_or_none.get("label"),
        problem,
        texts_or_none.get("audio_track"),
        texts_or_none.get("video_track"),
    )


def _placed(value: object, placed: Callable[[str], str], table: str) -> str:
    if isinstance(value, MediaCell):
        return cell_location(table, value)
    text = cell_text(value)
    return placed(text) if text else ""


def _text(column: str, value: object) -> str:
    return label_text(value, None) if column == "label" else cell_text(value)


def _seconds(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0.0 else None
