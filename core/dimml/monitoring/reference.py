"""Reference of a bundle on clean validation clips: every head's certainty, the answers, and how sure they are.

Export writes it into the manifest; a server compares its traffic with it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, model_validator

from dimml.metrics.buckets import UNIT_BUCKETS


class Reference(BaseModel):
    """Histograms over clean validation clips."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    HISTORIC_DEFAULTS: ClassVar[Mapping[str, Any]] = {"answer_probability": {}}

    certainty_bounds: tuple[float, ...] = Field(
        default=UNIT_BUCKETS, min_length=2, description="Upper bounds of the bins of certainty, ascending."
    )
    certainty: dict[str, tuple[NonNegativeInt, ...]] = Field(
        default_factory=dict,
        description="By head, clips by certainty, of those in which its modality is ok; a head may be left out.",
    )
    labels: tuple[NonNegativeInt, ...] = Field(description="Clips by what the bundle answers, in the order of labels.")
    answer_probability: dict[str, Annotated[float, Field(gt=0.0, le=1.0)]] = Field(
        default_factory=dict,
        description="Mean probability of the answers by the modalities present, joined by +, the others left out of "
        "the same clips. A pattern of too few clips is missing, and all in bundles of an earlier export. Estimated "
        "accuracy is compared with it where the manifest has no estimate of the pattern.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Reference:
        if any(low >= high for low, high in pairwise(self.certainty_bounds)):
            raise ValueError(f"certainty_bounds must ascend, got {self.certainty_bounds}")
        for head, counts in self.certainty.items():
            if len(counts) != len(self.certainty_bounds):
                raise ValueError(f"certainty of {head} has {len(counts)} bins, not {len(self.certainty_bounds)}")
            if not any(counts):
                raise ValueError(f"certainty of {head} counts no clip")
        if not any(self.labels):
            raise ValueError("labels counts no clip")
        return self

    def certainty_bin(self, certainty: float) -> int:
        """Return the bin of a certainty; bounds are inclusive, as in a Prometheus histogram."""
        return min(bisect_left(self.certainty_bounds, certainty), len(self.certainty_bounds) - 1)


def reference_of(
    heads: Sequence[str],
    certainty_NH: npt.NDArray[Any] | None,
    present_NH: npt.NDArray[np.bool_],
    probabilities_NC: npt.NDArray[Any],
    answer_probability: Mapping[str, float] | None = None,
) -> Reference | None:
    """Build the reference of N answered clips; None for N = 0.

    ``heads`` name the columns of certainty and presence; without ``certainty_NH`` only the answers are counted, and a
    head that is never present is left out. ``answer_probability`` is taken as it is.
    """
    answered_N = present_NH.any(axis=1)
    if not answered_N.any():
        return None
    certainty: Mapping[str, tuple[int, ...]] = {}
    if certainty_NH is not None:
        certainty = {
            head: _counts(_bins(certainty_NH[present_NH[:, h], h], UNIT_BUCKETS), len(UNIT_BUCKETS))
            for h, head in enumerate(heads)
            if present_NH[:, h].any()
        }
    classes = probabilities_NC.shape[1]
    answers_N = probabilities_NC[answered_N].argmax(axis=1)
    return Reference(
        certainty=dict(certainty),
        labels=_counts(answers_N, classes),
        answer_probability=dict(answer_probability or {}),
    )


def _bins(values_N: npt.NDArray[Any], bounds: Sequence[float]) -> npt.NDArray[np.int64]:
    # A certainty beyond the last bound is a rounding error.
    return np.minimum(np.searchsorted(bounds, values_N, side="left"), len(bounds) - 1)


def _counts(bins_N: npt.NDArray[np.int64], bins: int) -> tuple[int, ...]:
    return tuple(int(count) for count in np.bincount(bins_N, minlength=bins))
