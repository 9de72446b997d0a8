"""Export of a finished training run to a bundle in a model repository, checked before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import onnx
from pydantic import ValidationError

from dimml import __version__
from dimml.bundle import DEADLINE_MS, Bundle, Encoder
from dimml.contract import model_specs
from dimml.errors import ConfigurationError, SetupError
from dimml.fusion import FusionParameters
from dimml.request_parameters import AS_BUNDLED, Abstention
from dimml.system.files import StrPath
from dimml.system.outbound import set_quiet_defaults
from dimml.validation import first_fault
from dimml_export.encoder_graph import encoder_model
from dimml_export.evaluation import corrupted_figures, data_digest
from dimml_export.fusion_graph import fusion_model
from dimml_export.parity import AGREEMENT, Agreement, Outputs, Parity, check_chain, check_encoder, check_fusion
from dimml_export.precision.reduce import CALIBRATION_CLIPS, FEWEST_CLIPS, Precision, Reduced, reduce_precision
from dimml_export.prediction_sets import prediction_sets
from dimml_export.reference import reference_distributions
from dimml_export.repository_writer import check_name, missing_outputs, version_with, write_bundle
from dimml_export.tensorrt.config import TensorRT
from dimml_training.run.directory import TrainedRun, load_run


@dataclass(frozen=True)
class Exported:
    """Result of one export: what it wrote, and what it found."""

    repository: Path
    bundle: Bundle
    parity: list[Parity]
    #: Remarks for a person: false alarms of the signal check, a missing reference.
    warnings: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Convert to a dictionary for JSON."""
        reduced = self.bundle.reduced_precision
        return {
            "repository": str(self.repository),
            "name": self.bundle.name,
            "version": self.bundle.version,
            "precision": self.bundle.precision,
            "reduced_precision": None if reduced is None else reduced.model_dump(mode="json"),
            "files": {path: record.model_dump() for path, record in self.bundle.files.items()},
            "parity": [parity.as_dict() for parity in self.parity],
            "warnings": self.warnings,
        }


@dataclass(frozen=True)
class _Models:
    """A bundle's models with how closely they match the trained ones; ``outputs`` are torch's, by modality."""

    encoders: dict[str, onnx.ModelProto]
    fusion: onnx.ModelProto
    outputs: dict[str, Outputs]
    parity: list[Parity]


