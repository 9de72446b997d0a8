"""Taking a validation split out of the training clips of data sets that are published without one.

The result depends on names and seed alone, not on the order of a directory listing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from dimml_training.recipes.table import Row


def hold_out(rows: Sequence[Row], share: float, *, seed: int, by: str | None = None, column: str = "split") -> None:
    """Move about ``share`` of the rows whose ``column`` is ``train`` to ``validation``, in place.

    With ``by``, whole groups of rows with the same value in that column are moved, each within the label of its first
    row, so that every class with two groups is in both splits; without it, single rows. At least one of each class
    stays.
    """
    groups: dict[str, list[Row]] = defaultdict(list)
    for index, row in enumerate(rows):
        if row[column] == "train":
            groups[str(index) if by is None else row[by]].append(row)
    by_label: dict[str, list[list[Row]]] = defaultdict(list)
    for group in groups.values():
        by_label[group[0]["label"]].append(group)
    for position, label in enumerate(sorted(by_label)):
        of_label = sorted(by_label[label], key=lambda group: sorted(tuple(row.values()) for row in group))
        order = np.random.default_rng((seed, position)).permutation(len(of_label))
        wanted = share * sum(map(len, of_label))
        taken = 0
        for number in order[: len(of_label) - 1]:
            group = of_label[number]
            # The group that crosses the wanted number is taken if that comes closer to it.
            if taken + len(group) / 2 > wanted:
                break
            taken += len(group)
            for row in group:
                row[column] = "validation"


def by_subject(subjects: Sequence[str], shares: Mapping[str, float], *, seed: int) -> dict[str, str]:
    """Assign each subject to a split: shuffle by the seed, then cut by the shares (which add up to 1)."""
    names = sorted(set(subjects))
    order = np.random.default_rng(seed).permutation(len(names))
    splits: dict[str, str] = {}
    begin, total = 0, 0.0
    for split, share in shares.items():
        total += share
        end = round(total * len(names))
        splits |= {names[i]: split for i in order[begin:end]}
        begin = end
    return splits
