"""A run directory: all results of one training, enough to export it without its data.

::

    config.yaml            the config with every default filled in
    data.sha256            digest of the clips' content, labels and splits: a run is only resumed with the same data
    decoder.version        version of the decoder of the clips' rows; 1 where absent, as in runs made before it
    run.json               labels, modalities, fusion, quality report, record of the training; written last
    metrics.json           metrics of validation and test
    metrics.csv            metrics of every epoch, one line each
    weights.safetensors    encoders, shared head, fused head; of a joint training: encoders, joint head
    samples.safetensors    some validation clips as tensors, with labels and every encoder's logits
    fusion.json            the chosen fusion and what it was compared with, unless the config fixes it
    fusion.safetensors     learned parameters of that fusion
    prediction_sets.json   thresholds of ``dimml calibrate --coverage`` and the fusion that they are of
    votes.safetensors      logits of every head for validation and test clips, and the answers
    report.html            report for a person
    corruptions.json       metrics of ``dimml evaluate --corruptions``, for the report
    comparison.json        table of ``dimml report --results``, for the report
    *.previous.*           files replaced by ``dimml calibrate``
    tensorboard/           metrics of every epoch
    checkpoints/           checkpoints of stage 1, to resume from

A folder without ``run.json`` is an unfinished run.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import safetensors.numpy
import safetensors.torch
import torch
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from torch import Tensor, nn

from dimml.bundle import document_as_decoder_1
from dimml.errors import SetupError
from dimml.fusion import PAPER, FusionParameters, FusionSpec
from dimml.media.decoders.version import DECODER_VERSION
from dimml.modality import Modality
from dimml.monitoring.accuracy_estimate import AccuracyEstimate
from dimml.signal_check import QualityThresholds
from dimml.system.files import StrPath, write_atomically
from dimml_training.config import TrainConfig, parse_config
from dimml_training.models.encoder import build_encoder
from dimml_training.models.joint_head import JointHead, build_joint_head
from dimml_training.run.fusion import read_accuracy_estimate, read_fusion, without_fused_head

RUN_FILE, CONFIG_FILE, WEIGHTS_FILE = "run.json", "config.yaml", "weights.safetensors"
DATA_FILE, DECODER_FILE = "data.sha256", "decoder.version"
METRICS_JSON, METRICS_CSV, SAMPLES_FILE = "metrics.json", "metrics.csv", "samples.safetensors"
CHECKPOINTS = "checkpoints"
#: Largest difference of a sample's logits from those saved with the run, relative to the largest one if that is above
#: 1. Other machines and versions of torch round differently; changed encoder code differs by more than this.
LOGITS_TOLERANCE = 1e-3


@dataclass(frozen=True)
class TrainedRun:
    """One finished training run.

    ``encoders`` (in evaluation mode) map ``[B, *modality.shape]`` to features ``[B, D]`` and logits ``[B, C]``;
    ``fused_head`` takes the features concatenated in modality order, ``[B, M·D]``, and is None if none was trained;
    ``shared_head`` takes any modality's features. A joint training (``stage1.objective``) has neither of the two but a
    ``joint_head``, which maps the list of features in modality order, zeros for an absent modality, to logits
    ``[B, C]``; its encoders' own logits are meaningless unless ``own_heads``. ``samples`` holds a few validation clips
    per modality as ``[N, *shape]`` in the modality's dtype, ``sample_labels`` their class indices; where no clip has
    every modality, they are other clips for each modality, and the labels those of the first. ``verified`` means
    that the encoders give the same logits for them as when the run was written.
    """

    name: str
    labels: tuple[str, ...]
    clip_s: float
    modalities: tuple[Modality, ...]
    encoders: dict[str, nn.Module]
    shared_head: nn.Linear | None
    fused_head: nn.Linear | None
    joint_head: JointHead | None
    #: The chosen fusion, or the one of the config.
    fusion: FusionSpec
    #: Its learned parameters.
    fusion_parameters: FusionParameters
    #: Report of the choice; empty if the config fixes the fusion.
    fusion_report: dict[str, Any]
    quality: QualityThresholds
    #: False alarms of the signal check on the training clips, per modality, and how close any clip came to a threshold.
    quality_report: dict[str, Any]
    samples: dict[str, npt.NDArray[Any]]
    sample_labels: npt.NDArray[np.int64]
    #: False for a run of an older version, which did not save the encoders' logits for the samples.
    verified: bool
    metrics: dict[str, Any]
    #: JSON-able: resolved config, counts of clips, warnings, seed, versions, seconds.
    training: dict[str, Any]
    config: TrainConfig
    #: ``DECODER_VERSION`` of the rows it was trained on.
    decoder_version: int = 1
    #: How often its answers are right; None: by their own probability.
    accuracy_estimate: AccuracyEstimate | None = None

    @property
    def voting_fused_head(self) -> nn.Linear | None:
        """The fused head, or None if the fusion does not let it vote."""
        return self.fused_head if self.fusion.fused_head else None

    @property
    def own_heads(self) -> bool:
        """Whether the modalities' own heads were trained."""
        return self.joint_head is None or self.config.stage1.joint.modulation == "mmpareto"


