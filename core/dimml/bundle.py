"""A bundle's manifest: one served classifier, as JSON beside its entry model (``<name>/<version>/bundle.json``).

Layout of a bundle ``grid`` with modalities audio and visual in a Triton model repository (docs/adr/0006)::

    grid_audio/1/model.onnx   grid_visual/1/model.onnx   grid_fusion/1/model.onnx   grid/1/bundle.json

All models of one bundle version carry the same version number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from dimml.digests import fill_historic, historic
from dimml.errors import BundleError
from dimml.fusion import FusionSpec
from dimml.modality import Modality, Name, as_decoder_1
from dimml.monitoring.accuracy import patterns
from dimml.monitoring.accuracy_estimate import AccuracyEstimate
from dimml.monitoring.reference import Reference
from dimml.prediction_sets.thresholds import PredictionSets
from dimml.signal_check import QualityThresholds
from dimml.signing import PublicKeys
from dimml.system.files import StrPath
from dimml.validation import first_fault

SCHEMA_VERSION: Final = 1
MANIFEST_NAME = "bundle.json"
FUSED_HEAD = "fused"
#: Default time limit of one encoder call.
DEADLINE_MS: Final = 2000.0
#: Names that would collide with a bundle's own models or heads.
RESERVED_MODALITY_NAMES = frozenset({FUSED_HEAD, "fusion", "media"})

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class FileRecord(BaseModel):
    """Size and hash of one file of the bundle."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: Sha256
    bytes: int = Field(ge=0)


class PlanRecord(BaseModel):
    """Where a TensorRT plan of the bundle was built, from which model, and how closely it matches that ONNX model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tensorrt: str = Field(description="Version of TensorRT: a plan loads in no other.")
    gpu: str = Field(description="Name of the GPU it was built on.")
    compute_capability: str = Field(description="Of that GPU, such as 8.9.")
    precision: Literal["fp32", "fp16"]
    onnx_sha256: Sha256 = Field(description="The model.onnx it was built from.")
    built: str = Field(description="UTC time, ISO 8601.")
    parity: dict[str, float] = Field(description="Largest absolute difference of each output from ONNX Runtime.")


class ReducedPrecision(BaseModel):
    """Arithmetic of encoders below FP32: what was reduced, what was left, and what that cost on validation clips."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    precision: Literal["fp16", "int8"]
    float_version: int = Field(ge=1, description="Version beside it with the same encoders in FP32.")
    calibration_clips: int = Field(
        ge=0, description="Training clips that gave the ranges of activations; 0 for fp16, which needs none."
    )
    layers: dict[str, int] = Field(description="By modality, layers that compute in the reduced precision.")
    left_in_float: dict[str, tuple[str, ...]] = Field(
        description="By modality, layers left in FP32 because they hurt, the most harmful first; by name in the graph."
    )
    search: tuple[dict[str, Any], ...] = Field(
        default=(), description="Steps of the search for them: layers in FP32 by modality, and accuracy lost by head."
    )
    clips: int = Field(ge=1, description="Validation clips of the figures.")
    before: dict[str, Any] = Field(description="Figures in FP32: accuracy and ECE of the answer and of each head.")
    after: dict[str, Any] = Field(description="The same of what this version answers, and how often labels agree.")


