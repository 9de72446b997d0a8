"""The table's columns, as an Arrow schema. ``docs/scoring.md`` describes each; a test holds it to this."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from dimml.bundle import FUSED_HEAD, Bundle
from dimml.errors import ConfigurationError

#: Version of the table's schema: raised when a column changes its name, type or meaning.
SCHEMA_VERSION: Final = 1

#: Kinds of row: a whole recording (or its range), a window of it, or the aggregate of all its windows.
RECORDING, WINDOW, AGGREGATE = "recording", "window", "aggregate"


@dataclass(frozen=True, slots=True)
class ScoredBundle:
    """What scoring needs to know about a bundle, in this process or on a server."""

    name: str
    version: int
    labels: tuple[str, ...]
    modalities: tuple[str, ...]
    fused_head: bool
    #: SHA-256 of the manifest and thereby of every file; None if a server does not report it.
    sha256: str | None = None
    #: Whether its answers have prediction sets.
    sets: bool = False

    @classmethod
    def of(cls, bundle: Bundle) -> ScoredBundle:
        """Describe a local bundle."""
        return cls(
            name=bundle.name,
            version=bundle.version,
            labels=bundle.labels,
            modalities=tuple(modality.name for modality in bundle.modalities),
            fused_head=FUSED_HEAD in bundle.heads,
            sha256=bundle.sha256,
            sets=bundle.prediction_sets is not None,
        )


def schema_of_table(metadata: Mapping[str, Any]) -> pa.Schema:
    """Return all columns that a finished table can have, from its metadata; it may lack paths and ``truth``."""
    bundle = metadata["bundle"]
    scored = ScoredBundle(
        **{**bundle, "labels": tuple(bundle["labels"]), "modalities": tuple(bundle["modalities"])},
    )
    return table_schema(scored, scored.modalities, truth=True)


def probability_column(label: str) -> str:
    """Name the column of a class's fused probability."""
    return f"probability_{label}"


def table_schema(bundle: ScoredBundle, own_files: Sequence[str] = (), truth: bool = False) -> pa.Schema:
    """Return the columns in order. ``own_files``: modalities with their own files; ``truth``: whether labels are known.

    Raises ConfigurationError if a label and a modality would give two columns the same name.
    """
    fields: list[tuple[str, pa.DataType]] = [
        ("id", pa.string()),
        ("path", pa.string()),
        *((f"path_{name}", pa.string()) for name in own_files),
        ("kind", pa.string()),
        ("window", pa.int32()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        *([("truth", pa.string())] if truth else []),
        ("label", pa.string()),
        ("probability", pa.float32()),
        *((probability_column(label), pa.float32()) for label in bundle.labels),
    ]
    if bundle.sets:
        fields += [("set", pa.list_(pa.string())), ("abstained", pa.bool_()), ("abstained_reason", pa.string())]
    for name in bundle.modalities:
        fields += [
            (f"{name}_status", pa.string()),
            (f"{name}_certainty", pa.float32()),
            (f"{name}_weight", pa.float32()),
            (f"{name}_label", pa.string()),
            (f"{name}_probability", pa.float32()),
            (f"{name}_held_s", pa.float64()),
            (f"{name}_promised_s", pa.float64()),
            (f"{name}_channel", pa.string()),
        ]
    if bundle.fused_head:
        fields += [("fused_certainty", pa.float32()), ("fused_weight", pa.float32())]
    fields += [
        ("degraded", pa.bool_()),
        ("truncated", pa.bool_()),
        ("error", pa.string()),
        ("message", pa.string()),
        ("bundle", pa.string()),
        ("version", pa.int32()),
        ("ms", pa.float32()),
    ]
    names = [name for name, _ in fields]
    for name in names:
        if names.count(name) > 1:
            raise ConfigurationError(
                f"bundle {bundle.name!r}: two columns of the table would be called {name!r}; rename the label or the "
                "modality that gives it",
                field=name,
            )
    return pa.schema(fields)