class _RunRecord(BaseModel):
    """``run.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    labels: tuple[str, ...]
    quality_report: dict[str, Any]
    training: dict[str, Any]


def write_config(folder: Path, config: TrainConfig) -> None:
    """Write the resolved config, creating the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    document = config.model_dump(mode="json")
    write_atomically(folder / CONFIG_FILE, yaml.safe_dump(document, sort_keys=False, allow_unicode=True).encode())


def read_config(folder: Path) -> TrainConfig:
    """Read the resolved config of a run, finished or not. Raises ConfigurationError or SetupError."""
    path = folder / CONFIG_FILE
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise SetupError(f"{folder} is no training run: cannot read {CONFIG_FILE}") from error
    if isinstance(document, Mapping) and read_decoder_version(folder) == 1:
        document = document_as_decoder_1(document, "modalities", "input")
    return parse_config(document, str(path))


def write_data_digest(folder: Path, digest: str) -> None:
    """Write the digest of a run's data, creating the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / DATA_FILE, digest.encode())


def read_data_digest(folder: Path) -> str | None:
    """Read the digest of a run's data; None if the run has none."""
    path = folder / DATA_FILE
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None


def write_decoder_version(folder: Path, decoder_version: int = DECODER_VERSION) -> None:
    """Note which decoder made a run's rows, creating the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / DECODER_FILE, f"{decoder_version}\n".encode())


def read_decoder_version(folder: Path) -> int:
    """The version of the decoder that made a run's rows. Raises SetupError where the file holds no number."""
    path = folder / DECODER_FILE
    if not path.is_file():
        return 1
    text = path.read_text(encoding="utf-8", errors="replace").strip()
    if not text.isdecimal():
        raise SetupError(f"the run in {folder} is damaged: {DECODER_FILE} holds {text[:20]!r}, not a version")
    return int(text)


def write_run(
    folder: Path,
    *,
    config: TrainConfig,
    labels: Sequence[str],
    encoders: Mapping[str, nn.Module],
    shared_head: nn.Linear | None = None,
    fused_head: nn.Linear | None = None,
    joint_head: nn.Module | None = None,
    samples: Mapping[str, npt.NDArray[Any]],
    sample_labels: npt.NDArray[np.int64],
    metrics: Mapping[str, Any],
    epochs: Sequence[Mapping[str, Any]],
    quality_report: Mapping[str, Any],
    training: Mapping[str, Any],
) -> None:
    """Write a finished run; leaves the encoders in evaluation mode. ``run.json`` comes last and marks it finished."""
    write_config(folder, config)
    (folder / RUN_FILE).unlink(missing_ok=True)
    heads = {"shared_head": shared_head, "fused_head": fused_head, "joint_head": joint_head}
    modules = {**{f"encoders.{name}": encoder for name, encoder in encoders.items()}, **heads}
    weights = {
        f"{prefix}.{key}": value.contiguous()
        for prefix, module in modules.items()
        if module is not None
        for key, value in _state(module)
    }
    write_atomically(folder / WEIGHTS_FILE, safetensors.torch.save(weights))
    rows = {f"rows.{name}": np.ascontiguousarray(array) for name, array in samples.items()}
    logits = {f"logits.{name}": _logits(encoder, rows[f"rows.{name}"]) for name, encoder in encoders.items()}
    write_atomically(folder / SAMPLES_FILE, safetensors.numpy.save({**rows, **logits, "labels": sample_labels}))
    write_metrics(folder, metrics)
    write_epochs(folder, epochs)
    record = _RunRecord(labels=tuple(labels), quality_report=dict(quality_report), training=dict(training))
    write_atomically(folder / RUN_FILE, record.model_dump_json(indent=2).encode())


def write_metrics(folder: Path, metrics: Mapping[str, Any]) -> None:
    """Write ``metrics.json``: metrics of validation and test."""
    write_atomically(folder / METRICS_JSON, json.dumps(metrics, indent=2).encode())


def write_epochs(folder: Path, epochs: Sequence[Mapping[str, Any]]) -> None:
    """Write ``metrics.csv``; columns that an epoch lacks stay empty."""
    columns = list(dict.fromkeys(key for epoch in epochs for key in epoch))
    with (folder / METRICS_CSV).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(epochs)


