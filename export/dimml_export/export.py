"""Export of a finished training run to a bundle in a model repository, checked before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dimml import __version__
from dimml.bundle import DEADLINE_MS, Bundle, Encoder
from dimml.contract import model_specs
from dimml.errors import ConfigurationError, SetupError
from dimml.request_parameters import AS_BUNDLED, Abstention
from dimml.system.files import StrPath
from dimml.system.outbound import set_quiet_defaults
from dimml.validation import first_fault
from dimml_export.encoder_graph import encoder_model
from dimml_export.evaluation import corrupted_figures, data_digest
from dimml_export.fusion_graph import fusion_model
from dimml_export.parity import Outputs, Parity, check_chain, check_encoder, check_fusion
from dimml_export.prediction_sets import prediction_sets
from dimml_export.reference import reference_distributions
from dimml_export.repository_writer import check_name, missing_outputs, write_bundle
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
        return {
            "repository": str(self.repository),
            "name": self.bundle.name,
            "version": self.bundle.version,
            "files": {path: record.model_dump() for path, record in self.bundle.files.items()},
            "parity": [parity.as_dict() for parity in self.parity],
            "warnings": self.warnings,
        }


def export_run(
    run_folder: StrPath,
    repository: StrPath,
    *,
    name: str | None = None,
    description: str = "",
    deadlines_ms: Mapping[str, float] | None = None,
    tensorrt: TensorRT | None = None,
    abstain: Abstention = AS_BUNDLED,
    say: Callable[[str], None] = lambda _: None,
) -> Exported:
    """Export the run in ``run_folder`` as the next version of ``name`` (by default the run's own).

    ``description`` is for people to read; ``deadlines_ms`` are encoders' time limits by modality that differ from the
    default; ``tensorrt`` is how encoders use TensorRT, None for not at all; ``abstain`` is when answers abstain unless
    a request says otherwise. ``say`` is called with progress messages.

    Raises SetupError for a run that does not load, or whose encoders cannot be compared with the trained ones;
    ConfigurationError for a joint training, an invalid name, a deadline of an unknown modality, or a limit of
    abstention for a run without thresholds; and BundleError, with nothing written, if an exported model's outputs
    differ from the trained one's on the run's sample clips, or if the repository or TensorRT's parser cannot take the
    bundle.
    """
    run_folder, repository = Path(run_folder), Path(repository)
    set_quiet_defaults()
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
    check_name(repository, draft, tensorrt)
    unset += missing_outputs(repository, draft)
    corrupted, lacking = corrupted_figures(run_folder, run)
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
    head = run.voting_fused_head
    weight, bias = (None, None) if head is None else (head.weight.detach().numpy(), head.bias.detach().numpy())
    learned = run.fusion_parameters
    fusion = fusion_model(draft, weight, bias, learned)
    parity.append(check_fusion(draft, fusion, outputs, weight, bias, parameters=learned))
    say("comparing the whole with torch")
    parity.extend(
        check_chain(draft, models, fusion, clips=run.samples, outputs=outputs, fused_head=head, parameters=learned)
    )
    say(f"writing to {repository}")
    metrics = {**run.metrics, "parity": [result.as_dict() for result in parity]}
    if corrupted is not None:
        metrics["corrupted"] = corrupted
    reference, missing = reference_distributions(run_folder, run)
    training = {**draft.training, **data_digest(run_folder)}
    draft = draft.model_copy(update={"metrics": metrics, "reference": reference, "training": training})
    bundle = write_bundle(repository, draft, models, fusion, tensorrt=tensorrt, samples=run.samples)
    return Exported(repository, bundle, parity, [*_false_alarms(run), *missing, *lacking, *unset])


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
