"""Manifests: a table that lists recordings, with files per modality, ids, time ranges and labels."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from dimml.errors import ConfigurationError, DataError, InvalidParameterError
from dimml.media.track_choice import TRACK_FIELDS, parse_track
from dimml_client.scoring.inputs.locations import filesystem, is_url, suffix
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
    base = root if root is not None else location.rpartition("/")[0] or ("" if is_url(location) else ".")
    try:
        with _opened(location) as file:
            rows = _READERS[suffix(location)](file)
            first = next(rows, None)
            if first is None:
                raise DataError(f"the manifest {location} lists nothing", field=location)
            _check_columns(location, first[1], columns)
            yield _line(*first, columns, base)
            for number, row in rows:
                yield _line(number, row, columns, base)
    except OSError as error:
        raise DataError(f"cannot read the manifest {location}: {error.strerror or error}", field=location) from error
    except (ValueError, csv.Error, pa.ArrowException) as error:
        kind = suffix(location).removeprefix(".")
        raise DataError(f"the manifest {location} does not read as {kind}: {error}", field=location) from error


def _opened(location: str) -> IO[bytes]:
    if not is_url(location):
        return Path(location).open("rb")
    files, path = filesystem(location)
    opened: IO[bytes] = files.open(path, "rb")
    return opened


def _csv(file: IO[bytes]) -> Iterator[tuple[int, dict[str, Any]]]:
    # Closes the file too, even if the generator is not exhausted.
    with io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
        reader = csv.DictReader(text)
        for row in reader:
            yield reader.line_num, {key: (value or "").strip() for key, value in row.items() if key}


def _parquet(file: IO[bytes]) -> Iterator[tuple[int, dict[str, Any]]]:
    number = 0
    for batch in pq.ParquetFile(file).iter_batches(4096):
        for row in batch.to_pylist():
            number += 1
            yield number, row


def _json_lines(file: IO[bytes]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        row = json.loads(line)
        if not isinstance(row, dict):
            raise ValueError(f"line {number} is not an object")  # noqa: TRY004  # an error of the file, not of the program
        yield number, row


_READERS: Final = {".csv": _csv, ".parquet": _parquet, ".jsonl": _json_lines, ".ndjson": _json_lines}


def _columns(row: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, str]:
    """Map our name of each existing column to the manifest's own; in JSON lines each line has its own columns."""
    return {name: name for name in row if name in COLUMNS or name.startswith(_PATH)} | dict(columns)


def _check_columns(location: str, first: Mapping[str, Any], columns: Mapping[str, str]) -> None:
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


def _line(number: int, row: Mapping[str, Any], columns: Mapping[str, str], base: str) -> Line:
    texts = {ours: _text(row.get(theirs)) for ours, theirs in _columns(row, columns).items()}
    parts = {
        MEDIA_PART if name == "path" else name.removeprefix(_PATH): _placed(text, base)
        for name, text in texts.items()
        if text and (name == "path" or name.startswith(_PATH))
    }
    problem = None if parts else f"line {number} names no file"
    times: dict[str, float | None] = {}
    for name in ("start_s", "end_s"):
        text = texts.get(name)
        times[name] = _seconds(text) if text else None
        if text and times[name] is None:
            problem = problem or f"line {number}: {name} is {text!r}, not a number of seconds from 0"
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


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _seconds(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0.0 else None


def _placed(text: str, base: str) -> str:
    if is_url(text) or text.startswith("/") or base in ("", "."):
        return text
    return f"{base.rstrip('/')}/{text}"