class Encoder(BaseModel):
    """What serving needs to know about one modality's encoder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    modality: Modality
    features: int = Field(ge=1, description="D, the width of FEATURES.")
    deadline_ms: float = Field(default=DEADLINE_MS, gt=0.0, description="Default time limit of one encoder call.")


class Bundle(BaseModel):
    """Manifest of one bundle version."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    HISTORIC_DEFAULTS: ClassVar[Mapping[str, Any]] = {
        "accuracy_estimate": None,
        "decoder_version": 1,
        "margin_s": 0.0,
        "prediction_sets": None,
        "reduced_precision": None,
    }

    schema_version: Literal[1] = SCHEMA_VERSION
    name: Name
    version: int = Field(ge=1)
    labels: tuple[str, ...] = Field(min_length=2)
    clip_s: float = Field(gt=0.0, description="Seconds of media that one row covers.")
    margin_s: float = Field(
        default=0.0,
        ge=0.0,
        allow_inf_nan=False,
        description="Seconds by which a range is widened on both sides, as in training; 0 in bundles of before.",
    )
    encoders: tuple[Encoder, ...] = Field(min_length=1)
    fusion: FusionSpec
    quality: QualityThresholds = QualityThresholds()
    max_batch_size: int = Field(default=32, ge=1)
    created: str = Field(description="UTC time of export, ISO 8601.")
    dimml_version: str
    decoder_version: int = Field(
        default=1, ge=1, description="Version of the decoder of its training clips; 1 in bundles of an earlier export."
    )
    description: str = ""
    metrics: dict[str, Any] = Field(default_factory=dict, description="Figures of validation and test.")
    selection: dict[str, Any] = Field(
        default_factory=dict, description="Which fusion validation chose and what it beat; empty where it was fixed."
    )
    reference: Reference | None = Field(
        default=None, description="What clean validation clips looked like; None in bundles of an earlier export."
    )
    accuracy_estimate: AccuracyEstimate | None = Field(
        default=None,
        description="What the estimated accuracy is the mean of; None: of the answers' probabilities, as in bundles of "
        "an earlier export.",
    )
    prediction_sets: PredictionSets | None = Field(
        default=None, description="Thresholds by `dimml calibrate --coverage`; None where a run has none."
    )
    training: dict[str, Any] = Field(default_factory=dict, description="How it was trained: config, data, warnings.")
    files: dict[str, FileRecord] = Field(default_factory=dict, description="By path relative to the repository.")
    plans: dict[str, PlanRecord] = Field(
        default_factory=dict, description="TensorRT plans among the files, by path: written by `dimml build-plans`."
    )

    reduced_precision: ReducedPrecision | None = Field(
        default=None, description="How its encoders compute below FP32; None: they do not."
    )

    @model_validator(mode="before")
    @classmethod
    def _as_decoder_1(cls, document: Any) -> Any:
        """Let a bundle of decoder version 1 decode as it was trained."""
        if not isinstance(document, Mapping) or document.get("decoder_version", 1) != 1:
            return document
        return document_as_decoder_1(document, "encoders", "modality")

    @model_validator(mode="after")
    def _consistent(self) -> Bundle:
        names = [m.name for m in self.modalities]
        tensors = [m.tensor for m in self.modalities]
        for what, values in (("modality names", names), ("tensor names", tensors), ("labels", list(self.labels))):
            if len(set(values)) != len(values):
                raise ValueError(f"{what} must be unique, got {values}")
        reserved = RESERVED_MODALITY_NAMES.intersection(names)
        if reserved:
            raise ValueError(f"modality name {sorted(reserved)[0]!r} is reserved")
        temperatures = self.fusion.head_temperatures
        if temperatures is not None and len(temperatures) != len(self.heads):
            raise ValueError(f"fusion.head_temperatures has {len(temperatures)} entries, the heads are {self.heads}")
        if self.reference is not None:
            if len(self.reference.labels) != len(self.labels):
                raise ValueError(f"reference.labels counts {len(self.reference.labels)} labels of {len(self.labels)}")
            if unknown := sorted(self.reference.certainty.keys() - set(self.heads)):
                raise ValueError(f"reference.certainty names {unknown[0]!r}, the heads are {self.heads}")
            known = patterns([modality.name for modality in self.modalities])
            if strange := sorted(self.reference.answer_probability.keys() - set(known)):
                raise ValueError(f"reference.answer_probability names {strange[0]!r}, the patterns are {known}")
        if self.accuracy_estimate is not None:
            fused = FUSED_HEAD if self.fusion.fused_head else None
            self.accuracy_estimate.check_heads(names, fused)
        if self.prediction_sets is not None:
            widths = {encoder.modality.name: encoder.features for encoder in self.encoders}
            self.prediction_sets.check_modalities(widths, len(self.labels))
        if any(Path(path).is_absolute() or ".." in Path(path).parts for path in self.files):
            raise ValueError("a file path must stay inside the repository")
        if unknown := sorted(self.plans.keys() - self.files.keys()):
            raise ValueError(f"plans names {unknown[0]}, which is not among the files")
        return self

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """Modalities, in the order of PRESENT, STATUS and the heads."""
        return tuple(encoder.modality for encoder in self.encoders)

    @property
    def heads(self) -> tuple[str, ...]:
        """Names of the heads in the order of CERTAINTY and WEIGHTS."""
        names = tuple(m.name for m in self.modalities)
        return (*names, FUSED_HEAD) if self.fusion.fused_head else names

    @property
    def classes(self) -> int:
        """Number of classes, C."""
        return len(self.labels)

    @property
    def precision(self) -> Literal["fp32", "fp16", "int8"]:
        """Arithmetic of its encoders; what stays in FP32 all the same is in ``reduced_precision``."""
        return "fp32" if self.reduced_precision is None else self.reduced_precision.precision

    def encoder(self, modality: str) -> Encoder:
        """Look up the encoder of a modality by name. Raises KeyError."""
        for encoder in self.encoders:
            if encoder.modality.name == modality:
                return encoder
        raise KeyError(modality)

    def encoder_model(self, modality: str) -> str:
        """Name of a modality's model in the repository."""
        return f"{self.name}_{modality}"

    @property
    def fusion_model(self) -> str:
        """Name of the fusion model in the repository."""
        return f"{self.name}_fusion"

    @property
    def media_model(self) -> str:
        """Name under which whole recordings are predicted over KServe v2."""
        return f"{self.name}_media"

    def model_file(self, repository: StrPath, model: str) -> Path:
        """Path of a model's ONNX file of this version."""
        repository = Path(repository)
        return repository / model / str(self.version) / "model.onnx"

    @property
    def sha256(self) -> str:
        """SHA-256 of the whole manifest, which holds the hash of every file: it identifies the bundle."""
        return hashlib.sha256(self.model_dump_json(exclude=historic(self)).encode()).hexdigest()

    def verify(self, repository: StrPath) -> None:
        """Check every file's size and SHA-256. Raises BundleError naming the first file that differs."""
        repository = Path(repository)
        for relative, record in self.files.items():
            path = repository / relative
            try:
                size, digest = path.stat().st_size, file_sha256(path)
            except OSError as error:
                raise BundleError(
                    f"bundle {self.name!r} version {self.version}: cannot read {relative}: {error.strerror}",
                    field=relative,
                ) from error
            if (size, digest) != (record.bytes, record.sha256):
                raise BundleError(
                    f"bundle {self.name!r} version {self.version}: {relative} is not the file that was exported "
                    "(SHA-256 differs); restore it or export again",
                    field=relative,
                )


