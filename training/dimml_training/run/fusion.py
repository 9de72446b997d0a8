"""The fusion chosen for a run, as files in its directory.

``fusion.json`` has the spec and the report of the choice, ``fusion.safetensors`` the learned parameters. The parameters
are written first and their SHA-256 is in the JSON, so that an interrupted write, or files of two choices, are detected.
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
from dimml.monitoring.accuracy_estimate import AccuracyEstimate
from dimml.system.files import write_atomically

FUSION_JSON, PARAMETERS_FILE = "fusion.json", "fusion.safetensors"


class FusionRecord(BaseModel):
    """``fusion.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    spec: FusionSpec
    #: SHA-256 of ``fusion.safetensors``; None if nothing was learned.
    parameters_sha256: str | None = None
    #: Of its answers; None where their own probability estimates their accuracy, as in runs of an earlier version.
    accuracy_estimate: AccuracyEstimate | None = None
    #: The choice, its alternatives and the clips it was made on: JSON-able, copied into the manifest of an export.
    report: dict[str, Any]


def without_fused_head(spec: FusionSpec) -> FusionSpec:
    """The same fusion of the modalities' own heads alone."""
    if not spec.fused_head:
        return spec
    own = None if spec.head_temperatures is None else spec.head_temperatures[:-1]
    return spec.model_copy(update={"fused_head": False, "head_temperatures": own})


def write_fusion(
    folder: Path,
    spec: FusionSpec,
    parameters: FusionParameters,
    report: Mapping[str, Any],
    accuracy: AccuracyEstimate | None = None,
) -> None:
    """Write a run's chosen fusion, replacing any previous one."""
    arrays = parameters.arrays()
    digest = None
    if arrays:
        data = safetensors.numpy.save(arrays)
        digest = hashlib.sha256(data).hexdigest()
        write_atomically(folder / PARAMETERS_FILE, data)
    record = FusionRecord(spec=spec, parameters_sha256=digest, accuracy_estimate=accuracy, report=dict(report))
    write_atomically(folder / FUSION_JSON, (record.model_dump_json(indent=2) + "\n").encode())
    if not arrays:
        (folder / PARAMETERS_FILE).unlink(missing_ok=True)


def keep_previous(folder: Path, *metrics: str) -> None:
    """Keep a copy of the present choice, if any, and of its files of metrics: ``fusion.previous.json`` and so on."""
    for name in (PARAMETERS_FILE, FUSION_JSON, *metrics):
        kept = folder / name.replace(".", ".previous.", 1)
        if (folder / name).is_file():
            write_atomically(kept, (folder / name).read_bytes())
        else:
            kept.unlink(missing_ok=True)


def read_fusion(folder: Path) -> tuple[FusionSpec, FusionParameters, dict[str, Any]] | None:
    """Read a run's chosen fusion: spec, parameters and report; None if none was chosen, since its config fixes one.

    Raises SetupError if the files are damaged or do not belong together.
    """
    try:
        record = _read_record(folder)
        if record is None:
            return None
        if record.parameters_sha256 is None:
            return record.spec, FusionParameters(), record.report
        data = (folder / PARAMETERS_FILE).read_bytes()
        if hashlib.sha256(data).hexdigest() != record.parameters_sha256:
            raise SetupError(f"the run in {folder} is damaged: {PARAMETERS_FILE} is not the one {FUSION_JSON} names")
        return record.spec, FusionParameters.from_arrays(safetensors.numpy.load(data)), record.report
    except (OSError, SafetensorError, BundleError) as error:
        raise SetupError(f"the run in {folder} is damaged: {' '.join(str(error).split())}") from error


def read_accuracy_estimate(folder: Path) -> AccuracyEstimate | None:
    """Read the estimate of how often the chosen fusion's answers are right. Raises SetupError if it is damaged."""
    record = _read_record(folder)
    return None if record is None else record.accuracy_estimate


def _read_record(folder: Path) -> FusionRecord | None:
    """Read ``fusion.json``; None if no fusion was chosen."""
    path = folder / FUSION_JSON
    if not path.is_file():
        return None
    try:
        return FusionRecord.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise SetupError(f"the run in {folder} is damaged: {' '.join(str(error).split())}") from error
