"""Options of the fusion (docs/adr/0003, 0004)."""

from __future__ import annotations

from typing import Final, Literal, cast

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

#: Computed from a head's logits alone.
StaticCertainty = Literal["max_prob", "neg_entropy", "margin"]
Certainty = Literal["max_prob", "neg_entropy", "margin", "reliability", "cross_reliability"]
#: Learned on validation clips: the estimated probability that a head is right.
LEARNED: Final[tuple[Certainty, ...]] = ("reliability", "cross_reliability")
Pooling = Literal["logits", "log_probabilities", "probabilities", "product"]


class FusionSpec(BaseModel):
    """How the heads' logits become one answer; the defaults are the paper's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    certainty: Certainty = Field(
        default="max_prob",
        description="How sure a head is: 'max_prob' (the paper's), 'neg_entropy', 'margin', 'reliability', the "
        "learned estimate of the probability that this head is right here, or 'cross_reliability', the same with the "
        "other heads in view.",
    )
    temperature: float | None = Field(
        default=1.0,
        gt=0.0,
        allow_inf_nan=False,
        description="T in w = softmax(c / T): lower trusts certainty more; null gives every head the same weight.",
    )
    fused_head: bool = Field(description="Whether a head on the concatenated features votes too.")
    pooling: Pooling = Field(
        default="logits",
        description="What is weighted: 'logits' as they are (the paper's), 'log_probabilities', 'probabilities', or "
        "'product': probabilities mixed with the uniform ones by 1 - c, then multiplied.",
    )
    head_temperatures: tuple[float, ...] | None = Field(
        default=None,
        description="Calibration, one per head: divides its logits before probabilities and certainty are taken.",
    )
    answer_temperature: float = Field(
        default=1.0, gt=0.0, allow_inf_nan=False, description="Calibration of the answer: divides the pooled logits."
    )

    @property
    def learned(self) -> bool:
        """Whether certainty is learned, and needs features and parameters."""
        return self.certainty in LEARNED

    @property
    def static_certainty(self) -> StaticCertainty:
        """The certainty measure; only to be asked for where it is not learned."""
        return cast("StaticCertainty", self.certainty)

    @model_validator(mode="after")
    def _fits(self) -> FusionSpec:
        for value in self.head_temperatures or ():
            if not 0.0 < value < float("inf"):
                raise ValueError(f"head_temperatures must be above 0 and finite, got {value:g}")
        return self