def export_run(
    run_folder: StrPath,
    repository: StrPath,
    *,
    name: str | None = None,
    description: str = "",
    deadlines_ms: Mapping[str, float] | None = None,
    tensorrt: TensorRT | None = None,
    precision: Precision = "fp32",
    calibration_clips: int = CALIBRATION_CLIPS,
    cache_dir: StrPath | None = None,
    abstain: Abstention = AS_BUNDLED,
    say: Callable[[str], None] = lambda _: None,
) -> Exported:
    """Export the run in ``run_folder`` as the next version of ``name`` (by default the run's own).

    ``description`` is for people to read; ``deadlines_ms`` are encoders' time limits by modality that differ from the
    default; ``tensorrt`` is how encoders use TensorRT, None for not at all; ``abstain`` is when answers abstain unless
    a request says otherwise. ``say`` is called with progress messages.

    With ``precision`` below fp32, the version in FP32 is written first, unless the repository has it, and the encoders
    in reduced precision as the version after it: they are calibrated on ``calibration_clips`` training clips and judged
    on validation clips, from ``cache_dir`` (by default ``dimml train``'s) or decoded again.

    Raises SetupError for a run that does not load, or whose encoders cannot be compared with the trained ones;
    ConfigurationError for a joint training, an invalid name, a deadline of an unknown modality, a limit of abstention
    for a run without thresholds, too few calibration clips, or reduced precision with TensorRT; DataError for clips
    that cannot be read; and BundleError, with nothing written, if an exported model's outputs differ from the trained
    one's on the run's sample clips, if reduced precision costs too much, or if the repository or TensorRT's parser
    cannot take the bundle.
    """
    run_folder, repository = Path(run_folder), Path(repository)
    set_quiet_defaults()
    _check_precision(precision, tensorrt, calibration_clips)
    run = load_run(run_folder)
    if run.joint_head is not None:
        raise ConfigurationError(
            f"{run_folder} is a joint training, made to compare with: its answer needs every modality, so it is no "
            "bundle; export one trained with stage1.objective: detached",
            field="stage1.objective",
        )
    if not run.verified:
        raise SetupError(
            f"{run_folder} was trained by an early version that did not record what its encoders output on the sample "
            "clips: whether this version's encoders are those that were trained cannot be checked. Train it again, or "
            "export it with the version it was trained with"
        )
    sets, unset = prediction_sets(run_folder, run, abstain)
    draft = _draft(run, name, description, deadlines_ms or {}).model_copy(update={"prediction_sets": sets})
    check_name(repository, draft, tensorrt, reduced=precision != "fp32")
    unset += missing_outputs(repository, draft)
    corrupted, lacking = corrupted_figures(run_folder, run)
    in_float = _float_models(run, draft, say)
    reduced, models = None, in_float
    if precision != "fp32":
        reduced = reduce_precision(
            run_folder,
            run,
            in_float.encoders,
            precision,
            calibration_clips=calibration_clips,
            cache_dir=cache_dir,
            say=say,
        )
        models = _reduced_models(run, draft, reduced, in_float.outputs, say)
    say(f"writing to {repository}")
    metrics = {**run.metrics, "parity": [result.as_dict() for result in in_float.parity]}
    if corrupted is not None:
        metrics["corrupted"] = corrupted
    reference, missing = reference_distributions(run_folder, run)
    training = {**draft.training, **data_digest(run_folder)}
    draft = draft.model_copy(update={"metrics": metrics, "reference": reference, "training": training})
    warnings = [*_false_alarms(run), *missing, *lacking, *unset]
    float_version = None if reduced is None else version_with(repository, draft, in_float.encoders, in_float.fusion)
    if float_version is None:
        bundle = write_bundle(
            repository, draft, in_float.encoders, in_float.fusion, tensorrt=tensorrt, samples=run.samples
        )
        float_version = bundle.version
    if reduced is not None:
        draft = _reduced_draft(draft, reduced, models, float_version)
        bundle = write_bundle(repository, draft, models.encoders, models.fusion)
        warnings += reduced.warnings
        if sets is not None:
            warnings.append(
                f"version {bundle.version}, in {precision}, has no prediction sets and does not abstain: the run's "
                f"thresholds are of the answers in fp32, of version {float_version}"
            )
    return Exported(repository, bundle, models.parity, warnings)


def _check_precision(precision: Precision, tensorrt: TensorRT | None, calibration_clips: int) -> None:
    if precision != "fp32" and tensorrt is not None:
        raise ConfigurationError(
            f"--precision {precision} does not go with --tensorrt, which reduces precision by itself: leave one out",
            field="precision",
        )
    if precision == "int8" and calibration_clips < FEWEST_CLIPS:
        raise ConfigurationError(
            f"--calibration-clips {calibration_clips}: ranges of activations need {FEWEST_CLIPS} clips at least",
            field="calibration_clips",
        )


def _float_models(run: TrainedRun, draft: Bundle, say: Callable[[str], None]) -> _Models:
    """Export encoders and fusion as they were trained, each and all together compared with torch."""
    parity: list[Parity] = []
    outputs: dict[str, Outputs] = {}
    models = {}
    for spec in model_specs(draft):
        if spec.modality is None:
            continue
        say(f"exporting {spec.modality}")
        encoder = run.encoders[spec.modality]
        models[spec.modality] = encoder_model(encoder, spec)
        say(f"comparing {spec.modality} with torch")
        outputs[spec.modality], compared = check_encoder(
            spec.name, encoder, models[spec.modality], run.samples[spec.modality]
        )
        parity.extend(compared)
    say("exporting the fusion")
    fusion, compared = _fusion(run, draft, models, outputs, parameters=run.fusion_parameters)
    return _Models(models, fusion, outputs, parity + compared)


