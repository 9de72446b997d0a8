"""Labelled recordings as a clip table for training, and how often the bundle was right about those drawn by lot."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Final

from dimml.errors import ConfigurationError
from dimml.system.files import write_atomically
from dimml_client.labelling.selection import Chosen
from dimml_client.labelling.tasks import column, part_names

_CONFIDENCE: Final = 0.95


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Share of ``count`` answers that is right, what the answers' probabilities had estimated, and an interval."""

    right: int
    count: int
    estimated: float
    low: float
    high: float

    @property
    def share(self) -> float:
        """The share."""
        return self.right / self.count


def accuracy_by_lot(labels: Sequence[tuple[Chosen, str]]) -> Accuracy | None:
    """Compute the accuracy of the answers to recordings drawn by lot; None without any.

    The interval is Wilson's of 95 % (1927, JASA 22(158)), for one drawing from many recordings.
    """
    drawn = [(chosen, label) for chosen, label in labels if chosen.random]
    if not drawn:
        return None
    right, count = sum(chosen.label == label for chosen, label in drawn), len(drawn)
    low, high = wilson_interval(right, count)
    return Accuracy(right, count, math.fsum(chosen.probability for chosen, _ in drawn) / count, low, high)


def wilson_interval(right: int, count: int, confidence: float = _CONFIDENCE) -> tuple[float, float]:
    """Compute Wilson's interval of a share."""
    z = NormalDist().inv_cdf((1.0 + confidence) / 2.0)
    share = right / count
    middle = share + z * z / (2.0 * count)
    spread = z * math.sqrt(share * (1.0 - share) / count + z * z / (4.0 * count * count))
    scale = 1.0 + z * z / count
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def write_clip_table(
    path: Path, labels: Sequence[tuple[Chosen, str]], *, split: str, random_split: str, ranges: bool
) -> None:
    """Write a CSV that ``dimml train`` reads: media, label and split, and what is known of each recording.

    ``split`` is that of what was picked, ``random_split`` that of what was drawn by lot. The column is ``media``, or
    ``path_<modality>`` where modalities have files of their own. ``ranges``: whether to write ``start_s`` and
    ``end_s``. Raises ConfigurationError if it cannot be written.
    """
    parts = part_names([chosen for chosen, _ in labels])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    times = ["start_s", "end_s"] if ranges else []
    writer.writerow(["id", *map(column, parts), "label", "split", *times, "predicted", "probability", "reason"])
    for chosen, label in labels:
        writer.writerow(
            [
                chosen.id,
                *(chosen.parts.get(part, "") for part in parts),
                label,
                random_split if chosen.random else split,
                *([_seconds(chosen.start_s), _seconds(chosen.end_s)] if ranges else []),
                chosen.label,
                f"{chosen.probability:.6f}",
                chosen.reason,
            ]
        )
    try:
        write_atomically(path, text.getvalue().encode())
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror}", field="--out") from error


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}".rstrip("0").rstrip(".")
