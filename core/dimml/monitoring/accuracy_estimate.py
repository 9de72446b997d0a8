"""Chance that an answer is right, learned from validation answers, clean and damaged: what estimated accuracy averages.

An answer's own probability is calibrated on clean clips and is too high where a head is damaged. The estimate is a
logistic regression on what the server sees of an answer anyway: its probability, the heads' certainties and whether
each votes for it, and how far the heads disagree. One for each pattern of modalities present. It changes no answer:
only the mean that is published as estimated accuracy (docs/monitoring.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from math import exp, log
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dimml.modality import patterns_of

#: Probabilities are clipped to this and one minus this before their log-odds are taken.
LEAST_PROBABILITY: Final = 1e-4
_LARGEST_LOGIT: Final = 30.0


class CertaintyWeight(BaseModel):
    """Weight of a head's certainty, by whether its vote is the answer. Both are the same of the fused head."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    agrees: float = Field(allow_inf_nan=False)
    differs: float = Field(allow_inf_nan=False)


class PatternEstimate(BaseModel):
    """The estimate for answers in which exactly these modalities are ok."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    modalities: tuple[str, ...] = Field(min_length=1, description="In the bundle's order.")
    clips: int = Field(ge=1, description="Validation clips that it was learned from.")
    clean: float = Field(gt=0.0, lt=1.0, description="Mean estimate on clean ones, each by a fit without the clip.")
    bias: float = Field(allow_inf_nan=False)
    log_odds: float = Field(allow_inf_nan=False, description="Weight of ln(p / (1 - p)) of the answer's probability.")
    certainty: dict[str, CertaintyWeight] = Field(min_length=1, description="By head that votes.")
    disagreement: float = Field(
        default=0.0, allow_inf_nan=False, description="Weight of the heads' disagreement; 0 with one modality."
    )

    def chance(
        self,
        probability: float,
        certainty: Mapping[str, float],
        agrees: Mapping[str, bool],
        disagreement: float | None,
    ) -> float:
        """Estimate the chance that an answer of this probability is right.

        ``certainty`` is by head that voted, ``agrees`` says of the modalities' own heads whether their vote is the
        answer, ``disagreement`` is None with one modality.
        """
        p = min(max(probability, LEAST_PROBABILITY), 1.0 - LEAST_PROBABILITY)
        logit = self.bias + self.log_odds * log(p / (1.0 - p)) + self.disagreement * (disagreement or 0.0)
        for head, (agreeing, differing) in self._weights:
            logit += certainty[head] * (agreeing if agrees.get(head, True) else differing)
        return 1.0 / (1.0 + exp(-min(max(logit, -_LARGEST_LOGIT), _LARGEST_LOGIT)))

    @cached_property
    def _weights(self) -> tuple[tuple[str, tuple[float, float]], ...]:
        return tuple((head, (weight.agrees, weight.differs)) for head, weight in self.certainty.items())


class AccuracyEstimate(BaseModel):
    """Estimates by pattern of modalities present; a pattern without one is estimated by the answers' probability."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    patterns: tuple[PatternEstimate, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _unique(self) -> AccuracyEstimate:
        if len(self.by_modalities) != len(self.patterns):
            raise ValueError("a pattern of modalities has two estimates")
        return self

    @cached_property
    def by_modalities(self) -> dict[tuple[str, ...], PatternEstimate]:
        """Estimates by the modalities that are ok, in the bundle's order."""
        return {of.modalities: of for of in self.patterns}

    def check_heads(self, modalities: Sequence[str], fused_head: str | None) -> None:
        """Raise ValueError unless the patterns are of these modalities, and each names just the heads that vote then.

        ``fused_head`` is the name of the head that votes where all modalities are ok, if there is one.
        """
        known = list(patterns_of(modalities))
        for of in self.patterns:
            if of.modalities not in known:
                raise ValueError(f"accuracy_estimate names {' and '.join(of.modalities)}, the modalities: {modalities}")
            voting = {*of.modalities, *((fused_head,) if fused_head and len(of.modalities) == len(modalities) else ())}
            if voting != of.certainty.keys():
                raise ValueError(
                    f"accuracy_estimate of {' and '.join(of.modalities)} weighs {sorted(of.certainty)}, the heads that "
                    f"vote are {sorted(voting)}"
                )