def _reduced_models(
    run: TrainedRun, draft: Bundle, reduced: Reduced, outputs: dict[str, Outputs], say: Callable[[str], None]
) -> _Models:
    """Put the reduced encoders and the fusion that is fitted to them together, compared with torch within bounds."""
    agreement = AGREEMENT[reduced.record["precision"]]
    parity: list[Parity] = []
    for name, model in reduced.models.items():
        say(f"comparing {name} with torch")
        encoder, samples = run.encoders[name], run.samples[name]
        _, compared = check_encoder(draft.encoder_model(name), encoder, model, samples, agreement=agreement)
        parity.extend(compared)
    draft = draft.model_copy(update={"fusion": reduced.fusion})
    fusion, compared = _fusion(run, draft, reduced.models, outputs, parameters=reduced.parameters, agreement=agreement)
    return _Models(reduced.models, fusion, outputs, parity + compared)


def _fusion(
    run: TrainedRun,
    draft: Bundle,
    encoders: Mapping[str, onnx.ModelProto],
    outputs: Mapping[str, Outputs],
    *,
    parameters: FusionParameters,
    agreement: Agreement | None = None,
) -> tuple[onnx.ModelProto, list[Parity]]:
    """Export the draft's fusion, compared with its statement in numpy, and all models together with torch."""
    head = run.voting_fused_head
    weight, bias = (None, None) if head is None else (head.weight.detach().numpy(), head.bias.detach().numpy())
    fusion = fusion_model(draft, weight, bias, parameters)
    parity = [check_fusion(draft, fusion, outputs, weight, bias, parameters=parameters)]
    parity += check_chain(
        draft,
        encoders,
        fusion,
        clips=run.samples,
        outputs=outputs,
        fused_head=head,
        parameters=parameters,
        agreement=agreement,
    )
    return fusion, parity


def _reduced_draft(draft: Bundle, reduced: Reduced, models: _Models, float_version: int) -> Bundle:
    """Turn the manifest of the FP32 version into the reduced one's.

    What was computed from FP32's answers is replaced, or left out: thresholds of prediction sets, whose coverage would
    hold no longer, the estimate of accuracy, and figures under corruptions.
    """
    return draft.model_copy(
        update={
            "fusion": reduced.fusion,
            "metrics": {**reduced.metrics, "parity": [result.as_dict() for result in models.parity]},
            "reference": reduced.reference,
            "accuracy_estimate": None,
            "prediction_sets": None,
            "reduced_precision": reduced.noted(float_version),
        }
    )


def _draft(run: TrainedRun, name: str | None, description: str, deadlines_ms: Mapping[str, float]) -> Bundle:
    names = [modality.name for modality in run.modalities]
    unknown = sorted(deadlines_ms.keys() - set(names))
    if unknown:
        raise ConfigurationError(
            f"--deadline-ms: the run has no modality {unknown[0]!r}, only {', '.join(names)}", field="deadline_ms"
        )
    try:
        return Bundle(
            name=run.name if name is None else name,
            version=1,
            labels=run.labels,
            clip_s=run.clip_s,
            margin_s=run.config.data.margin_s,
            encoders=tuple(
                Encoder(
                    modality=modality,
                    features=run.config.encoders[modality.name].width,
                    deadline_ms=deadlines_ms.get(modality.name, DEADLINE_MS),
                )
                for modality in run.modalities
            ),
            fusion=run.fusion,
            quality=run.quality,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            dimml_version=__version__,
            decoder_version=run.decoder_version,
            description=description,
            selection=run.fusion_report,
            accuracy_estimate=run.accuracy_estimate,
            training={**run.training, "quality_report": run.quality_report},
        )
    except ValidationError as error:
        field, fault = first_fault(error, "")
        raise ConfigurationError(f"the bundle's {field}: {fault}", field=field) from error


def _false_alarms(run: TrainedRun) -> list[str]:
    """Make one line for each modality of which the signal check would refuse some training clips in service."""
    warnings = []
    for modality in run.modalities:
        alarms = {reason: count for reason, count in run.quality_report[modality.name]["false_alarms"].items() if count}
        if alarms:
            listed = ", ".join(f"{count} {reason}" for reason, count in alarms.items())
            warnings.append(
                f"{modality.name}: the signal check takes {listed} of {run.quality_report['clips']} training clips "
                "for unusable, and would in service (thresholds: `quality` in the training config)"
            )
    return warnings
