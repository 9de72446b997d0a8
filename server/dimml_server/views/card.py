"""Model card of a bundle version: what its manifest says of its making, in one form; null is "not recorded"."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any, Final

from pydantic import BaseModel, Field

from dimml.bundle import MANIFEST_NAME, Bundle, FileRecord, ReducedPrecision
from dimml.signing import SIGNATURE_NAME
from dimml.system.files import StrPath

_SPLITS: Final = ("validation", "test")
#: Of the figures of validation and test: a confusion matrix is in ``metrics``.
_FIGURES: Final = ("clips", "accuracy", "macro_f1", "nll", "ece", "heads")
_CALIBRATION: Final = ("clean_ece", "clean_ece_of_perfect_calibrator")
_TEMPERATURES: Final = ("head_temperatures", "answer_temperature")
_TRAINING: Final = ("seed", "seconds", "selected_epoch", "effective_dimensions", "versions", "warnings")

Document = dict[str, Any]


class DataCard(BaseModel):
    """The clips that it was made from."""

    table: str | None = Field(description="Name of the table of clips, without its folder.")
    clips: Document | None = Field(description="Number of clips by split.")
    splits: Document | None = Field(description="Values of the table's split column, by split.")
    split_by: str | None = Field(description="Column whose values do not cross splits, such as the speaker.")
    sha256: str | None = Field(description="Digest of the clips' content, labels and splits.")


class TrainingCard(BaseModel):
    """How it was trained."""

    objective: str | None
    stage1: Document | None = Field(description="Settings of the encoders' training.")
    stage2: Document | None = Field(description="Settings of the fused head's training.")
    record: Document | None = Field(description="Seed, seconds, epoch chosen, versions of libraries, warnings.")


class FusionCard(BaseModel):
    """Which fusion validation chose, with its figures, and what it beat."""

    chosen: Document | None
    instead_of: Document | None


class HashesCard(BaseModel):
    """SHA-256 of the manifest, and of every file."""

    manifest: str
    files: dict[str, FileRecord]


class SignatureCard(BaseModel):
    """Whether the manifest is signed, and whether this server checked that."""

    signed: bool | None = Field(description="Null where the repository cannot be read.")
    checked: bool


class ModelCard(BaseModel):
    """How a bundle version was made, and how good it is; null is what its manifest does not record."""

    dimml_version: str
    decoder_version: int
    data: DataCard | None
    training: TrainingCard | None
    figures: dict[str, Document | None] = Field(description="Of clean clips of validation and test.")
    corrupted: Document | None = Field(description="Of clips with noise, blur, gaps and more, by condition.")
    calibration: Document | None = Field(description="Expected calibration error on clean validation clips, and more.")
    fusion: FusionCard | None
    signal_check: Document | None = Field(description="What the signal check said of the training clips.")
    parity: list[Document] | None = Field(description="How closely the exported models match the trained ones.")
    reduced_precision: ReducedPrecision | None = Field(
        description="How encoders compute below fp32, and what it cost on validation clips; null: they do not."
    )
    drift_reference: bool = Field(description="Whether it knows what validation clips look like.")
    hashes: HashesCard
    signature: SignatureCard


def build_card(bundle: Bundle, repository: StrPath, *, checked: bool) -> ModelCard:
    """Build the card of a version in ``repository``; ``checked``: whether the server loads signed bundles alone.

    Looks for the signature's file. A manifest may hold anything: what does not have the form of a record counts as not
    recorded.
    """
    training, metrics, selection = bundle.training, bundle.metrics, bundle.selection
    config = _mapping(training.get("config")) or {}
    parity = metrics.get("parity")
    return ModelCard(
        dimml_version=bundle.dimml_version,
        decoder_version=bundle.decoder_version,
        data=_data(training, _mapping(config.get("data")) or {}),
        training=_training(training, config),
        figures={split: _some(_mapping(metrics.get(split)), _FIGURES) for split in _SPLITS},
        corrupted=_mapping(metrics.get("corrupted")),
        calibration=_calibration(bundle),
        fusion=FusionCard(chosen=_mapping(selection.get("chosen")), instead_of=_mapping(selection.get("instead_of")))
        if selection
        else None,
        signal_check=_mapping(training.get("quality_report")),
        parity=[dict(one) for one in parity if isinstance(one, Mapping)] if isinstance(parity, list) else None,
        reduced_precision=bundle.reduced_precision,
        drift_reference=bundle.reference is not None,
        hashes=HashesCard(manifest=bundle.sha256, files=dict(bundle.files)),
        signature=SignatureCard(signed=_signed(bundle, Path(repository)), checked=checked),
    )


def _data(training: Mapping[str, Any], data: Mapping[str, Any]) -> DataCard | None:
    table = _text(data.get("manifest"))
    card = DataCard(
        # The folder is of the machine that trained.
        table=None if table is None else PurePath(table).name,
        clips=_mapping(training.get("clips")),
        splits=_mapping(data.get("splits")),
        split_by=_text(data.get("split_by")),
        sha256=_text(training.get("data_sha256")),
    )
    return card if any(value is not None for value in card.model_dump().values()) else None


def _training(training: Mapping[str, Any], config: Mapping[str, Any]) -> TrainingCard | None:
    stage1 = _mapping(config.get("stage1"))
    card = TrainingCard(
        objective=_text((stage1 or {}).get("objective")),
        stage1=stage1,
        stage2=_mapping(config.get("stage2")),
        record=_some(training, _TRAINING),
    )
    return card if any(value is not None for value in card.model_dump().values()) else None


def _calibration(bundle: Bundle) -> Document | None:
    errors = _some(_mapping(bundle.selection.get("chosen")), _CALIBRATION)
    if errors is None:
        return None
    spec = bundle.fusion.model_dump(mode="json")
    return {**errors, **{name: spec.get(name) for name in _TEMPERATURES}}


def _signed(bundle: Bundle, repository: Path) -> bool | None:
    folder = repository / bundle.name / str(bundle.version)
    try:
        return (folder / SIGNATURE_NAME).is_file() if (folder / MANIFEST_NAME).is_file() else None
    except OSError:
        return None


def _mapping(value: Any) -> Document | None:
    return dict(value) if isinstance(value, Mapping) and value else None


def _some(found: Mapping[str, Any] | None, names: tuple[str, ...]) -> Document | None:
    return {name: found[name] for name in names if name in found} or None if found else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
