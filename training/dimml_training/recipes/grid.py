"""GRID corpus (Cooke et al. 2006): one talker's clips with word times, from ``labels.csv`` or as it is published.

Layout: what ``grid_published`` describes; or ``clips/*.mp4`` and ``labels.csv`` with a column per word (``digit``,
``letter``, ``colour`` …), its times (``digit_start_s``, ``digit_end_s`` …) and a fixed ``split``.

Folds for cross-validation are a file of their own, ``training/folds/grid_s1.csv``: in fold k the clips of fold k are
the test split, the first ``VALIDATION_CLIPS`` of fold k+1 in the file's order validate, all others train.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from dimml.errors import DataError
from dimml_training.recipes.grid_published import ALL_WORDS, SENTENCE, list_published_grid
from dimml_training.recipes.table import Listing, Row, read_csv

Word = Literal["digit", "letter", "colour", "command", "preposition", "adverb", "all"]

FOLDS = 5
#: Number of validation clips, out of the 180 clips of the next fold.
VALIDATION_CLIPS = 120
#: The words that folds are balanced by, the most numerous classes first.
BALANCED: tuple[Word, ...] = ("letter", "digit", "colour")


def list_grid(root: Path, word: Word, folds: Path | None = None, *, seed: int = 0) -> Listing:
    """List one row per clip: ``media`` beneath root, the word, its times, ``split``, and with ``folds`` ``fold_0`` ….

    With ``all``, one row for each of a sentence's six words, in its splits: for a training to start from.
    ``seed`` splits the published corpus, which has no labels.csv and no folds here. Raises DataError if labels.csv or
    the folds cannot be read, or do not name the same clips, and what ``list_published_grid`` raises.
    """
    if not (root / "labels.csv").exists() and folds is None:
        return list_published_grid(root, word, seed=seed)
    words = SENTENCE if word == ALL_WORDS else (word,)
    columns = ("clip", *(f"{w}{end}" for w in words for end in ("", "_start_s", "_end_s")), "split")
    labels = read_csv(root / "labels.csv", "the labels of GRID", columns)
    rows: list[Row] = [
        {
            "media": f"clips/{row['clip']}",
            "label": row[w],
            "split": row["split"],
            "start_s": row[f"{w}_start_s"],
            "end_s": row[f"{w}_end_s"],
        }
        for row in labels
        for w in words
    ]
    if folds is not None:
        splits = _fold_splits(folds)
        names = {row["clip"] for row in labels}
        if names != set(splits):
            only = sorted(names ^ set(splits))
            raise DataError(
                f"{folds} and {root / 'labels.csv'} do not name the same clips: {len(only)} stand in one of them only, "
                f"such as {only[0]}",
                field="--folds",
            )
        for index, row in enumerate(rows):
            row |= {f"fold_{k}": split for k, split in enumerate(splits[labels[index // len(words)]["clip"]])}
    return Listing(rows, ["media"])


def assign_folds(labels: Sequence[Mapping[str, str]], seed: int) -> list[tuple[str, int]]:
    """Assign clips to folds of equal size, balanced by letter, digit and colour; ``(clip, fold)`` in that order.

    Clips are taken in an order shuffled by ``seed``; each goes to the fold, of those not yet full, that has the fewest
    clips of its letter, then of its digit, of its colour, and in all. Any beginning of a fold is thus balanced too.
    """
    clips = sorted(labels, key=lambda row: row["clip"])
    full = -(-len(clips) // FOLDS)
    counts: list[Counter[tuple[str, str]]] = [Counter() for _ in range(FOLDS)]
    sizes = [0] * FOLDS
    assigned = []
    for index in np.random.default_rng(seed).permutation(len(clips)):
        row = clips[index]
        classes = [(word, row[word]) for word in BALANCED]
        fold = min(
            (k for k in range(FOLDS) if sizes[k] < full),
            key=lambda k: (sum(counts[k][c] / (i + 1) for i, c in enumerate(classes)), sizes[k], k),
        )
        counts[fold].update(classes)
        sizes[fold] += 1
        assigned.append((row["clip"], fold))
    return assigned


def write_folds(assigned: Sequence[tuple[str, int]], path: Path) -> None:
    """Write ``clip,fold`` in the order of assignment."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["clip", "fold"])
        table.writerows(assigned)


def _fold_splits(path: Path) -> dict[str, list[str]]:
    """Split of each clip in each of the folds."""
    rows = read_csv(path, "the folds", ("clip", "fold"))
    members: list[list[str]] = [[] for _ in range(FOLDS)]
    for row in rows:
        if row["fold"] not in set(map(str, range(FOLDS))):
            raise DataError(f"{path}: fold {row['fold']!r} of {row['clip']} is not 0 to {FOLDS - 1}", field="--folds")
        members[int(row["fold"])].append(row["clip"])
    splits = {row["clip"]: ["train"] * FOLDS for row in rows}
    for k in range(FOLDS):
        for clip in members[k]:
            splits[clip][k] = "test"
        for clip in members[(k + 1) % FOLDS][:VALIDATION_CLIPS]:
            splits[clip][k] = "validation"
    return splits
