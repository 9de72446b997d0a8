"""What ``dimml train`` is told: one YAML file, typed, frozen, checked when it is read.

Paths stay in the config as they were written, ``${DIMML_DATA:-../shared/data}`` and all, and are expanded where
they are used: a run directory moved to another machine evaluates there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from dimml.bundle import RESERVED_MODALITY_NAMES, FusionSpec
from dimml.errors import ConfigurationError
from dimml.modality import Flow, Frames, Modality, Name, Waveform
from dimml.quality import QualityThresholds
from dimml_training.models import EncoderConfig, PictureEncoderConfig, SoundEncoderConfig

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Range = tuple[float, float]


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ColumnsConfig(_Config):
    """Names of the manifest's columns."""

    media: str | dict[str, str] = Field(
        default="media", description="One column for a recording with every track, or one column per modality name."
    )
    label: str = Field(default="label", description="The class.")
    split: str = Field(default="split", description="Which split the clip is in; see data.splits.")
    subject: str | None = Field(default=None, description="Who or what was recorded, for the check of overlaps.")
    start_s: str | None = Field(default=None, description="Start of the clip in the recording, seconds.")
    end_s: str | None = Field(default=None, description="End of the clip in the recording, seconds.")

    @model_validator(mode="after")
    def _range_is_whole(self) -> ColumnsConfig:
        if (self.start_s is None) != (self.end_s is None):
            raise ValueError("start_s and end_s come together")
        return self


class DataConfig(_Config):
    """Where the labelled clips are."""

    manifest: str = Field(description="CSV or Parquet file; ${VAR:-default} is expanded, relative to where you stand.")
    media_root: str | None = Field(
        default=None, description="Folder that media paths are relative to; by default the manifest's folder."
    )
    columns: ColumnsConfig = Field(default=ColumnsConfig(), description="What the manifest's columns are called.")
    margin_s: float = Field(default=0.0, ge=0.0, description="Added before start_s and after end_s.")
    splits: dict[Split, str] = Field(
        default={split: split for split in SPLITS}, description="What the manifest calls train, validation and test."
    )
    labels: tuple[str, ...] | None = Field(
        default=None, min_length=2, description="Classes in output order; by default those of the train split, sorted."
    )
    split_by: Literal["subject"] | None = Field(
        default=None, description="'subject': a subject in two splits is an error; otherwise it is a warning."
    )

    @model_validator(mode="after")
    def _fits(self) -> DataConfig:
        if set(self.splits) != set(SPLITS) or len(set(self.splits.values())) != len(SPLITS):
            raise ValueError("splits must give train, validation and test a name each, all different")
        if self.split_by == "subject" and self.columns.subject is None:
            raise ValueError("split_by: subject needs columns.subject")
        repeated = sorted({label for label in self.labels or () if (self.labels or ()).count(label) > 1})
        if repeated:
            raise ValueError(f"labels must be unique; more than once: {', '.join(repeated)}")
        if self.margin_s > 0.0 and self.columns.start_s is None:
            raise ValueError("margin_s needs columns.start_s and columns.end_s")
        return self


class SoundAugmentConfig(_Config):
    """What is done to a training clip's sound. Everything is off by default."""

    gain_db: float = Field(default=0.0, ge=0.0, description="Loudness is changed by up to ± this.")
    shift_ms: float = Field(default=0.0, ge=0.0, description="Moved in time by up to ± this, zeros move in.")
    noise_probability: Share = Field(default=0.0, description="Share of clips that get white noise.")
    noise_snr_db: Range = Field(default=(0.0, 20.0), description="Of that noise, lowest and highest.")
    babble_probability: Share = Field(default=0.0, description="Share of clips that get another clip of the batch.")
    babble_snr_db: Range = Field(default=(0.0, 20.0), description="Of that other clip, lowest and highest.")

    @model_validator(mode="after")
    def _ranges_rise(self) -> SoundAugmentConfig:
        for name in ("noise_snr_db", "babble_snr_db"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} must go from the lowest to the highest value, got {low:g} to {high:g}")
        return self


class PictureAugmentConfig(_Config):
    """What is done to a training clip's pictures, the same in all of its frames. Everything is off by default."""

    shift: float = Field(default=0.0, ge=0.0, le=0.5, description="Moved by up to ± this share of height and width.")
    shift_frames: int = Field(default=0, ge=0, description="Moved in time by up to ± this many frames.")
    flip: bool = Field(default=False, description="Half of the clips are mirrored left to right.")
    brightness: float = Field(default=0.0, ge=0.0, le=255.0, description="Changed by up to ± this, in units of 0..255.")
    contrast: float = Field(default=0.0, ge=0.0, lt=1.0, description="Scaled by up to 1 ± this about the mean.")
    noise_std: float = Field(default=0.0, ge=0.0, description="Highest deviation of pixel noise, in units of 0..255.")
    erase_probability: Share = Field(default=0.0, description="Share of clips with a grey rectangle over them.")
    erase_share: float = Field(default=0.5, gt=0.0, le=1.0, description="Longest side of it, of the picture's.")


