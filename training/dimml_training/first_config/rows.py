"""The usable rows of a clip table, why the others are not, and a split for those that have none."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from dimml.errors import DataError
from dimml_training.config import SPLITS, Split
from dimml_training.first_config.columns import InspectedTable, seconds

#: Share of a class's recordings that is kept for each of validation and test, where the table does not say.
HELD_OUT: Final = 0.15
#: Fewest recordings, or subjects, of which a class gives one to each split.
_FEWEST: Final = 3


@dataclass(frozen=True)
class UsableRow:
    """One row that training can use. ``files`` are in the order of the media columns, some may be empty.

    ``split`` None: not given.
    """

    line: int | str
    files: tuple[str, ...]
    label: str
    split: Split | None
    subject: str | None
    start_s: float | None = None
    end_s: float | None = None

    @property
    def group(self) -> str:
        """What must not stand in two splits: the subject, or the recording."""
        return self.subject or next(file for file in self.files if file)


@dataclass(frozen=True)
class LeftOut:
    """A row that training cannot use, and why."""

    line: int | str
    files: tuple[str, ...]
    reason: str


def usable_rows(table: InspectedTable) -> tuple[list[UsableRow], list[LeftOut]]:
    """Sort the rows of a table into those with all that training needs, and the others with the reason."""
    columns = table.columns
    words = {word: split for split, word in table.splits.items()}
    usable: list[UsableRow] = []
    left_out: list[LeftOut] = []
    for line, row in table.lines:
        files = tuple(row.get(name, "") for name in columns.media)
        start_s = end_s = None
        reason = None
        if not any(files):
            reason = "no file"
        elif missing := [name for name in files if name and not (table.root / name).is_file()]:
            reason = f"missing file {missing[0]}"
        elif not row.get(columns.label):
            reason = "no label"
        elif columns.start_s is not None and columns.end_s is not None:
            start_s, end_s = seconds(row[columns.start_s]), seconds(row[columns.end_s])
            if start_s is None or end_s is None or not 0.0 <= start_s < end_s:
                reason = f"no time range ({columns.start_s}, {columns.end_s})"
        if reason is not None:
            left_out.append(LeftOut(line, files, reason))
            continue
        split = words.get(row[columns.split]) if columns.split is not None else None
        subject = row[columns.subject] or None if columns.subject is not None else None
        usable.append(UsableRow(line, files, row[columns.label], split, subject, start_s, end_s))
    return _without_repeats(usable, left_out)


def _without_repeats(rows: Sequence[UsableRow], left_out: list[LeftOut]) -> tuple[list[UsableRow], list[LeftOut]]:
    seen: dict[tuple[object, ...], int | str] = {}
    kept = []
    for row in rows:
        place = (row.files, row.start_s, row.end_s)
        if place in seen:
            left_out.append(LeftOut(row.line, row.files, f"the same clip as line {seen[place]}"))
        else:
            seen[place] = row.line
            kept.append(row)
    return kept, sorted(left_out, key=lambda out: out.line)


def with_splits(rows: Sequence[UsableRow], *, seed: int = 0) -> list[UsableRow]:
    """Give every row a split. Rows of one recording, or of one subject, stay together.

    Splits that the table gives stay. A row without one follows its recording, or goes to training. A split that no row
    has is taken out of training, class by class: ``HELD_OUT`` of its recordings, at least one.
    """
    given: dict[str, Split] = {row.group: row.split for row in rows if row.split is not None}
    placed = [replace(row, split=row.split or given.get(row.group, "train")) for row in rows]
    held_out: tuple[Split, ...] = ("validation", "test")
    wanted = [split for split in held_out if not any(row.split == split for row in placed)]
    if not wanted:
        return placed
    groups: dict[str, list[str]] = defaultdict(list)
    seen: set[str] = set()
    for row in placed:
        if row.split == "train" and row.group not in seen:
            seen.add(row.group)
            groups[row.label].append(row.group)
    moved: dict[str, Split] = {}
    for position, label in enumerate(sorted(groups)):
        of_label = sorted(groups[label])
        order = np.random.default_rng((seed, position)).permutation(len(of_label)).tolist()
        if len(order) < _FEWEST:
            continue
        each = max(1, round(HELD_OUT * len(order)))
        for split in wanted:
            for number in order[:each]:
                moved[of_label[number]] = split
            order = order[each:]
    return [replace(row, split=moved.get(row.group, row.split)) for row in placed]


def check_splits(rows: Sequence[UsableRow], path: Path) -> list[str]:
    """Warn of classes that a split lacks. Raises DataError where no training is possible."""
    counts: Mapping[Split, Counter[str]] = {
        split: Counter(row.label for row in rows if row.split == split) for split in SPLITS
    }
    labels = sorted({row.label for row in rows})
    problems = []
    if len(labels) < 2:
        problems.append(
            f"usable rows have {len(labels)} class{'' if len(labels) == 1 else 'es'}; 2 are needed at least"
        )
    problems += [f"no clip for the {split} split" for split in SPLITS if not counts[split]]
    if counts["validation"].total() == 1:
        problems.append("one clip for the validation split; the fusion is chosen on 2 at least")
    problems += [f"no training clip of class {label}" for label in labels if not counts["train"][label]]
    if problems:
        raise DataError(
            f"{path} does not hold enough for a training: a class needs {_FEWEST} recordings or more",
            problems=problems,
            field=str(path),
        )
    lacking = {split: [label for label in labels if not counts[split][label]] for split in SPLITS}
    return [
        f"the {split} split has no clip of {', '.join(names[:5])}{f' and {len(names) - 5} more' if names[5:] else ''}"
        for split, names in lacking.items()
        if names
    ]
