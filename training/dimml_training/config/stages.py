"""Sections ``stage1`` and ``stage2``: how the encoders and the fused head are trained."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dimml_training.config.base import Section


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


class Stage1Config(Section):
    """Detached encoders (design, section 5); the defaults are the paper's."""

    epochs: int = Field(default=150, ge=1, description="Passes over the training clips.")
    batch_size: int = Field(default=16, ge=2, description="Clips in a step; DUC compares them with one another.")
    warmup_epochs: int = Field(default=20, ge=0, description="Epochs before dimension separation; DUC starts after.")
    lambda_shared: float = Field(default=1.0, ge=0.0, description="Weight of the shared head's cross entropy.")
    lambda_duc: float = Field(default=1.0, ge=0.0, description="Weight of DUC.")
    duc_temperature: float = Field(default=50.0, gt=0.0, description="Divides the dot products in DUC.")
    optimiser: OptimiserConfig = Field(default=OptimiserConfig(), description="Step rule and schedule.")


class Stage2Config(Section):
    """The head on the concatenated features, on frozen encoders; the defaults are the paper's."""

    epochs: int = Field(default=20, ge=1, description="Passes over the training clips.")
    batch_size: int = Field(default=16, ge=1, description="Clips in a step.")
    optimiser: OptimiserConfig = Field(default=OptimiserConfig(), description="Step rule and schedule.")
