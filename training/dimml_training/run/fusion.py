"""The fusion chosen for a run, in its directory: ``fusion.json`` (the spec, and what it beat) and
``fusion.safetensors`` (what was learned for it).

The parameters are written first and their SHA-256 stands in the JSON, so that a choice cut short, or files of two
choices, are found out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import safetensors.numpy
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError

from dimml.errors import BundleError, SetupError
from dimml.fusion import FusionParameters, FusionSpec
from dimml.system.files import write_atomically

FUSION_JSON, PARAMETERS_FILE = "fusion.json", "fusion.safetensors"


class FusionRecord(BaseModel):
    """``fusion.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    spec: FusionSpec
    #: Of ``fusion.safetensors``; None where nothing was learned.
    parameters_sha256: str | None = None
    #: What was chosen, what it beat and on which clips: JSON-able, copied into the manifest of an export.
    report: dict[str, Any]


def write_fusion(folder: Path, spec: FusionSpec, parameters: FusionParameters, report: Mapping[str, Any]) -> None:
    """Write a run's chosen fusion, in place of one that is there."""
    arrays = parameters.arrays()
    digest = None
    if arrays:
        data = safetensors.numpy.save(arrays)
        digest = hashlib.sha256(data).hexdigest()
        write_atomically(folder / PARAMETERS_FILE, data)
    record = FusionRecord(spec=spec, parameters_sha256=digest, report=dict(report))
    write_atomically(folder / FUSION_JSON, (record.model_dump_json(indent=2) + "\n").encode())
    if not arrays:
        (folder / PARAMETERS_FILE).unlink(missing_ok=True)


def keep_previous(folder: Path, *figures: str) -> None:
    """Keep a copy of the choice that is there, if any, and of files that say what it came to: ``fusion.previous.json``
    and so on."""
    for name in (PARAMETERS_FILE, FUSION_JSON, *figures):
        kept = folder / name.replace(".", ".previous.", 1)
        if (folder / name).is_file():
            write_atomically(kept, (folder / name).read_bytes())
        else:
            kept.unlink(missing_ok=True)


def read_fusion(folder: Path) -> tuple[FusionSpec, FusionParameters, dict[str, Any]] | None:
    """A run's chosen fusion: spec, parameters and report; None where its config fixed one and nothing was chosen.
    Raises SetupError where the files are damaged or do not belong together."""
    path = folder / FUSION_JSON
    if not path.is_file():
        return None
    try:
        record = FusionRecord.model_validate_json(path.read_bytes())
        if record.parameters_sha256 is None:
            return record.spec, FusionParameters(), record.report
        data = (folder / PARAMETERS_FILE).read_bytes()
        if hashlib.sha256(data).hexdigest() != record.parameters_sha256:
            raise SetupError(f"the run in {folder} is damaged: {PARAMETERS_FILE} is not the one {FUSION_JSON} names")
        return record.spec, FusionParameters.from_arrays(safetensors.numpy.load(data)), record.report
    except (OSError, ValidationError, SafetensorError, BundleError) as error:
        raise SetupError(f"the run in {folder} is damaged: {' '.join(str(error).split())}") from error
