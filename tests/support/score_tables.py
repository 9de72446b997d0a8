"""Score tables made up row by row, written by the sinks that `dimml score` writes with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from dimml_client.scoring.table.formats import open_sink, sidecar, with_metadata
from dimml_client.scoring.table.schema import ScoredBundle, probability_column, table_schema

#: Labels that a reader of CSV would take for numbers.
LABELS = ("0", "1", "2")
BUNDLE = ScoredBundle("door", 3, LABELS, ("audio", "visual"), fused_head=False)
ABSTAINED = pa.field("abstained", pa.bool_())


def answer(
    number: int,
    probabilities: Sequence[float],
    *,
    votes: Mapping[str, tuple[str, float]] | None = None,
    **others: Any,
) -> dict[str, Any]:
    """A row with an answer; ``votes``: label and probability by modality, of those that are ok."""
    best = max(range(len(LABELS)), key=lambda place: probabilities[place])
    row: dict[str, Any] = {
        "id": f"clip{number}",
        "path": f"/data/clip {number}.mp4",
        "kind": "recording",
        "start_s": 0.0,
        "end_s": 1.5,
        "label": LABELS[best],
        "probability": probabilities[best],
        "degraded": False,
        "truncated": False,
        "bundle": BUNDLE.name,
        "version": BUNDLE.version,
    }
    row |= {probability_column(label): p for label, p in zip(LABELS, probabilities, strict=True)}
    for name, (label, probability) in (votes or {}).items():
        row |= {f"{name}_status": "ok", f"{name}_label": label, f"{name}_probability": probability}
    return row | others


def failed(number: int) -> dict[str, Any]:
    """A row without an answer."""
    return {"id": f"bad{number}", "path": f"/data/bad{number}.mp4", "kind": "recording", "error": "unusable_media"}


def write_table(
    out: Path, rows: Sequence[Mapping[str, Any]], *, aggregate: str | None = None, abstention: bool = False
) -> Path:
    """Write a finished table; ``abstention`` adds the column ``abstained``."""
    schema = table_schema(BUNDLE, BUNDLE.modalities, truth=True)
    if abstention and "abstained" not in schema.names:
        schema = schema.append(ABSTAINED)
    bundle = {"name": "door", "version": 3, "labels": list(LABELS), "modalities": ["audio", "visual"]}
    metadata = {"bundle": {**bundle, "fused_head": False}, "settings": {"aggregate": aggregate}}
    sink = open_sink(out, out, with_metadata(schema, metadata) if out.suffix == ".parquet" else schema, len(rows))
    batch = pa.RecordBatch.from_pylist([dict(row) for row in rows], schema=schema)
    sink.write(batch)
    sink.close()
    if out.suffix != ".parquet":
        sidecar(out).write_text(json.dumps(metadata))
    return out