class SoundModalityConfig(_Config):
    """A ``waveform`` modality."""

    input: Waveform
    encoder: SoundEncoderConfig = SoundEncoderConfig()
    augment: SoundAugmentConfig = SoundAugmentConfig()


class PictureModalityConfig(_Config):
    """A ``frames`` or ``flow`` modality."""

    input: Annotated[Frames | Flow, Field(discriminator="kind")]
    encoder: PictureEncoderConfig = PictureEncoderConfig()
    augment: PictureAugmentConfig = PictureAugmentConfig()

    @model_validator(mode="after")
    def _flow_stays_flow(self) -> PictureModalityConfig:
        if isinstance(self.input, Flow):
            touched = [n for n in ("flip", "brightness", "contrast") if getattr(self.augment, n)]
            if touched:
                raise ValueError(f"augment.{touched[0]} applies to frames: it would change what a flow means")
            if self.encoder.grey:
                raise ValueError("encoder.grey applies to frames, not to flow")
        return self


def _sound_or_picture(value: Any) -> str | None:
    given = value.get("input") if isinstance(value, Mapping) else getattr(value, "input", None)
    kind = given.get("kind") if isinstance(given, Mapping) else getattr(given, "kind", None)
    return {"waveform": "sound", "frames": "picture", "flow": "picture"}.get(str(kind))


ModalityConfig = Annotated[
    Annotated[SoundModalityConfig, Tag("sound")] | Annotated[PictureModalityConfig, Tag("picture")],
    Discriminator(
        _sound_or_picture,
        custom_error_type="modality_kind",
        custom_error_message="input.kind must be 'waveform', 'frames' or 'flow'",
    ),
]


class OptimiserConfig(_Config):
    """Step rule and schedule; the defaults are the paper's."""

    kind: Literal["sgd", "adamw"] = Field(default="sgd", description="Step rule.")
    lr: float = Field(default=1e-3, gt=0.0, description="Learning rate at the start.")
    momentum: float = Field(default=0.9, ge=0.0, lt=1.0, description="Of sgd.")
    weight_decay: float = Field(default=1e-4, ge=0.0, description="Of sgd in the gradient, of adamw decoupled.")
    schedule: Literal["step", "cosine", "constant"] = Field(
        default="step",
        description="'step': lr x 0.1 from step_epoch on; 'cosine': to zero over all epochs; 'constant': lr.",
    )
    step_epoch: int = Field(default=70, ge=1, description="Of schedule 'step'; epochs count from 0.")


class Stage1Config(_Config):
    """Detached encoders (design, section 5); the defaults are the paper's."""

    epochs: int = Field(default=150, ge=1, description="Passes over the training clips.")
    batch_size: int = Field(default=16, ge=2, description="Clips in a step; DUC compares them with one another.")
    warmup_epochs: int = Field(default=20, ge=0, description="Epochs before dimension separation; DUC starts after.")
    lambda_shared: float = Field(default=1.0, ge=0.0, description="Weight of the shared head's cross entropy.")
    lambda_duc: float = Field(default=1.0, ge=0.0, description="Weight of DUC.")
    duc_temperature: float = Field(default=50.0, gt=0.0, description="Divides the dot products in DUC.")
    optimiser: OptimiserConfig = Field(default=OptimiserConfig(), description="Step rule and schedule.")


class Stage2Config(_Config):
    """The head on the concatenated features, on frozen encoders; the defaults are the paper's."""

    epochs: int = Field(default=20, ge=1, description="Passes over the training clips.")
    batch_size: int = Field(default=16, ge=1, description="Clips in a step.")
    optimiser: OptimiserConfig = Field(default=OptimiserConfig(), description="Step rule and schedule.")


