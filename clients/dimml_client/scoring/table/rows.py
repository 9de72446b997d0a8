"""The one place that turns an answer or an error into a row of the table, for every engine."""

from __future__ import annotations

from dimml.errors import DimmlError
from dimml.prediction import Prediction
from dimml_client.scoring.recording import MEDIA_PART, Recording
from dimml_client.scoring.table.schema import RECORDING, WINDOW, ScoredBundle, probability_column

Row = dict[str, object]

#: A row's ``error`` after an unexpected exception.
INTERNAL = "internal"


def scored_row(
    recording: Recording,
    bundle: ScoredBundle,
    result: Prediction | DimmlError,
    ms: float | None,
    *,
    window: tuple[int, float, float] | None = None,
) -> Row:
    """Make a row by column name; empty columns are left out.

    ``window`` is its number, start and end; ``ms`` the time spent on the recording, or its window.
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
        "truncated": False,
    }
    for name, path in recording.parts.items():
        if name != MEDIA_PART:
            row[f"path_{name}"] = path
    return row


def _answer(row: Row, answer: Prediction) -> None:
    row["label"], row["probability"] = answer.label, answer.probability
    row["degraded"], row["truncated"] = answer.degraded, answer.truncated
    if row["start_s"] is None and row["end_s"] is None:
        # No range was requested: the predicted range is more informative than an empty column.
        row["start_s"], row["end_s"] = answer.start_s, answer.end_s
    for one in answer.predictions:
        row[probability_column(one.label)] = one.probability
    for name, own in answer.modalities.items():
        row[f"{name}_status"] = str(own.modality_status)
        row[f"{name}_certainty"], row[f"{name}_weight"] = own.certainty, own.weight
        row[f"{name}_label"], row[f"{name}_probability"] = own.label, own.probability
        row[f"{name}_channel"] = own.channel
    for name, truncation in answer.truncations.items():
        row[f"{name}_held_s"], row[f"{name}_promised_s"] = truncation.held_s, truncation.promised_s
    if answer.set is not None:
        row["set"], row["abstained"] = answer.set, answer.abstained
        row["abstained_reason"] = None if answer.abstained_reason is None else answer.abstained_reason.value
    if answer.fused_head is not None:
        row["fused_certainty"], row["fused_weight"] = answer.fused_head.certainty, answer.fused_head.weight


def _error(row: Row, error: DimmlError) -> None:
    row["error"], row["message"] = error.code, error.message
    for name, status in error.statuses.items():
        row[f"{name}_status"] = str(status)
