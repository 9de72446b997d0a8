"""The clip table: the labelled clips as a CSV or Parquet file, checked as a whole."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dimml.errors import DataError
from dimml.media.decoders.time_range import widened
from dimml.tables.cells import ordered_labels
from dimml_training.config import SPLITS, DataConfig, Split, expand_path
from dimml_training.data.table_rows import read_rows

#: Most names listed in a warning.
NAMED = 5


@dataclass(frozen=True)
class Clip:
    """One labelled clip. ``start_s`` and ``end_s`` include the margin, ``labelled_s`` is the range as the table has it.

    ``media`` maps each modality to a file; one whose cell is empty is left out.
    """

    line: int | str
    media: Mapping[str, Path]
    label: str
    split: Split
    subject: str | None = None
    start_s: float | None = None
    end_s: float | None = None
    labelled_s: tuple[float, float] | None = None

    @property
    def where(self) -> str:
        """Line and files, to name the clip in a report."""
        names = ", ".join(dict.fromkeys(str(path) for path in self.media.values()))
        return f"line {self.line}: {names}"


@dataclass
class ClipTable:
    """All usable clips and the classes in output order, with the problems and warnings found in the table."""

    labels: tuple[str, ...]
    clips: list[Clip]
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def split(self, split: Split) -> list[Clip]:
        """Clips of one split, in the order of the table."""
        return [clip for clip in self.clips if clip.split == split]

    def label_indices(self, clips: Iterable[Clip]) -> npt.NDArray[np.int64]:
        """Class indices of the clips, ``[N]``."""
        return np.array([self.labels.index(clip.label) for clip in clips], dtype=np.int64)

    def raise_problems(self, path: Path) -> None:
        """Raise a DataError that lists every problem, if there is one."""
        if self.problems:
            count = len(self.problems)
            raise DataError(
                f"{path} cannot be used for training: {count} problem{'s' if count > 1 else ''}",
                problems=self.problems,
                field=str(path),
            )


def read_clip_table(config: DataConfig, modalities: Iterable[str], media_dir: Path | None = None) -> ClipTable:
    """Read the clip table and check everything except whether the media decode. Faulty clips are left out.

    Recordings that stand in the table itself are written to ``media_dir``.

    Problems are collected in the result. Raises DataError if the file cannot be read or lacks columns, since no row can
    be checked then.
    """
    path = expand_path(config.manifest)
    root = path.parent if config.media_root is None else expand_path(config.media_root)
    names = list(modalities)
    columns = config.columns
    media = {name: columns.media if isinstance(columns.media, str) else columns.media[name] for name in names}
    found = read_rows(config, list(media.values()), media_dir)
    table = ClipTable(labels=config.labels or (), clips=[])
    split_names = {name: split for split, name in config.splits.items()}
    exists: dict[Path, bool] = {}
    judged: list[_Row] = []
    repeated: dict[str, list[str]] = defaultdict(list)
    for given in found.rows:
        line, row = given.line, given.cells
        problems = list(given.problems)
        split = split_names.get(row[columns.split])
        if split is None:
            problems.append(
                f"unknown split {row[columns.split]!r}, expected one of {', '.join(split_names)} "
                "(data.splits gives them other names)"
            )
        label = row[columns.label]
        if not label and not given.problems:
            problems.append("no label")
        elif config.labels is not None and label not in config.labels:
            problems.append(f"unknown label {label!r}, data.labels has {', '.join(config.labels)}")
        files = {}
        if not any(row[column] for column in media.values()):
            problems.append(f"no file in {_some(list(map(repr, dict.fromkeys(media.values()))), 'column', 'columns')}")
        for name, column in media.items():
            if not row[column]:
                continue  # a clip without this modality, which trains the others
            files[name] = root / row[column]
            if not exists.setdefault(files[name], files[name].is_file()):
                problems.append(f"missing file {files[name]}")
        start_s = end_s = labelled_s = None
        located = True
        if columns.start_s is not None and columns.end_s is not None:
            start_s, end_s = _seconds(row[columns.start_s]), _seconds(row[columns.end_s])
            if start_s is None or end_s is None or not 0.0 <= start_s < end_s:
                located = False
                problems.append(
                    f"bad range {columns.start_s}={row[columns.start_s]!r}, {columns.end_s}={row[columns.end_s]!r}: "
                    "need seconds with 0 <= start < end"
                )
            else:
                labelled_s = (start_s, end_s)
                start_s, end_s = widened(start_s, end_s, config.margin_s)
        for problem in dict.fromkeys(problems):
            repeated[problem].append(str(line))
        subject = None if columns.subject is None else row[columns.subject]
        if split is not None:
            place = (tuple(files.items()), start_s, end_s) if located and files else None
            judged.append(_Row(line, split, subject, place))
        if not problems and split is not None:
            table.clips.append(Clip(line, files, label, split, subject, start_s, end_s, labelled_s))
    # One line for a problem that many rows have: a name of the split that is not known is in all of its rows.
    table.problems += [f"{_some(lines, 'line', 'lines')}: {problem}" for problem, lines in repeated.items()]
    _check_whole(table, judged, config, found.class_names)
    return table


@dataclass(frozen=True)
class _Row:
    """A row with a known split, faulty or not; ``place`` is its files and range, or None if either is missing."""

    line: int | str
    split: Split
    subject: str | None
    place: tuple[Any, ...] | None


def _check_whole(
    table: ClipTable, judged: Iterable[_Row], config: DataConfig, class_names: Sequence[str] | None
) -> None:
    """Find empty splits, unknown labels, classes without clips, repeated clips and overlapping subjects."""
    by_split = {split: table.split(split) for split in SPLITS}
    table.problems += [
        f"the {split} split is empty: no usable clip has {config.columns.split}={config.splits[split]!r}"
        for split in SPLITS
        if not by_split[split]
    ]
    if not table.labels:
        table.labels = ordered_labels((clip.label for clip in by_split["train"]), class_names)
        unseen: dict[str, list[str]] = defaultdict(list)
        for clip in table.clips:
            if clip.label not in table.labels:
                unseen[clip.label].append(str(clip.line))
        table.problems += [
            f"{_some(lines, 'line', 'lines')}: label {label!r} is not in the train split"
            for label, lines in unseen.items()
        ]
        table.clips = [clip for clip in table.clips if clip.label in table.labels]
        if len(table.labels) < 2:
            table.problems.append(f"the train split has {len(table.labels)} classes; at least 2 are needed")
    for split in SPLITS:
        counts = Counter(clip.label for clip in by_split[split])
        empty = [label for label in table.labels if not counts[label]]
        if not empty or not counts:
            continue
        message = f"the {split} split has no clip of {_some(empty, 'class', 'classes')}"
        (table.problems if split == "train" else table.warnings).append(message)
    places: dict[Any, set[Split]] = defaultdict(set)
    lines: dict[Any, list[int | str]] = defaultdict(list)
    subjects: dict[str, set[Split]] = defaultdict(set)
    for row in judged:
        if row.place is not None:
            places[row.place].add(row.split)
            lines[row.place].append(row.line)
        if row.subject:
            subjects[row.subject].add(row.split)
    table.problems += [
        f"lines {', '.join(map(str, lines[i]))}: the same clip stands in {' and '.join(sorted(found))}"
        for i, found in places.items()
        if len(found) > 1
    ]
    shared = sorted(subject for subject, found in subjects.items() if len(found) > 1)
    if shared:
        message = (
            f"{len(shared)} of {len(subjects)} subjects stand in more than one split "
            f"({_some(shared, 'subject', 'subjects')}): figures say little about new subjects"
        )
        (table.problems if config.split_by == "subject" else table.warnings).append(message)


def _some(names: list[str], one: str, many: str) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{one if len(names) == 1 else many} {', '.join(names[:NAMED])}{more}"


def _seconds(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