class TrainConfig(_Config):
    """All that one training run is made from."""

    name: Name = Field(description="Name of the run and of the bundle exported from it.")
    seed: int = Field(default=0, ge=0, description="Of weights, order and noise; a CPU run repeats exactly.")
    clip_s: float = Field(gt=0.0, description="Seconds of media that one clip covers.")
    data: DataConfig = Field(description="Where the labelled clips are.")
    modalities: tuple[ModalityConfig, ...] = Field(
        min_length=1, description="Each an input, an encoder and an augment, in the order of the heads."
    )
    stage1: Stage1Config = Field(default=Stage1Config(), description="Training of the detached encoders.")
    stage2: Stage2Config = Field(default=Stage2Config(), description="Training of the fused head.")
    fusion: FusionSpec = Field(default=FusionSpec(fused_head=True), description="How the heads' votes are weighted.")
    quality: QualityThresholds = Field(
        default=QualityThresholds(), description="Below these a clip's modality carries no signal."
    )
    threads: int | None = Field(default=None, ge=1, description="CPU threads of torch; by default one per core.")

    @model_validator(mode="after")
    def _consistent(self) -> TrainConfig:
        names = [m.input.name for m in self.modalities]
        tensors = [m.input.tensor for m in self.modalities]
        for what, values in (("names", names), ("tensor names", tensors)):
            if len(set(values)) != len(values):
                raise ValueError(f"modalities: {what} must be unique, got {values}")
        if RESERVED_MODALITY_NAMES & set(names):
            raise ValueError(f"modalities: the name {sorted(RESERVED_MODALITY_NAMES & set(names))[0]!r} is reserved")
        if isinstance(self.data.columns.media, dict) and set(self.data.columns.media) != set(names):
            raise ValueError(f"data.columns.media must name a column for each of {names}, no more and no fewer")
        for index, modality in enumerate(self.modalities):
            if isinstance(modality.input, Waveform):
                wanted = round(self.clip_s * modality.input.sample_rate_hz)
                if abs(modality.input.samples - wanted) > 1:
                    raise ValueError(
                        f"modalities.{index}.input.samples must be clip_s x sample_rate_hz = {wanted}, "
                        f"got {modality.input.samples}: every modality covers the same stretch of time"
                    )
        widths = {m.input.name: m.encoder.backbone.hidden_sizes[-1] for m in self.modalities}
        if len(set(widths.values())) > 1:
            raise ValueError(
                f"modalities: the shared head needs features of one width, got {widths}; give every encoder's "
                "backbone.hidden_sizes the same last entry"
            )
        if self.stage1.lambda_duc > 0.0 and len(names) > 1 and self.stage1.warmup_epochs >= self.stage1.epochs:
            raise ValueError(
                "stage1.warmup_epochs must be below stage1.epochs, or DUC never starts; set lambda_duc: 0 to go without"
            )
        return self

    @property
    def inputs(self) -> tuple[Modality, ...]:
        """The modalities, in the order of heads and PRESENT."""
        return tuple(m.input for m in self.modalities)

    @property
    def encoders(self) -> dict[str, EncoderConfig]:
        """Encoder config by modality name."""
        return {m.input.name: m.encoder for m in self.modalities}


def expand_path(text: str) -> Path:
    """A config's path with ``~``, ``$VAR``, ``${VAR}`` and ``${VAR:-default}`` filled in, made absolute.

    Raises ConfigurationError naming a variable that is not set and has no default.
    """

    def value(match: re.Match[str]) -> str:
        name = match["name"] or match["bare"]
        found = os.environ.get(name) or match["default"]
        if found is None:
            raise ConfigurationError(f"{text}: the environment variable {name} is not set", field=name)
        return found

    pattern = r"\$\{(?P<name>\w+)(?::-(?P<default>[^}]*))?\}|\$(?P<bare>\w+)"
    return Path(re.sub(pattern, value, text)).expanduser().resolve()


def load_config(path: Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a YAML config and apply ``key.sub=value`` overrides (values are YAML; list items by index).

    Raises ConfigurationError that names the file and the field.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict):
        raise ConfigurationError(f"{path} must hold a mapping of fields")
    for override in overrides:
        _override(document, override)
    return parse_config(document, str(path))


def parse_config(document: Any, source: str) -> TrainConfig:
    """Validate a config. Raises ConfigurationError that names ``source`` and every field at fault."""
    try:
        return TrainConfig.model_validate(document)
    except ValidationError as error:
        found = error.errors(include_url=False)
        # A list with a bad item is also called too short; that would only lead astray.
        inner = {e["loc"][:depth] for e in found for depth in range(len(e["loc"]))}
        faults = [
            f"{'.'.join(str(part) for part in e['loc']) or 'the whole'}: {e['msg'].removeprefix('Value error, ')}"
            for e in found
            if not (e["type"] == "too_short" and e["loc"] in inner)
        ]
        raise ConfigurationError(f"{source}: " + "; ".join(faults), field=faults[0].split(":")[0]) from error


def _override(document: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigurationError(f"--set {override}: write it as key=value, for example stage1.epochs=10")
    *parents, last = key.split(".")
    here: Any = document
    try:
        for part in parents:
            here = here[int(part)] if isinstance(here, list) else here.setdefault(part, {})
        here[int(last) if isinstance(here, list) else last] = yaml.safe_load(text)
    except (ValueError, IndexError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"--set {override}: there is no such place in the config", field=key) from error
