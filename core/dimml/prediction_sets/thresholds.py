"""Prediction sets by split conformal prediction: thresholds, in a bundle's manifest, and the sets that they give.

The score of a clip is 1 - p(true label), of the answer's calibrated probabilities. With the ceil((n + 1) c)-th
smallest score of n calibration clips for a threshold, the set of all labels with 1 - p at most the threshold holds the
true label of a new, exchangeable clip with probability at least c ("LAC": Sadinle, Lei and Wasserman 2019, "Least
ambiguous set-valued classifiers with bounded error levels"). The probability is over calibration clips and new clips
together: it is marginal, not per class or recording. There is one threshold for each pattern of modalities present
(Mondrian conformal prediction: Vovk, Gammerman and Shafer 2005, "Algorithmic learning in a random world", section 4.5).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from functools import cached_property
from typing import Annotated, Any, Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from dimml.errors import ConfigurationError, DataError
from dimml.fusion import BoolArray
from dimml.modality import patterns_of
from dimml.prediction_sets.unknown import ROUNDING, UnknownClass

#: Most modalities with prediction sets: the number of patterns doubles with each.
MOST_MODALITIES: Final = 8

Coverage = Annotated[Decimal, Field(gt=0, lt=1)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class PatternThreshold(BaseModel):
    """Threshold for answers in which exactly these modalities are ok."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    modalities: tuple[str, ...] = Field(min_length=1, description="In the bundle's order.")
    clips: int = Field(ge=1, description="Calibration clips, n.")
    rank: int = Field(ge=1, description="Which of their scores is the threshold, counted from the smallest.")
    threshold: float = Field(ge=0.0, le=1.0, description="Labels with 1 - probability up to this are in the set.")

    @model_validator(mode="after")
    def _ranked(self) -> PatternThreshold:
        if self.rank > self.clips:
            raise ValueError(f"rank is {self.rank} of {self.clips} clips")
        return self


class PredictionSets(BaseModel):
    """Thresholds of a bundle's prediction sets, and when its answers abstain."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["lac"] = "lac"
    coverage: Coverage = Field(description="Promised share of answers whose set holds the true label, such as 0.9.")
    patterns: tuple[PatternThreshold, ...] = Field(min_length=1, description="One for every set of modalities.")
    folds: int = Field(
        ge=0,
        description="Parts of the clips, each scored by a fusion fitted on the others; 0 where none was fitted.",
    )
    abstain_below: Share | None = Field(
        default=None, description="Answers less probable abstain, unless the request gives its own limit."
    )
    max_set_size: int | None = Field(
        default=None, ge=1, description="Answers with a larger set abstain, unless the request gives its own limit."
    )

    unknown: UnknownClass | None = Field(
        default=None, description="How answers to classes that no encoder knows are recognised; None: they are not."
    )

    @model_validator(mode="after")
    def _unique(self) -> PredictionSets:
        names = [frozenset(pattern.modalities) for pattern in self.patterns]
        if len(set(names)) != len(names):
            raise ValueError("a pattern of modalities has two thresholds")
        return self

    def summary(self) -> dict[str, float | int | None]:
        """Return what a server says of the sets: the promised coverage, the limits of abstention, unknown classes."""
        return {
            "coverage": float(self.coverage),
            "abstain_below": self.abstain_below,
            "max_set_size": self.max_set_size,
            "false_alarms": None if self.unknown is None else float(self.unknown.false_alarms),
        }

    @cached_property
    def thresholds(self) -> dict[tuple[str, ...], float]:
        """Thresholds by the modalities that are ok, in the bundle's order."""
        return {pattern.modalities: pattern.threshold for pattern in self.patterns}

    def check_modalities(self, widths: Mapping[str, int], classes: int) -> None:
        """Raise ValueError unless there is a threshold for every non-empty set of modalities, and for no other one.

        ``widths`` are the modalities' features, D, which those of unknown classes must fit.
        """
        modalities = list(widths)
        there = {pattern.modalities for pattern in self.patterns}
        complete = there if self.unknown is None else there & {of.modalities for of in self.unknown.patterns}
        for pattern in patterns_of(modalities):
            if pattern not in complete:
                raise ValueError(f"no threshold for answers from {' and '.join(pattern)}")
        if self.unknown is not None:
            sizes = {name: (of.means.columns, of.means.rows) for name, of in self.unknown.modalities.items()}
            if sizes != {name: (widths.get(name), classes) for name in sizes}:
                raise ValueError(f"unknown: features and classes are {sizes}, the encoders' {dict(widths)}, {classes}")
        if others := sorted(name for pattern in there for name in pattern if name not in modalities):
            raise ValueError(f"a threshold names {others[0]!r}, the modalities are {modalities}")