def document_as_decoder_1(document: Mapping[str, Any], sections: str, modality: str) -> dict[str, Any]:
    """Copy a manifest or config of decoder version 1, with what that version did filled in where it does not say so.

    Its modalities stand at ``modality`` in each entry of the list ``sections``, its thresholds at ``quality``. What
    does not have this form is left to the document's own checks.
    """
    filled = {**document, "quality": fill_historic(document.get("quality", {}), QualityThresholds.HISTORIC_DEFAULTS)}
    if isinstance(entries := document.get(sections), list):
        filled[sections] = [
            {**entry, modality: as_decoder_1(entry.get(modality))} if isinstance(entry, Mapping) else entry
            for entry in entries
        ]
    return filled


def file_sha256(path: StrPath) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    path = Path(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_bundle(path: StrPath, *, signers: PublicKeys | None = None) -> Bundle:
    """Parse one ``bundle.json``. Raises BundleError that names the file and the field at fault.

    With ``signers``, exactly the bytes that are parsed must be signed by one of them.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
        if signers is not None:
            signers.check(data, path)
        return Bundle.model_validate_json(data)
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror}") from error
    except ValidationError as error:
        where, fault = first_fault(error, "the document")
        raise BundleError(f"{path}: {where}: {fault}", field=where) from error
