"""Finding out what the columns of a clip table are: files, class, split, subject, and time range."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dimml.errors import ConfigurationError, DataError
from dimml_training.config import Split
from dimml_training.data.table_rows import read_table

#: A row of the table as text by column, with its line.
Line = tuple[int | str, dict[str, str]]

LABEL_NAMES: Final = ("label", "class", "target", "category", "emotion", "action", "word")
SPLIT_NAMES: Final = ("split", "subset", "set", "partition", "usage", "phase")
SUBJECT_NAMES: Final = ("subject", "speaker", "actor", "talker", "participant", "person", "performer", "user")
RANGE_NAMES: Final = (("start_s", "end_s"), ("start", "end"), ("begin", "end"), ("from", "to"), ("onset", "offset"))
#: Words by which tables name the splits.
SPLIT_WORDS: Final[Mapping[Split, tuple[str, ...]]] = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid", "dev", "development"),
    "test": ("test", "testing", "eval", "evaluation"),
}
#: Endings of names by which a column of files is known even where none of them is there.
# fmt: off
MEDIA_ENDINGS: Final = frozenset(
    {
        ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".wmv",
        ".flv", ".3gp", ".mxf", ".wav", ".mp3", ".flac", ".ogg", ".opus", ".m4a", ".aac",
        ".aiff", ".wma", ".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff",
        ".heic", ".avif", ".npy",
    }
)
# fmt: on
#: Share of a column's values that must look like what it is taken for.
_MOST: Final = 0.5
_NAMED: Final = 8


@dataclass(frozen=True)
class TableColumns:
    """What each column is. ``media`` has one column, or one for each of several files of a clip."""

    media: tuple[str, ...]
    label: str
    split: str | None
    subject: str | None
    start_s: str | None
    end_s: str | None


@dataclass(frozen=True)
class InspectedTable:
    """A clip table with what its columns are. ``splits`` are its words for the splits, of those that it has."""

    path: Path
    lines: Sequence[Line]
    columns: TableColumns
    #: Folder that media paths are relative to.
    root: Path
    splits: Mapping[Split, str]


def inspect_table(path: Path, *, label: str | None = None, media_root: Path | None = None) -> InspectedTable:
    """Read a table and find its columns; ``label`` and ``media_root`` are taken as given.

    Raises DataError if it cannot be read or names no files, ConfigurationError if several columns may be the class.
    """
    if path.is_dir():
        tables = sorted(p.name for p in (*path.glob("*.csv"), *path.glob("*.parquet")))
        found = f"; it holds {', '.join(tables[:_NAMED])}" if tables else ""
        raise DataError(
            f"{path} is a folder: give a table, CSV or Parquet, with a line per clip, for example media,label{found}",
            field=str(path),
        )
    lines = [(row.line, dict(row.cells)) for row in read_table(path).rows]
    names = list(lines[0][1])
    media = _media_columns(lines, names)
    if not media:
        raise DataError(
            f"{path} has no column of media files (it has {', '.join(names)}): one must hold paths such as clip1.mp4",
            field=str(path),
        )
    root = media_root or _root(lines, media, path.parent)
    # A column of thumbnails that are not here must not cost every row.
    media = tuple(name for name in media if _there(lines, name, root) > _MOST) or media
    split, splits = _split(lines, [name for name in names if name not in media])
    rest = [name for name in names if name not in media and name != split]
    chosen = label if label is not None else _label(lines, rest, path)
    if chosen not in names:
        raise ConfigurationError(
            f"--label {chosen}: {path} has no such column; it has {', '.join(names)}", field="--label"
        )
    start_s, end_s = _range(lines, rest, chosen)
    subject = _named(names, SUBJECT_NAMES)
    columns = TableColumns(media, chosen, split, None if subject == chosen else subject, start_s, end_s)
    return InspectedTable(path, lines, columns, root, splits)


def values_of(lines: Sequence[Line], column: str) -> list[str]:
    """Values of a column that are not empty."""
    return [row[column] for _, row in lines if row.get(column)]


def seconds(text: str) -> float | None:
    """A finite number of seconds; None for anything else."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _media_columns(lines: Sequence[Line], names: Sequence[str]) -> tuple[str, ...]:
    found = []
    for name in names:
        values = values_of(lines, name)
        alike = sum(Path(value).suffix.lower() in MEDIA_ENDINGS for value in values)
        if values and alike > _MOST * len(values):
            found.append(name)
    return tuple(found)


def _root(lines: Sequence[Line], media: Sequence[str], folder: Path) -> Path:
    """The table's folder, or the folder in it where most files are."""
    try:
        within = sorted(p for p in folder.iterdir() if p.is_dir())
    except OSError:
        within = []
    values = list(dict.fromkeys(value for name in media for value in values_of(lines, name)))[:200]
    return max([folder, *within], key=lambda root: sum((root / value).is_file() for value in values))


def _there(lines: Sequence[Line], name: str, root: Path) -> float:
    """Share of a column's files that exist."""
    values = list(dict.fromkeys(values_of(lines, name)))[:200]
    return sum((root / value).is_file() for value in values) / len(values)


def _split(lines: Sequence[Line], names: Sequence[str]) -> tuple[str | None, dict[Split, str]]:
    """The column of splits and its words for them; a column is one if its values are such words."""
    meant = {word: split for split, words in SPLIT_WORDS.items() for word in words}
    named = [name for name in names if name.lower() in SPLIT_NAMES]
    for name in [*named, *(name for name in names if name not in named)]:
        values = Counter(values_of(lines, name))
        words = [word for word in values if word.lower() in meant]
        if not words or sum(values[word] for word in words) <= _MOST * values.total():
            continue
        if name not in named and len(words) < 2:
            continue
        splits: dict[Split, str] = {}
        for word in sorted(words, key=lambda word: -values[word]):
            splits.setdefault(meant[word.lower()], word)
        return name, splits
    return None, {}


def _label(lines: Sequence[Line], names: Sequence[str], path: Path) -> str:
    named = _named(names, LABEL_NAMES)
    if named is not None:
        return named
    likely = {}
    for name in names:
        values = values_of(lines, name)
        classes = len(set(values))
        numbers = [seconds(value) for value in values]
        whole = all(number is None or number.is_integer() for number in numbers)
        if 2 <= classes <= max(2, len(values) // 2) and whole and name.lower() not in SUBJECT_NAMES:
            likely[name] = classes
    if len(likely) == 1:
        return next(iter(likely))
    listed = ", ".join(f"{name} ({classes} values)" for name, classes in list(likely.items())[:_NAMED])
    raise ConfigurationError(
        f"{path}: which column is the class? Give it with --label; "
        + (f"likely ones are {listed}" if likely else f"the columns are {', '.join(names)}"),
        field="--label",
    )


def _range(lines: Sequence[Line], names: Sequence[str], label: str) -> tuple[str | None, str | None]:
    of_label = [(f"{label}_{start}", f"{label}_{end}") for start, end in RANGE_NAMES]
    lower = {name.lower(): name for name in names}
    for start, end in (*of_label, *RANGE_NAMES):
        if start.lower() in lower and end.lower() in lower:
            pair = lower[start.lower()], lower[end.lower()]
            numbers = [seconds(value) for name in pair for value in values_of(lines, name)]
            if numbers and sum(number is not None for number in numbers) > _MOST * len(numbers):
                return pair
    return None, None


def _named(names: Sequence[str], known: Sequence[str]) -> str | None:
    lower = {name.lower(): name for name in names}
    return next((lower[name] for name in known if name in lower), None)