def parse_share(text: str, field: str, example: str) -> Decimal:
    """Read a share such as ``0.9`` exactly. Raises ConfigurationError unless it is above 0 and below 1."""
    try:
        share = Decimal(text)
    except InvalidOperation:
        share = Decimal("NaN")
    if not (share.is_finite() and 0 < share < 1):
        option = field.replace("_", "-")
        raise ConfigurationError(
            f"--{option} must be above 0 and below 1, such as {example}; got {text!r}", field=field
        )
    return share


def conformal_rank(clips: int, coverage: Decimal) -> int:
    """Return ceil((n + 1) c), which exceeds n where n clips are too few for the coverage c.

    In rational numbers: of 99 clips and 0.55 it is 55, while ``ceil(100 * 0.55)`` of floats is 56.
    """
    share = Fraction(coverage)
    return -(-(clips + 1) * share.numerator // share.denominator)


def fewest_clips(coverage: Decimal) -> int:
    """Return the least n with ceil((n + 1) c) <= n, which is ceil(c / (1 - c))."""
    share = Fraction(coverage)
    odds = share / (1 - share)
    return -(-odds.numerator // odds.denominator)


def pattern_threshold(
    modalities: Sequence[str], scores_N: npt.NDArray[np.float64], coverage: Decimal
) -> PatternThreshold:
    """Compute the threshold of one pattern from the scores 1 - p(true label) of its N clips.

    Raises DataError where they are too few for the coverage.
    """
    clips = len(scores_N)
    rank = conformal_rank(clips, coverage)
    if rank > clips:
        raise DataError(
            f"a coverage of {coverage} needs {fewest_clips(coverage)} calibration clips with "
            f"{' and '.join(modalities)}, and there are {clips}: give the validation split more, or ask for a lower "
            "coverage",
            field="coverage",
        )
    threshold = float(np.partition(scores_N, rank - 1)[rank - 1])
    return PatternThreshold(modalities=tuple(modalities), clips=clips, rank=rank, threshold=threshold)


def scores_of(probabilities_NC: npt.NDArray[Any], labels_N: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return 1 - p(true label) of N answers, in double precision."""
    true_N = np.take_along_axis(probabilities_NC.astype(np.float64), labels_N[:, None], axis=1)[:, 0]
    # A sum in single precision may exceed 1 by a rounding error.
    return np.asarray(np.clip(1.0 - true_N, 0.0, 1.0))


def in_set(probabilities_BC: npt.NDArray[Any], thresholds_B: npt.NDArray[np.float64]) -> BoolArray:
    """Return which labels are in the sets of B answers, ``[B, C]``; each holds at least the most probable label.

    Labels within ``ROUNDING`` of the threshold are in the set, so that all engines give the same one; it only ever
    makes a set larger.
    """
    scores_BC = np.subtract(1.0, probabilities_BC, dtype=np.float64)
    found_BC: BoolArray = scores_BC <= (thresholds_B + ROUNDING)[:, None]
    for row, top in enumerate(probabilities_BC.argmax(axis=1).tolist()):
        found_BC[row, top] = True
    return found_BC
