"""One row per recording from the rows of its windows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final, Literal, get_args

import numpy as np

from dimml_client.scoring.table.rows import Row
from dimml_client.scoring.table.schema import AGGREGATE, ScoredBundle, probability_column

Aggregation = Literal["mean", "max", "vote"]
AGGREGATIONS: Final = get_args(Aggregation)


class Aggregator:
    """Aggregates one recording's rows one by one, keeping only sums.

    A class's score is the mean of its probabilities over the windows that have an answer, their maximum, or the share
    of windows whose label it is; maxima are scaled to sum to 1. Certainty is a mean over the windows in which the
    modality was ok; weight is one over all windows with an answer, so that weights sum to 1 as they do in those. Its
    status is ``ok`` where it was in any window, else the one it had most often; its own vote is the label that it gave
    most often, with that label's share for a probability.
    """

    def __init__(self, aggregation: Aggregation, bundle: ScoredBundle) -> None:
        self._aggregation = aggregation
        self._bundle = bundle
        self._heads = (*bundle.modalities, *(("fused",) if bundle.fused_head else ()))
        self._clear()

    def _clear(self) -> None:
        self._answers = 0
        self._ms = 0.0
        self._figures_C = np.zeros(len(self._bundle.labels))
        self._degraded = self._truncated = False
        self._lengths: Row = {}
        self._first: Row | None = None
        self._error: Row | None = None
        self._end_s: object = None
        self._sums = {name: [0, 0.0, 0.0] for name in self._heads}
        self._statuses: dict[str, Counter[str]] = {name: Counter() for name in self._bundle.modalities}
        self._votes: dict[str, Counter[str]] = {name: Counter() for name in self._bundle.modalities}

    def add(self, row: Mapping[str, object]) -> None:
        """Add a row of the current recording."""
        if self._first is None:
            self._first = dict(row)
        self._end_s = row.get("end_s")
        self._ms += _number(row.get("ms"))
        for name, statuses in self._statuses.items():
            status = row.get(f"{name}_status")
            if isinstance(status, str):
                statuses[status] += 1
        if row.get("error") is not None:
            self._error = self._error or dict(row)
            return
        self._answers += 1
        self._degraded |= row.get("degraded") is True
        self._truncated |= row.get("truncated") is True
        for name in self._bundle.modalities:
            for column in (f"{name}_held_s", f"{name}_promised_s"):
                if row.get(column) is not None:
                    self._lengths[column] = row[column]
        probabilities_C = np.array([_number(row.get(probability_column(label))) for label in self._bundle.labels])
        if self._aggregation == "mean":
            self._figures_C += probabilities_C
        elif self._aggregation == "max":
            self._figures_C = np.maximum(self._figures_C, probabilities_C)
        else:
            self._figures_C[self._bundle.labels.index(str(row["label"]))] += 1.0
        for name, sums in self._sums.items():
            certainty = row.get(f"{name}_certainty")
            if certainty is not None:
                sums[0], sums[1] = sums[0] + 1, sums[1] + _number(certainty)
                sums[2] += _number(row.get(f"{name}_weight"))
        for name, votes in self._votes.items():
            vote = row.get(f"{name}_label")
            if isinstance(vote, str):
                votes[vote] += 1

    def take(self) -> Row:
        """Return the recording's aggregated row; the next row added begins another recording."""
        kept = ("id", "path", "start_s", "truth", "bundle", "version", *(f"path_{n}" for n in self._bundle.modalities))
        first = self._first or {}
        row: Row = {name: first[name] for name in kept if name in first}
        row |= {"kind": AGGREGATE, "end_s": self._end_s, "degraded": self._degraded, "ms": self._ms}
        row |= {"truncated": self._truncated, **self._lengths}
        for name, statuses in self._statuses.items():
            if statuses:
                row[f"{name}_status"] = "ok" if statuses["ok"] else statuses.most_common(1)[0][0]
        if self._answers:
            shares_C = self._figures_C / self._figures_C.sum()
            best = int(shares_C.argmax())
            row["label"], row["probability"] = self._bundle.labels[best], float(shares_C[best])
            row |= {
                probability_column(label): float(share)
                for label, share in zip(self._bundle.labels, shares_C, strict=True)
            }
            for name, (count, certainty, weight) in self._sums.items():
                row[f"{name}_weight"] = weight / self._answers
                if count:
                    row[f"{name}_certainty"] = certainty / count
            for name, votes in self._votes.items():
                if votes:
                    row[f"{name}_label"], count = votes.most_common(1)[0]
                    row[f"{name}_probability"] = count / votes.total()
        elif self._error is not None:
            row["error"], row["message"] = self._error["error"], self._error["message"]
        self._clear()
        return row


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0