def load_run(folder: StrPath) -> TrainedRun:
    """Read a finished run.

    Raises SetupError naming what is missing or does not fit, including encoders that give other logits for the samples
    than when the run was written; ConfigurationError for a bad config.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise SetupError(f"there is no run directory {folder}")
    if not (folder / RUN_FILE).is_file():
        started = (folder / CONFIG_FILE).is_file()
        way_out = "; finish it with `dimml train … --resume`" if started else ""
        raise SetupError(f"{folder} is not a finished training run: {RUN_FILE} is missing{way_out}")
    config = read_config(folder)
    try:
        record = _RunRecord.model_validate_json((folder / RUN_FILE).read_bytes())
        metrics = json.loads((folder / METRICS_JSON).read_bytes())
        weights = safetensors.torch.load_file(folder / WEIGHTS_FILE)
        samples = safetensors.numpy.load_file(folder / SAMPLES_FILE)
    except (OSError, ValueError, ValidationError, SafetensorError) as error:
        raise SetupError(f"the run in {folder} is damaged: {' '.join(str(error).split())}") from error
    fusion, parameters, report = read_fusion(folder) or (config.fusion or PAPER, FusionParameters(), {})
    accuracy = read_accuracy_estimate(folder)
    classes = len(record.labels)
    encoders: dict[str, nn.Module] = {
        m.input.name: build_encoder(m.input, m.encoder, classes, weights=False) for m in config.modalities
    }
    heads = _fresh_heads(config, classes, fused_head="fused_head.weight" in weights)
    if config.fused_head and "fused_head" not in heads:
        # An estimate of answers with the fused head is of other answers.
        accuracy = None if fusion.fused_head else accuracy
        fusion = without_fused_head(fusion)
    try:
        for name, encoder in encoders.items():
            encoder.load_state_dict(_within(weights, f"encoders.{name}."))
        for name, head in heads.items():
            head.load_state_dict(_within(weights, f"{name}."))
        rows = {name: samples[f"rows.{name}"] for name in encoders}
        sample_labels = samples["labels"]
    except (RuntimeError, KeyError) as error:
        raise SetupError(f"the run in {folder} is damaged: {WEIGHTS_FILE} or {SAMPLES_FILE} does not fit") from error
    for module in (*encoders.values(), *heads.values()):
        module.eval().requires_grad_(False)
    noted = {name: samples.get(f"logits.{name}") for name in encoders}
    for name, logits_NC in noted.items():
        if logits_NC is not None and not _alike(_logits(encoders[name], rows[name]), logits_NC):
            raise SetupError(
                f"the run in {folder} does not load as it was trained: its {name} encoder says other things of the "
                f"run's sample clips than it did then. The encoder's code has changed since (trained with dimml "
                f"{record.training.get('versions', {}).get('dimml', 'unknown')}): use the code it was trained with, or "
                "train it anew"
            )
    return TrainedRun(
        name=config.name,
        labels=record.labels,
        clip_s=config.clip_s,
        modalities=config.inputs,
        encoders=encoders,
        shared_head=cast("nn.Linear | None", heads.get("shared_head")),
        fused_head=cast("nn.Linear | None", heads.get("fused_head")),
        joint_head=cast("JointHead | None", heads.get("joint_head")),
        fusion=fusion,
        fusion_parameters=parameters,
        fusion_report=report,
        quality=config.quality,
        quality_report=record.quality_report,
        samples=rows,
        sample_labels=sample_labels.astype(np.int64),
        verified=all(logits_NC is not None for logits_NC in noted.values()),
        metrics=metrics,
        training=record.training,
        config=config,
        decoder_version=read_decoder_version(folder),
        accuracy_estimate=accuracy,
    )


def _fresh_heads(config: TrainConfig, classes: int, *, fused_head: bool) -> dict[str, nn.Module]:
    """Build the heads that a run of this config has in addition to the encoders' own, untrained.

    ``fused_head`` says whether the run has one: without any clip that has every modality, none was trained.
    """
    widths = [m.encoder.width for m in config.modalities]
    if config.stage1.objective == "joint":
        joint = config.stage1.joint
        return {"joint_head": build_joint_head(joint.fusion, widths, classes, flags=joint.presence_flag)}
    heads: dict[str, nn.Module] = {"shared_head": nn.Linear(widths[0], classes)}
    if config.fused_head and fused_head:
        heads["fused_head"] = nn.Linear(sum(widths), classes)
    return heads


@torch.no_grad()
def _logits(encoder: nn.Module, rows: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Logits ``[N, C]`` of an encoder's own head for rows ``[N, *shape]``."""
    _, logits_NC = encoder.eval()(torch.from_numpy(rows))
    return np.ascontiguousarray(logits_NC.float().numpy())


def _alike(ours_NC: npt.NDArray[np.float32], noted_NC: npt.NDArray[np.float32]) -> bool:
    if ours_NC.shape != noted_NC.shape:
        return False
    largest = float(np.abs(noted_NC).max(initial=1.0, where=np.isfinite(noted_NC)))
    return np.allclose(ours_NC, noted_NC, rtol=0.0, atol=LOGITS_TOLERANCE * largest, equal_nan=True)


def _state(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [(key, value.detach().cpu()) for key, value in module.state_dict().items()]


def _within(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
