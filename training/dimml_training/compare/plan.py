"""From a config and methods to the trainings that are needed, each once, and the cells that come of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dimml.errors import ConfigurationError
from dimml.fusion import FusionSpec
from dimml.media.decoders.version import DECODER_VERSION
from dimml_training.compare.methods import Method
from dimml_training.config import TrainConfig, with_fields
from dimml_training.config.certainty import CertaintyConfig
from dimml_training.config.compare import CompareConfig
from dimml_training.data.prepare import PreparedData

#: Change nothing of what is trained: where things are, what they are called, and what is chosen afterwards.
BESIDE_TRAINING = ("name", "threads", "logging", "fusion", "certainty", "compare")
PATHS = ("manifest", "media_root")


#: What a method trains unless it says otherwise, whatever the config trains by itself.
UNLESS_SAID = {"stage1.objective": "detached", "stage1.joint.modulation": "none"}


@dataclass(frozen=True)
class Repeat:
    """One seed or fold: its place in the order, the fields it sets, and the config and data that come of it."""

    index: int
    fields: dict[str, Any]
    config: TrainConfig
    data: PreparedData


@dataclass(frozen=True)
class Job:
    """One training and the methods that are scored on it."""

    key: str
    config: TrainConfig
    repeat: Repeat
    methods: tuple[Method, ...]

    @property
    def title(self) -> str:
        """How progress names it."""
        return f"repeat {self.repeat.index}, {', '.join(method.name for method in self.methods)}"


def repeats(config: TrainConfig, count: int | None, prepare: Callable[[TrainConfig], PreparedData]) -> list[Repeat]:
    """The repeats of the config, or seeds 0, 1, 2…; ``count`` takes the first ones. Same data are prepared once."""
    prepared: dict[str, PreparedData] = {}
    found = []
    for index, fields in enumerate(repeated_fields(config, count)):
        of_repeat = with_fields(config, fields, f"compare.repeats.{index}")
        parts = of_repeat.model_dump(mode="json", include={"data", "modalities", "clip_s", "quality"})
        data_key = digest(parts)
        if data_key not in prepared:
            prepared[data_key] = prepare(of_repeat)
        found.append(Repeat(index, dict(fields), of_repeat, prepared[data_key]))
    return found


def repeated_fields(config: TrainConfig, count: int | None = None) -> tuple[dict[str, Any], ...]:
    """What every repeat sets. Raises ConfigurationError where the config lists fewer than ``count``."""
    listed = config.compare.repeats
    if listed is None:
        return tuple({"seed": seed} for seed in range(3 if count is None else count))
    if count is not None and count > len(listed):
        raise ConfigurationError(f"--seeds {count}: the config's compare.repeats lists {len(listed)}", field="--seeds")
    return listed[:count]


def jobs(methods: Sequence[Method], wanted: Sequence[Repeat]) -> list[Job]:
    """Repeat by repeat, so that every method has its first cell before any has its second."""
    found = []
    for repeat in wanted:
        by_key: dict[str, tuple[TrainConfig, list[Method]]] = {}
        for method in methods:
            config = training_config(repeat.config, method)
            by_key.setdefault(training_key(config, repeat.data.digest), (config, []))[1].append(method)
        found += [Job(key, config, repeat, tuple(of_key)) for key, (config, of_key) in by_key.items()]
    return found


def training_config(config: TrainConfig, method: Method) -> TrainConfig:
    """The config that a method is trained with.

    A fixed fusion: what weights the heads is settled later, from the same encodings for every answer.
    """
    of_method = with_fields(config, {**UNLESS_SAID, **method.training}, f"method {method.name}")
    settled = {"fusion": FusionSpec(fused_head=True), "certainty": CertaintyConfig(), "compare": CompareConfig()}
    return of_method.model_copy(update=settled)


def training_key(config: TrainConfig, data_digest: str, decoder_version: int = DECODER_VERSION) -> str:
    """Sixteen hex digits: the same ones are the same training, on rows of the same decoder.

    Of the fields that differ from their defaults, so that a field that is new in dimml keeps finished trainings.
    A model given by name has the same key before its architecture is written out and after.
    """
    document = config.model_dump(mode="json", exclude_defaults=True)
    for name in BESIDE_TRAINING:
        document.pop(name, None)
    for name in PATHS:
        document["data"].pop(name, None)
    if config.stage1.objective == "detached":
        document.get("stage1", {}).pop("joint", None)
    for modality in document["modalities"]:
        backbone = modality.get("encoder", {}).get("backbone", {})
        if "name" in backbone:
            for resolved in ("model_type", "config"):
                backbone.pop(resolved, None)
    # Keys of trainings before there was a version are those of version 1.
    decoder = [] if decoder_version == 1 else [{"decoder_version": decoder_version}]
    return digest([document, data_digest, *decoder])


def digest(document: Any) -> str:
    """Sixteen hex digits of anything JSON-able."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]
