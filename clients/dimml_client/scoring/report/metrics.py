"""Quality metrics of the answers, for recordings with known labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dimml.errors import DataError
from dimml.metrics.classification import CalibrationBins, f1_scores, log_losses, macro_mean
from dimml_client.scoring.table import formats
from dimml_client.scoring.table.schema import AGGREGATE, WINDOW, probability_column, schema_of_table

ANSWER: Final = "answer"


@dataclass
class Judge:
    """Metrics of one voter (the answer, or a modality alone), updated row by row in constant memory."""

    labels: Sequence[str]
    rows: int = 0
    confusion_CC: npt.NDArray[np.int64] = field(init=False)
    bins: CalibrationBins = field(default_factory=CalibrationBins, init=False)

    def __post_init__(self) -> None:
        self.confusion_CC = np.zeros((len(self.labels), len(self.labels)), np.int64)
        self._places = {label: place for place, label in enumerate(self.labels)}

    def add(self, truth: str, said: str, confidence: float) -> None:
        """Add one vote. A truth that is not among the labels counts as a wrong row."""
        self.rows += 1
        place = self._places.get(truth)
        if place is not None:
            self.confusion_CC[place, self._places[said]] += 1
        self.bins.add(confidence, truth == said)

    @property
    def accuracy(self) -> float:
        """Share of correct votes."""
        return float(self.confusion_CC.trace() / max(1, self.rows))

    @property
    def ece(self) -> float:
        """Expected calibration error; 0 without rows."""
        return self.bins.ece

    def per_class(self) -> list[tuple[str, int, float, float, float]]:
        """List label, rows, recall, precision and F1 of each class; NaN where undefined."""
        hits_C = self.confusion_CC.diagonal()
        there_C, said_C = self.confusion_CC.sum(axis=1), self.confusion_CC.sum(axis=0)
        found = []
        for place, (label, f1) in enumerate(zip(self.labels, self._f1().tolist(), strict=True)):
            hits, there, said = int(hits_C[place]), int(there_C[place]), int(said_C[place])
            found.append(
                (label, there, hits / there if there else float("nan"), hits / said if said else float("nan"), f1)
            )
        return found

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the classes that occur; 0 without rows."""
        return macro_mean(self._f1(), empty=0.0)

    def _f1(self) -> npt.NDArray[np.float64]:
        counts_CC = self.confusion_CC
        return f1_scores(counts_CC.diagonal(), counts_CC.sum(axis=1), counts_CC.sum(axis=0))


@dataclass
class SetFigures:
    """How often sets held the true label, and what abstaining brought, for answers from the same modalities."""

    rows: int = 0
    covered: int = 0
    labels: int = 0
    abstained: int = 0
    #: Of the answers that did not abstain.
    right: int = 0

    def add(self, row: Mapping[str, Any]) -> None:
        """Add an answer with a known label."""
        self.rows += 1
        self.covered += row["truth"] in row["set"]
        self.labels += len(row["set"])
        self.abstained += row["abstained"] is True
        self.right += row["abstained"] is not True and row["truth"] == row["label"]

    @property
    def coverage(self) -> float:
        """Share of sets that hold the true label."""
        return self.covered / self.rows

    @property
    def mean_size(self) -> float:
        """Mean number of labels in a set."""
        return self.labels / self.rows

    @property
    def accuracy(self) -> float | None:
        """Share of right answers among those that did not abstain; None if all did."""
        return self.right / (self.rows - self.abstained) if self.rows > self.abstained else None

    def as_dict(self) -> dict[str, float | None]:
        """For ``--json``."""
        return {
            "rows": self.rows,
            "coverage": self.coverage,
            "mean_size": self.mean_size,
            "abstained": self.abstained,
            "accuracy_of_others": self.accuracy,
        }


@dataclass
class Judgement:
    """Metrics of all voters of one table."""

    bundle: Mapping[str, Any]
    voters: dict[str, Judge]
    kind: str
    rows: int = 0
    without_truth: int = 0
    errors: int = 0
    nll: float = 0.0
    unknown: Counter[str] = field(default_factory=Counter)
    #: By the modalities that were ok; empty for a bundle without prediction sets.
    sets: dict[str, SetFigures] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "rows": self.rows,
            "errors": self.errors,
            "nll": self.nll,
            "unknown_labels": dict(self.unknown),
            "voters": {
                name: {"rows": one.rows, "accuracy": one.accuracy, "macro_f1": one.macro_f1, "ece": one.ece}
                for name, one in self.voters.items()
            },
            **({"sets": {name: one.as_dict() for name, one in self.sets.items()}} if self.sets else {}),
        }


def judge_table(path: Path) -> Judgement:
    """Evaluate a finished table: its aggregates if it has any, else its recordings and windows.

    Rows without an answer are counted separately. Raises DataError if no label is known.
    """
    metadata = formats.read_metadata(path)
    if metadata is None:
        raise DataError(f"{path} is not a table that dimml score wrote", field=str(path))
    bundle = metadata["bundle"]
    voters = {name: Judge(bundle["labels"]) for name in (ANSWER, *bundle["modalities"])}
    aggregated = metadata["settings"].get("aggregate") is not None
    found = Judgement(bundle, voters, AGGREGATE if aggregated else WINDOW if metadata["settings"].get("window") else "")
    losses = 0.0
    for row in formats.read_rows(path, schema_of_table(metadata)):
        if aggregated != (row["kind"] == AGGREGATE):
            continue
        losses += _judge(found, row)
    if not found.rows:
        raise DataError("no input has a label: give a manifest with a column 'label', or --column label=COLUMN")
    found.nll = losses / max(1, voters[ANSWER].rows)
    return found


def _judge(found: Judgement, row: Mapping[str, Any]) -> float:
    """Count a row; return the answer's negative log-likelihood."""
    if row.get("truth") in (None, ""):
        found.without_truth += 1
        return 0.0
    truth = str(row["truth"])
    found.rows += 1
    if truth not in found.bundle["labels"]:
        found.unknown[truth] += 1
    if row["error"]:
        found.errors += 1
        return 0.0
    found.voters[ANSWER].add(truth, str(row["label"]), float(row["probability"]))
    for name in found.bundle["modalities"]:
        if row[f"{name}_label"] and row[f"{name}_probability"] is not None:
            found.voters[name].add(truth, str(row[f"{name}_label"]), float(row[f"{name}_probability"]))
    if row.get("set") is not None:
        present = " and ".join(name for name in found.bundle["modalities"] if row[f"{name}_status"] == "ok")
        found.sets.setdefault(present, SetFigures()).add(row)
    return float(log_losses(float(row.get(probability_column(truth)) or 0.0)))
