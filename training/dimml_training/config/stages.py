"""Sections ``stage1`` and ``stage2``: training of the encoders and of the fused head."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from dimml_training.config.base import Section, Share


class OptimiserConfig(Section):
    """Optimiser and learning rate schedule; the defaults are the paper's."""

    kind: Literal["sgd", "adamw"] = Field(default="sgd", description="Optimiser.")
    lr: float = Field(default=1e-3, gt=0.0, description="Initial learning rate.")
    momentum: float = Field(default=0.9, ge=0.0, lt=1.0, description="Of sgd.")
    weight_decay: float = Field(
        default=1e-4, ge=0.0, description="Weight decay: in the gradient with sgd, decoupled with adamw."
    )
    schedule: Literal["step", "cosine", "constant"] = Field(
        default="step",
        description="'step': lr x 0.1 from step_epoch on; 'cosine': to zero over all epochs; 'constant': lr.",
    )
    step_epoch: int = Field(default=70, ge=1, description="Epoch of the drop in schedule 'step', counted from 0.")
    warmup_epochs: int = Field(
        default=0,
        ge=0,
        description="First epochs, in which lr rises in equal steps; 'cosine' falls over the epochs after them.",
    )
    clip_norm: float | None = Field(
        default=None, gt=0.0, description="Longest gradient of all weights together; a longer one is scaled down to it."
    )


class LossConfig(Section):
    """The cross entropies of both stages; DUC and the metrics are not affected."""

    class_weights: Literal["balanced"] | dict[str, Annotated[float, Field(gt=0.0)]] | None = Field(
        default=None,
        description="'balanced': clips over (classes x clips of the class), each head on its own training clips; or a "
        "weight by label, 1 for the others.",
    )
    label_smoothing: float = Field(
        default=0.0, ge=0.0, lt=1.0, description="Share of the target that is spread evenly over all classes."
    )


class JointConfig(Section):
    """Joint training, for the methods compared with; default constants are those of the methods' published code."""

    fusion: Literal["concat", "sum", "film", "gated"] = Field(
        default="concat", description="How the joint head combines the features of all modalities."
    )
    modulation: Literal["none", "ogm_ge", "mmpareto"] = Field(
        default="none", description="Method that balances the encoders' gradients."
    )
    ogm_alpha: float = Field(default=0.8, gt=0.0, description="How strongly ogm_ge slows the leading modality.")
    ogm_share: Share = Field(default=0.5, description="Share of the epochs, from the first, in which ogm_ge is active.")
    pareto_gamma: float = Field(default=1.5, gt=0.0, description="Factor by which mmpareto scales its gradients.")
    presence_flag: bool = Field(
        default=False,
        description="Whether the joint head has a learned flag for each modality that is present; an absent one's "
        "features are zeros in any case.",
    )
    modality_dropout: float = Field(
        default=0.0,
        ge=0.0,
        lt=1.0,
        description="Probability with which the joint head is shown a clip without a modality in training; one stays.",
    )

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
        default="detached",
        description="'detached': the paper's method; 'joint': one loss on one joint head, for comparison.",
    )
    epochs: int = Field(default=150, ge=1, description="Passes over the training clips.")
    batch_size: int = Field(default=16, ge=2, description="Clips in a step; DUC compares them with one another.")
    warmup_epochs: int = Field(default=20, ge=0, description="Epochs before dimension separation; DUC starts after.")
    separation: bool = Field(default=True, description="If false, DUC runs on all dimensions, for comparison.")
    separation_every: int | None = Field(
        default=None, ge=1, description="Epochs between two separations; by default the separation is done once."
    )
    lambda_shared: float = Field(default=1.0, ge=0.0, description="Weight of the shared head's cross entropy.")
    lambda_duc: float = Field(default=1.0, ge=0.0, description="Weight of DUC.")
    duc_temperature: float = Field(default=50.0, gt=0.0, description="Divides the dot products in DUC.")
    joint: JointConfig = Field(default=JointConfig(), description="Settings of objective 'joint'.")
    optimiser: OptimiserConfig = Field(default=OptimiserConfig(), description="Optimiser and schedule.")
    accumulate: int = Field(
        default=1, ge=1, description="Batches whose gradients make one step; each batch has its own DUC and statistics."
    )
    patience: int | None = Field(
        default=None, ge=1, description="End after so many epochs without a better one; by default all epochs are run."
    )
    ema: float | None = Field(
        default=None,
        gt=0.0,
        lt=1.0,
        description="Decay of a moving average of weights and batch statistics, which is then validated and kept.",
    )
    ramp_epochs: int = Field(
        default=0,
        ge=0,
        description="First epochs, in which the severity of augmentation rises in equal steps; probabilities do not.",
    )
    mixup: float = Field(
        default=0.0, ge=0.0, description="Mix each clip with another by a share from Beta(mixup, mixup); 0: do not."
    )
    outliers: Share = Field(
        default=0.0,
        description="Share of each modality's rows replaced by noise and random fields, to be answered evenly.",
    )
    consistency: float = Field(
        default=0.0,
        ge=0.0,
        description="Weight of the divergence between answers to clean rows and to rows mixed with corrupted ones.",
    )
    start_from: str | None = Field(
        default=None,
        description="Run directory of a finished training whose weights this one starts from; paths as in "
        "data.manifest.",
    )


class Stage2Config(Section):
    """Training of the fused head, a head on the concatenated features of frozen encoders; defaults are the paper's."""

    epochs: int = Field(default=20, ge=1, description="Passes over the training clips.")
    batch_size: int = Field(default=16, ge=1, description="Clips in a step.")
    optimiser: OptimiserConfig = Field(default=OptimiserConfig(), description="Optimiser and schedule.")
