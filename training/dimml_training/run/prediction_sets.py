"""``prediction_sets.json`` of a run: thresholds of its answers' prediction sets, and the fusion that they are of."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from dimml.errors import SetupError
from dimml.fusion import FusionParameters, FusionSpec
from dimml.prediction_sets.thresholds import PredictionSets
from dimml.system.files import write_atomically

SETS_FILE: Final = "prediction_sets.json"


class SetsRecord(BaseModel):
    """``prediction_sets.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    #: SHA-256 of the fusion whose answers were scored: thresholds mean nothing for another one.
    fusion_sha256: str
    sets: PredictionSets
    #: What the held-out answers looked like, by pattern: JSON-able, for people.
    report: dict[str, Any]


def fusion_sha256(spec: FusionSpec, parameters: FusionParameters) -> str:
    """SHA-256 of a fusion's options and learned parameters."""
    digest = hashlib.sha256(spec.model_dump_json().encode())
    for name, array in sorted(parameters.arrays().items()):
        digest.update(f"{name}{array.dtype.str}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def write_sets(folder: Path, record: SetsRecord) -> None:
    """Write a run's thresholds, replacing any previous ones."""
    write_atomically(folder / SETS_FILE, (record.model_dump_json(indent=2) + "\n").encode())


def read_sets(folder: Path) -> SetsRecord | None:
    """Read a run's thresholds; None if it has none. Raises SetupError if the file is damaged."""
    path = folder / SETS_FILE
    if not path.is_file():
        return None
    try:
        return SetsRecord.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise SetupError(f"{path} is damaged: {' '.join(str(error).split())}") from error
