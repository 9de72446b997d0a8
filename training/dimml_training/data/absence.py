"""Clips that lack a modality: how many do and why, and where too few are left to train or to choose by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np

from dimml.status import Reason
from dimml_training.config import Split
from dimml_training.data.cache import CachedClip
from dimml_training.data.loader import ClipRows
from dimml_training.data.manifest import NAMED, Clip

#: Fewest clips with a modality that a split must have: batch normalisation compares two, and an epoch is chosen by one.
FEWEST: Final[dict[Split, int]] = {"train": 2, "validation": 1, "test": 0}
#: Why a clip lacks a modality, for people.
WHY: Final = {
    Reason.NOT_SENT: "no file in the table",
    Reason.NO_TRACK: "no such track",
    Reason.TRACK_NOT_STARTED: "a track that starts later",
    Reason.TRACK_ENDED: "a track that ends before",
}


def too_few(
    modalities: Sequence[str], entries: Sequence[CachedClip], clips: Sequence[Clip], splits: Sequence[Split]
) -> list[str]:
    """List a problem for each modality of which a split has too few clips."""
    problems = []
    for split in splits:
        of_split = [entry for entry, clip in zip(entries, clips, strict=True) if clip.split == split]
        for name in modalities if of_split else ():
            count = sum(name not in entry.absent for entry in of_split)
            if count < FEWEST[split]:
                problems.append(
                    f"{count or 'no'} clip{'s' if count > 1 else ''} of the {split} split "
                    f"{'have' if count > 1 else 'has'} {name}, and it needs {FEWEST[split]} or more; give it some, or "
                    f"leave {name} out of the config"
                )
    return problems


def absences(split: Split, modalities: Sequence[str], entries: Sequence[CachedClip]) -> list[str]:
    """Say of each modality how many clips of a split lack it, and why."""
    found = []
    for name in modalities:
        reasons = Counter(entry.absent[name] for entry in entries if name in entry.absent)
        if reasons:
            why = ", ".join(f"{count} {_why(status)}" for status, count in sorted(reasons.items()))
            found.append(
                f"{sum(reasons.values())} of {len(entries)} {split} clips are without {name} ({why}): they count for "
                "their other modalities alone"
            )
    return found


def classes_without(labels: Sequence[str], train: ClipRows) -> list[str]:
    """Warn of classes that no training clip with some modality has."""
    found = []
    for name in train.present:
        counts = np.bincount(train.labels[train.has(name)], minlength=len(labels))
        empty = [label for label, count in zip(labels, counts, strict=True) if not count]
        if empty:
            more = f" and {len(empty) - NAMED} more" if len(empty) > NAMED else ""
            found.append(
                f"no training clip with {name} is of class{'es' if len(empty) > 1 else ''} "
                f"{', '.join(empty[:NAMED])}{more}: its head cannot learn {'them' if len(empty) > 1 else 'it'}"
            )
    return found


def _why(status: str) -> str:
    reason = status.partition(":")[2]
    return next((words for known, words in WHY.items() if known.value == reason), status)
