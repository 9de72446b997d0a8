"""Sections ``stage1`` and ``stage2``: how the encoders and the fused head are trained."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from dimml_training.config.base import Section, Share


class OptimiserConfig(Section):
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


class JointConfig(Section):
    """Joint training, the rivals; the constants are those of the methods' own code."""

    fusion: Literal["concat", "sum", "film", "gated"] = Field(
        default="concat", description="How the joint head makes one answer of all features."
    )
    modulation: Literal["none", "ogm_ge", "mmpareto"] = Field(
        default="none", description="What balances the encoders' gradients."
    )
    ogm_alpha: float = Field(default=0.8, gt=0.0, description="How hard ogm_ge slows the modality that is ahead.")
    ogm_share: Share = Field(default=0.5, description="Share of the epochs, from the first, that ogm_ge acts in.")
    pareto_gamma: float = Field(default=1.5, gt=0.0, description="What mmpareto scales its gradients by.")

    @model_validator(mode="after")
    def _separable(self) -> Self:
        if self.modulation == "ogm_ge" and self.fusion not in ("concat", "sum"):
            raise ValueError(
                f"modulation ogm_ge splits the joint logits among modalities, which fusion {self.fusion} does not "
                "allow; take concat or sum"
            )
        return self


class Stage1Config(Section):
    """Training of the encoders (docs/adr/0001); the defaults are the paper's."""

    objective: Literal["detached", "joint"] = Field(
        default="detached", description="'detached': the paper's; 'joint': one loss on one joint head, for comparison."
    )
    epochs: int = Field(default=150, ge=1, description="Passes over the training clips.")
    batch_size: int = Field(default=16, ge=2, description="Clips in a step; DUC compares them with one another.")
    warmup_epochs: int = Field(default=20, ge=0, description="Epochs before dimension separation; DUC starts after.")
    separation: bool = Field(default=True, description="If false, DUC runs on all dimensions, for comparison.")
    separation_every: int | None = Field(
        default=None, ge=1, description="Separate anew each time so many epochs have passed; by default once."
    )
    lambda_shared: float = Field(default=1.0, ge=0.0, description="Weight of the shared head's cross entropy.")
    lambda_duc: float = Field(default=1.0, ge=0.0, description="Weight of DUC.")
    duc_temperature: float = Field(default=50.0, gt=0.0, description="Divides the dot products in DUC.")
    joint: JointConfig = Field(default=JointConfig(), description="Of objective 'joint'.")
    optimiser: OptimiserConfig = Field(default=OptimiserConfig(), description="Step rule and schedule.")


class Stage2Config(Section):
    """The head on the concatenated features, on frozen encoders; the defaults are the paper's."""

    epochs: int = Field(default=20, ge=1, description="Passes over the training clips.")
    batch_size: int = Field(default=16, ge=1, description="Clips in a step.")
    optimiser: OptimiserConfig = Field(default=OptimiserConfig(), description="Step rule and schedule.")
