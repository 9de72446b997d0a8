"""Parquet as Hugging Face's ``datasets`` writes it: recordings in the table, classes as numbers with names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

#: Storage of the features Audio, Video and Image.
MEDIA = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write_parquet(
    path: Path,
    columns: dict[str, Sequence[Any]],
    *,
    media: dict[str, str],
    classes: dict[str, list[str]] | None = None,
    rows_per_group: int = 2,
) -> Path:
    """Write columns; ``media`` names the feature of each column of recordings, ``classes`` the names of a label's."""
    features: dict[str, Any] = {name: {"_type": kind} for name, kind in media.items()}
    features |= {name: {"names": names, "_type": "ClassLabel"} for name, names in (classes or {}).items()}
    arrays = {name: pa.array(values, MEDIA if name in media else None) for name, values in columns.items()}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(pa.table(arrays).replace_schema_metadata(metadata), path, row_group_size=rows_per_group)
    return path


def inside(content: bytes, name: str | None = None) -> dict[str, Any]:
    """A recording in the table."""
    return {"bytes": content, "path": name}


def outside(path: str) -> dict[str, Any]:
    """A recording beside the table."""
    return {"bytes": None, "path": path}
