"""The one place where an answer or an error becomes a row of the table, whichever engine gave it."""

from __future__ import annotations

from dimml.errors import DimmlError
from dimml.prediction import Prediction
from dimml_client.scoring.recording import MEDIA_PART, Recording
from dimml_client.scoring.table.schema import RECORDING, WINDOW, ScoredBundle, probability_column

Row = dict[str, object]

#: What a row's ``error`` is where something broke that nobody foresaw.
INTERNAL = "internal"


def scored_row(
    recording: Recording,
    bundle: ScoredBundle,
    result: Prediction | DimmlError,
    ms: float | None,
    *,
    window: tuple[int, float, float] | None = None,
) -> Row:
    """A row by column name; columns that have nothing to say are left out.

    ``window`` is its number, start and end; ``ms`` what the recording, or its window, cost.
    """
    row = _named(recording, bundle)
    row["ms"] = ms
    if window is not None:
        row["kind"] = WINDOW
        row["window"], row["start_s"], row["end_s"] = window
    if isinstance(result, Prediction):
        _answer(row, result)
    else:
        _error(row, result)
    return row


def _named(recording: Recording, bundle: ScoredBundle) -> Row:
    row: Row = {
        "id": recording.id,
        "path": recording.path,
        "kind": RECORDING,
        "start_s": recording.start_s,
        "end_s": recording.end_s,
        "truth": recording.truth,
        "bundle": bundle.name,
        "version": bundle.version,
        "degraded": False,
    }
    for name, path in recording.parts.items():
        if name != MEDIA_PART:
            row[f"path_{name}"] = path
    return row


def _answer(row: Row, answer: Prediction) -> None:
    row["label"], row["probability"] = answer.label, answer.probability
    row["degraded"] = answer.degraded
    if row["start_s"] is None and row["end_s"] is None:
        # Nothing was asked: what was judged says more than nothing.
        row["start_s"], row["end_s"] = answer.start_s, answer.end_s
    for one in answer.predictions:
        row[probability_column(one.label)] = one.probability
    for name, own in answer.modalities.items():
        row[f"{name}_status"] = str(own.modality_status)
        row[f"{name}_certainty"], row[f"{name}_weight"] = own.certainty, own.weight
        row[f"{name}_label"], row[f"{name}_probability"] = own.label, own.probability
    if answer.fused_head is not None:
        row["fused_certainty"], row["fused_weight"] = answer.fused_head.certainty, answer.fused_head.weight


def _error(row: Row, error: DimmlError) -> None:
    row["error"], row["message"] = error.code, error.message
    for name, status in error.statuses.items():
        row[f"{name}_status"] = str(status)
