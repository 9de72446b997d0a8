"""Planning a comparison: the repeats of a config, and the trainings that its methods need, each once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dimml.errors import ConfigurationError, DataError
from dimml.fusion import FusionSpec
from dimml.media.decoders.version import DECODER_VERSION
from dimml_training.compare.methods import Method
from dimml_training.config import TrainConfig, with_fields
from dimml_training.config.certainty import CertaintyConfig
from dimml_training.config.compare import CompareConfig
from dimml_training.data.prepare import PreparedData
from dimml_training.run.starting import weights_sha256

#: Fields that do not affect what is trained: names, loggers, threads, and what is chosen after training.
BESIDE_TRAINING = ("name", "threads", "logging", "fusion", "certainty", "compare")
#: Fields of ``data`` that do not affect it either.
PATHS = ("manifest", "media_root")


#: Fields of a method's training that hold unless the method sets them, whatever the config says.
METHOD_DEFAULTS = {"stage1.objective": "detached", "stage1.joint.modulation": "none"}


@dataclass(frozen=True)
class Repeat:
    """One seed or fold: its index, the fields it sets, and the resulting config and data."""

    index: int
    fields: dict[str, Any]
    config: TrainConfig
    data: PreparedData


@dataclass(frozen=True)
class TrainingJob:
    """One training and the methods that are scored on it."""

    key: str
    config: TrainConfig
    repeat: Repeat
    methods: tuple[Method, ...]

    @property
    def title(self) -> str:
        """Title in progress lines."""
        return f"repeat {self.repeat.index}, {', '.join(method.name for method in self.methods)}"


def repeats(config: TrainConfig, count: int | None, prepare: Callable[[TrainConfig], PreparedData]) -> list[Repeat]:
    """Prepare the first ``count`` repeats of the config, or seeds 0, 1, 2…; equal data are prepared only once."""
    prepared: dict[str, PreparedData] = {}
    found = []
    for index, fields in enumerate(repeated_fields(config, count)):
        of_repeat = with_fields(config, fields, f"compare.repeats.{index}")
        parts = of_repeat.model_dump(mode="json", include={"data", "modalities", "clip_s", "quality"})
        data_key = digest(parts)
        if data_key not in prepared:
            prepared[data_key] = prepare(of_repeat)
            _all_whole(prepared[data_key], of_repeat)
        found.append(Repeat(index, dict(fields), of_repeat, prepared[data_key]))
    return found


def _all_whole(data: PreparedData, config: TrainConfig) -> None:
    """Check that every clip has every modality; raises DataError if not."""
    lacking = {split: int((~found.rows.whole()).sum()) for split, found in data.splits.items() if found.rows.present}
    if lacking:
        counts = ", ".join(f"{count} {split}" for split, count in lacking.items())
        raise DataError(
            f"{config.data.manifest}: some clips lack a modality ({counts}). A comparison scores every method, single "
            "modalities included, on the same clips: give it a table of clips that have all",
            field="data.manifest",
        )


def repeated_fields(config: TrainConfig, count: int | None = None) -> tuple[dict[str, Any], ...]:
    """Fields that each repeat sets. Raises ConfigurationError if the config lists fewer than ``count`` repeats."""
    listed = config.compare.repeats
    if listed is None:
        return tuple({"seed": seed} for seed in range(3 if count is None else count))
    if count is not None and count > len(listed):
        raise ConfigurationError(f"--seeds {count}: the config's compare.repeats lists {len(listed)}", field="--seeds")
    return listed[:count]


def training_jobs(methods: Sequence[Method], wanted: Sequence[Repeat]) -> list[TrainingJob]:
    """List the trainings repeat by repeat, so that every method has its first cell before any has its second."""
    found = []
    for repeat in wanted:
        by_key: dict[str, tuple[TrainConfig, list[Method]]] = {}
        for method in methods:
            config = training_config(repeat.config, method)
            by_key.setdefault(training_key(config, repeat.data.digest), (config, []))[1].append(method)
        found += [TrainingJob(key, config, repeat, tuple(of_key)) for key, (config, of_key) in by_key.items()]
    return found


def training_config(config: TrainConfig, method: Method) -> TrainConfig:
    """Config with which a method is trained.

    Its fusion is fixed, since the heads are combined later, from the same encodings for every answer.
    """
    of_method = with_fields(config, {**METHOD_DEFAULTS, **method.training}, f"method {method.name}")
    settled = {"fusion": FusionSpec(fused_head=True), "certainty": CertaintyConfig(), "compare": CompareConfig()}
    return of_method.model_copy(update=settled)


def training_key(
    config: TrainConfig, data_digest: str, decoder_version: int = DECODER_VERSION, *, started_from: str | None = None
) -> str:
    """Key of a training, sixteen hex digits; equal keys mean the same training on rows of the same decoder.

    Only fields that differ from their defaults count, so that a new field in dimml does not invalidate finished
    trainings. A model given by name has the same key before and after its architecture is written out.
    ``started_from`` is the SHA-256 of the weights of ``stage1.start_from``, where the run that has them is not at hand.
    """
    document = config.model_dump(mode="json", exclude_defaults=True)
    for name in BESIDE_TRAINING:
        document.pop(name, None)
    for name in PATHS:
        document["data"].pop(name, None)
    if config.stage1.objective == "detached":
        document.get("stage1", {}).pop("joint", None)
    if config.stage1.lambda_duc == 0:
        # There is nothing to separate dimensions for.
        for name in ("separation", "separation_every"):
            document.get("stage1", {}).pop(name, None)
    if config.stage1.start_from is not None:
        # What it starts from, wherever that lies.
        document["stage1"]["start_from"] = weights_sha256(config.stage1.start_from) or started_from
    for modality in document["modalities"]:
        backbone = modality.get("encoder", {}).get("backbone", {})
        if "name" in backbone:
            for resolved in ("model_type", "config"):
                backbone.pop(resolved, None)
    # Keys of trainings before there was a version are those of version 1.
    decoder = [] if decoder_version == 1 else [{"decoder_version": decoder_version}]
    return digest([document, data_digest, *decoder])


def digest(document: Any) -> str:
    """Digest of anything JSON-able, sixteen hex digits."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]
