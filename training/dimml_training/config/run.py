"""The whole config, and the checks across its sections."""

from __future__ import annotations

from pydantic import Field, model_validator

from dimml.bundle import RESERVED_MODALITY_NAMES
from dimml.fusion import FusionSpec
from dimml.modality import Modality, Name
from dimml.signal_check import QualityThresholds
from dimml_training.config.base import Section
from dimml_training.config.certainty import CertaintyConfig
from dimml_training.config.compare import CompareConfig
from dimml_training.config.compute import ComputeConfig
from dimml_training.config.data import DataConfig
from dimml_training.config.logging import LoggingConfig
from dimml_training.config.modality import ModalityConfig
from dimml_training.config.stages import LossConfig, Stage1Config, Stage2Config
from dimml_training.models.config import EncoderConfig


class TrainConfig(Section):
    """Complete configuration of one training run."""

    name: Name = Field(description="Name of the run and of the bundle exported from it.")
    seed: int = Field(default=0, ge=0, description="Seed of weights, order and noise; a run on a CPU is reproducible.")
    clip_s: float = Field(
        default=1.0,
        gt=0.0,
        description="Seconds of media in one clip; may be left out only if every modality is a single picture.",
    )
    data: DataConfig = Field(description="Where the labelled clips are.")
    modalities: tuple[ModalityConfig, ...] = Field(
        min_length=1, description="Input, encoder and augmentation of each modality, in the order of the heads."
    )
    stage1: Stage1Config = Field(default=Stage1Config(), description="Training of the detached encoders.")
    stage2: Stage2Config = Field(default=Stage2Config(), description="Training of the fused head.")
    loss: LossConfig = Field(default=LossConfig(), description="Class weights and smoothing of the cross entropies.")
    fusion: FusionSpec | None = Field(
        default=None, description="How the heads' votes are combined; by default chosen on validation clips."
    )
    certainty: CertaintyConfig = Field(
        default=CertaintyConfig(), description="How the fusion is chosen, and from which candidates; see certainty.md."
    )
    quality: QualityThresholds = Field(
        default=QualityThresholds(), description="Thresholds below which a modality carries no signal."
    )
    compare: CompareConfig = Field(
        default=CompareConfig(), description="Settings of `dimml compare`; see comparing.md."
    )
    compute: ComputeConfig = Field(default=ComputeConfig(), description="Device, precision and compilation of stage 1.")
    logging: LoggingConfig = Field(default=LoggingConfig(), description="Loggers for the metrics of every epoch.")
    threads: int | None = Field(default=None, ge=1, description="CPU threads of torch; by default one per core.")

    @model_validator(mode="after")
    def _consistent(self) -> TrainConfig:
        if self.fusion is not None and self.fusion.learned:
            raise ValueError(
                f"fusion.certainty: {self.fusion.certainty} is learned where the fusion is chosen; leave `fusion` out "
                f"and set certainty.certainties to [{self.fusion.certainty}]"
            )
        if self.fusion is not None and self.fusion.head_temperatures is not None:
            heads = len(self.modalities) + self.fusion.fused_head
            if len(self.fusion.head_temperatures) != heads:
                raise ValueError(
                    f"fusion.head_temperatures must have one entry for each of {heads} heads (the modalities"
                    f"{' and the fused one' if self.fusion.fused_head else ''}), "
                    f"got {len(self.fusion.head_temperatures)}"
                )
        names = [m.input.name for m in self.modalities]
        tensors = [m.input.tensor for m in self.modalities]
        for what, values in (("names", names), ("tensor names", tensors)):
            if len(set(values)) != len(values):
                raise ValueError(f"modalities: {what} must be unique, got {values}")
        if RESERVED_MODALITY_NAMES & set(names):
            raise ValueError(f"modalities: the name {sorted(RESERVED_MODALITY_NAMES & set(names))[0]!r} is reserved")
        if isinstance(self.data.columns.media, dict) and set(self.data.columns.media) != set(names):
            raise ValueError(f"data.columns.media must name a column for each of {names}, no more and no fewer")
        if "clip_s" not in self.model_fields_set:
            timed = [m.input.name for m in self.modalities if m.input.covers_time]
            if timed:
                raise ValueError(f"clip_s is needed: {', '.join(timed)} cover a span of time")
        for index, modality in enumerate(self.modalities):
            if modality.input.sampling is not None:
                samples, rate_hz = modality.input.sampling
                wanted = round(self.clip_s * rate_hz)
                if abs(samples - wanted) > 1:
                    raise ValueError(
                        f"modalities.{index}.input.samples must be clip_s x sample_rate_hz = {wanted}, "
                        f"got {samples}: every modality covers the same span of time"
                    )
        widths = {m.input.name: m.encoder.width for m in self.modalities}
        if len(set(widths.values())) > 1:
            raise ValueError(
                f"modalities: the shared head needs features of one width, got {widths}; give every encoder "
                "the same `features`, or every backbone.hidden_sizes the same last entry"
            )
        joint = self.stage1.objective == "joint"
        if joint and self.stage1.joint.modulation == "mmpareto" and self.compute.compile:
            raise ValueError(
                "stage1.joint.modulation: mmpareto takes two gradients of one batch, which compiled encoders do not "
                "give; set compute.compile: false"
            )
        if joint and self.stage1.joint.modulation == "mmpareto" and self.compute.precision == "16-mixed":
            raise ValueError(
                "stage1.joint.modulation: mmpareto compares gradients, which 16-mixed scales up; set "
                "compute.precision: bf16-mixed or 32-true"
            )
        if joint and self.stage1.joint.modulation != "none" and self.stage1.accumulate > 1:
            raise ValueError(
                f"stage1.accumulate: {self.stage1.joint.modulation} balances the gradients of one batch; leave it at 1"
            )
        if self.stage1.optimiser.clip_norm is not None and self.compute.precision == "16-mixed":
            raise ValueError(
                "stage1.optimiser.clip_norm measures gradients, which 16-mixed scales up within the optimiser; set "
                "compute.precision: bf16-mixed or 32-true"
            )
        for stage in ("stage1", "stage2"):
            of_stage = getattr(self, stage)
            if of_stage.optimiser.warmup_epochs >= of_stage.epochs:
                raise ValueError(f"{stage}.optimiser.warmup_epochs must be below {stage}.epochs")
        duc = not joint and self.stage1.lambda_duc > 0.0 and len(names) > 1
        if duc and self.stage1.warmup_epochs >= self.stage1.epochs:
            raise ValueError(
                "stage1.warmup_epochs must be below stage1.epochs, or DUC never starts; set lambda_duc: 0 to go without"
            )
        return self

    @property
    def inputs(self) -> tuple[Modality, ...]:
        """The modalities, in the order of heads and PRESENT."""
        return tuple(m.input for m in self.modalities)

    @property
    def fused_head(self) -> bool:
        """Whether stage 2 trains a fused head: if it may vote, or if a candidate fusion uses it."""
        detached = self.stage1.objective == "detached"
        return detached and (True in self.certainty.fused_head if self.fusion is None else self.fusion.fused_head)

    @property
    def encoders(self) -> dict[str, EncoderConfig]:
        """Encoder config by modality name."""
        return {m.input.name: m.encoder for m in self.modalities}
