"""Section ``compare.rivals``: what the rivals of a comparison may try on validation clips, each its own settings.

A post-hoc rival fits its part of the fusion to the rows that ours chooses a fusion on, damaged clips among them, on
the same frozen encoders, once per setting, and takes the setting that is best on clips and families left out of the
fit. The first of equals is taken.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dimml_training.config.base import Section

RivalKind = Literal["qmf", "pdf", "tmc", "ecml", "mla", "stacker"]
Dropout = Annotated[float, Field(gt=0.0, lt=1.0)]


class TunedHeads(Section):
    """Heads that are tuned by a rival's loss: the trained heads' logits, scaled, and a linear map of the features."""

    pull: float = Field(
        default=0.1,
        ge=0.0,
        description="Weight of the squared length of that map: higher stays closer to the trained heads.",
    )


class QmfSetting(TunedHeads):
    """A setting of `qmf`."""

    rank: float = Field(default=0.1, ge=0.0, description="Weight of the loss that ranks energies by the mean loss.")


class PdfSetting(TunedHeads):
    """A setting of `pdf`."""

    hidden: int = Field(default=64, ge=1, description="Hidden units of the network that predicts confidence.")


class TmcSetting(TunedHeads):
    """A setting of `tmc`."""

    annealing: float = Field(
        default=0.5, gt=0.0, le=1.0, description="Share of the steps in which the weight of the divergence rises to 1."
    )


class EcmlSetting(TmcSetting):
    """A setting of `ecml`."""

    conflict: float = Field(default=1.0, ge=0.0, description="Weight of the loss on conflict between modalities.")


class MlaSetting(TunedHeads):
    """A setting of `mla`."""

    temperature: float = Field(default=1.0, gt=0.0, description="Divides the entropies; the paper's is 1.")


class StackerSetting(Section):
    """A setting of `stacker`."""

    l2: float = Field(default=0.01, ge=0.0, description="Weight of half the squared length of all weights.")


RivalSetting = QmfSetting | PdfSetting | TmcSetting | EcmlSetting | MlaSetting | StackerSetting


class RivalsConfig(Section):
    """Settings that the rivals choose among on validation clips."""

    qmf: tuple[QmfSetting, ...] = Field(
        default=(QmfSetting(pull=1.0), QmfSetting(pull=0.1), QmfSetting(pull=0.01, rank=1.0)),
        min_length=1,
        description="Settings of QMF.",
    )
    pdf: tuple[PdfSetting, ...] = Field(
        default=(PdfSetting(pull=1.0), PdfSetting(pull=0.1), PdfSetting(pull=0.01, hidden=16)),
        min_length=1,
        description="Settings of PDF.",
    )
    tmc: tuple[TmcSetting, ...] = Field(
        default=(TmcSetting(pull=1.0), TmcSetting(pull=0.1), TmcSetting(pull=0.01, annealing=1.0)),
        min_length=1,
        description="Settings of TMC.",
    )
    ecml: tuple[EcmlSetting, ...] = Field(
        default=(EcmlSetting(pull=1.0), EcmlSetting(pull=0.1), EcmlSetting(pull=0.1, conflict=0.1)),
        min_length=1,
        description="Settings of ECML.",
    )
    mla: tuple[MlaSetting, ...] = Field(
        default=(MlaSetting(pull=1.0), MlaSetting(pull=0.1), MlaSetting(pull=1.0, temperature=0.3)),
        min_length=1,
        description="Settings of MLA's weighting.",
    )
    stacker: tuple[StackerSetting, ...] = Field(
        default=(StackerSetting(l2=0.1), StackerSetting(l2=0.01), StackerSetting(l2=0.001)),
        min_length=1,
        description="Settings of the logistic stacker.",
    )
    fused_head: tuple[bool, ...] = Field(
        default=(False, True),
        min_length=1,
        description="Whether these try each setting without the fused head, with it as one more head, or both.",
    )
    steps: int = Field(default=300, ge=1, description="Steps of each fit, of 256 rows each.")
    modality_dropout: tuple[Dropout, ...] = Field(
        default=(0.15, 0.3, 0.5),
        min_length=1,
        description="Values of stage1.joint.modality_dropout that the joint methods with dropout try, each a training "
        "on the first repeat.",
    )
