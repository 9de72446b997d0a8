"""Classes that the encoders were not trained on, recognised by one of two scores for each pattern of modalities.

*Mahalanobis*: the distance of a modality's features to the nearest class mean, with one covariance for all classes (Lee
et al. 2018, "A simple unified framework for detecting out-of-distribution samples and adversarial attacks", arXiv
1807.03888), standardised by known clips; the mean over the modalities that are ok. *Max-softmax*: one minus the
answer's probability (Hendrycks and Gimpel 2017, arXiv 1610.02136). The threshold is a quantile of the scores of known
clips: at most the named share of answers to known classes is taken for unknown, on average over recordings like those
clips. How many unknown ones are found is not promised. Shape suffixes: B rows, C classes, D features.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import cached_property
from math import sqrt
from typing import Annotated, Any, ClassVar, Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from dimml.fusion import FloatArray

#: Widest features: the manifest holds a square of them for each modality.
MOST_FEATURES: Final = 512
_FLOAT32: Final = np.dtype("<f4")

#: What two engines may differ by in a probability, since they add in another order.
ROUNDING: Final = 1e-6

Share = Annotated[Decimal, Field(gt=0, lt=1)]
#: What tells an unknown class: how far features lie from those of known ones, or how unsure the answer is.
Score = Literal["mahalanobis", "max_softmax"]


class Matrix(BaseModel):
    """A matrix of single precision, as base64 of its rows in little-endian order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int = Field(ge=1)
    columns: int = Field(ge=1)
    data: str

    @model_validator(mode="after")
    def _whole(self) -> Matrix:
        try:
            found = len(base64.b64decode(self.data, validate=True))
        except ValueError as error:
            raise ValueError("data is not base64") from error
        if found != self.rows * self.columns * _FLOAT32.itemsize:
            raise ValueError(f"data holds {found} bytes, not those of {self.rows} x {self.columns} numbers")
        if not np.isfinite(self.array).all():
            raise ValueError("data holds NaN or infinity")
        return self

    @classmethod
    def of(cls, array: npt.NDArray[Any]) -> Matrix:
        """Write an array ``[rows, columns]``."""
        rows, columns = array.shape
        data = base64.b64encode(np.ascontiguousarray(array, _FLOAT32).tobytes()).decode()
        return cls(rows=rows, columns=columns, data=data)

    @cached_property
    def array(self) -> FloatArray:
        """The array ``[rows, columns]``."""
        return np.frombuffer(base64.b64decode(self.data), _FLOAT32).reshape(self.rows, self.columns)


class KnownFeatures(BaseModel):
    """Where the features of the known classes lie, of one modality."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    whitening: Matrix = Field(description="[D, D]: features times this have the identity for a covariance.")
    means: Matrix = Field(description="[C, D]: whitened class means.")
    centre: float = Field(allow_inf_nan=False, description="Mean distance of known clips.")
    spread: float = Field(gt=0.0, allow_inf_nan=False, description="Its standard deviation.")

    @model_validator(mode="after")
    def _fits(self) -> KnownFeatures:
        if not self.whitening.rows == self.whitening.columns == self.means.columns:
            raise ValueError("whitening must be a square as wide as the class means")
        return self

    def standardised(self, features_BD: FloatArray) -> npt.NDArray[np.float64]:
        """Distance to the nearest class mean, ``[B]``, in standard deviations above that of known clips."""
        return np.array(self.standardised_list(features_BD))

    def standardised_list(self, features_BD: FloatArray) -> list[float]:
        """``standardised`` as B numbers of Python: of one row, as most requests have, the cheaper form."""
        centre, spread = self.centre, self.spread
        return [(sqrt(max(squared, 0.0)) - centre) / spread for squared in self._squared_distances(features_BD)]

    @cached_property
    def _centred(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Mean of the class means ``[D]``, twice what they differ from it by ``[D, C]``, squares of that ``[C]``."""
        means_CD = self.means.array.astype(np.float64)
        middle_D = means_CD.mean(axis=0)
        apart_CD = means_CD - middle_D
        double_DC = np.ascontiguousarray(2.0 * apart_CD.T, np.float32)
        return middle_D.astype(np.float32), double_DC, np.square(apart_CD).sum(axis=1).astype(np.float32)

    def _squared_distances(self, features_BD: FloatArray) -> list[float]:
        """``nearest_mean`` as |x|^2 + min_c(|m_c|^2 - 2 x m_c), which makes no ``[B, C, D]``.

        Around the middle of the means, so that small distances are no differences of large numbers.
        """
        middle_D, double_DC, squares_C = self._centred
        x_BD = features_BD @ self.whitening.array
        x_BD -= middle_D
        apart_BC = x_BD @ double_DC
        squared_B = np.minimum.reduce(np.subtract(squares_C, apart_BC, out=apart_BC), axis=1)
        squared_B += (x_BD[:, None] @ x_BD[:, :, None])[:, 0, 0]
        found: list[float] = squared_B.tolist()
        return found


class UnknownThreshold(BaseModel):
    """Score above which an answer from exactly these modalities is of an unknown class."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    HISTORIC_DEFAULTS: ClassVar[Mapping[str, Any]] = {"score": "mahalanobis"}

    modalities: tuple[str, ...] = Field(min_length=1)
    clips: int = Field(ge=1)
    threshold: float = Field(allow_inf_nan=False)
    score: Score = "mahalanobis"


class UnknownClass(BaseModel):
    """How answers to recordings of a class that no encoder knows are recognised."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["mahalanobis"] = Field(default="mahalanobis", description="Score of features.")
    false_alarms: Share = Field(description="Largest share of answers to known classes that is taken for unknown.")
    modalities: dict[str, KnownFeatures] = Field(
        description="Those of which some pattern is scored by features; others may be missing."
    )
    patterns: tuple[UnknownThreshold, ...] = Field(min_length=1, description="One for every set of modalities.")

    @model_validator(mode="after")
    def _scored(self) -> UnknownClass:
        for of in self.patterns:
            if of.score == "mahalanobis" and (
                lacking := [name for name in of.modalities if name not in self.modalities]
            ):
                raise ValueError(f"{' and '.join(of.modalities)} are scored by features, and {lacking[0]} has none")
        return self

    @cached_property
    def thresholds(self) -> dict[tuple[str, ...], UnknownThreshold]:
        """Thresholds by the modalities that are ok, in the bundle's order."""
        return {pattern.modalities: pattern for pattern in self.patterns}

    def unknown(
        self,
        features: Mapping[str, FloatArray],
        patterns: Sequence[tuple[str, ...]],
        probabilities_BC: npt.NDArray[Any],
    ) -> list[bool]:
        """Return which of B rows are of an unknown class.

        ``features`` are ``[B, D]`` by modality, ``patterns`` the modalities that are ok in each row; a row without any
        is no answer, and not of an unknown class. ``probabilities_BC`` are the answers'.
        """
        # Most often all rows have one pattern: then nothing is copied, and nothing put back in its place.
        if len(patterns) == 1 or len(set(patterns)) == 1:
            return self._of_pattern(patterns[0], features, probabilities_BC)
        unknown = [False] * len(patterns)
        for pattern in dict.fromkeys(patterns):
            rows = [row for row, own in enumerate(patterns) if own == pattern]
            own_features = {name: features[name][rows] for name in pattern}
            for row, new in zip(rows, self._of_pattern(pattern, own_features, probabilities_BC[rows]), strict=True):
                unknown[row] = new
        return unknown

    def _of_pattern(
        self, pattern: tuple[str, ...], features: Mapping[str, FloatArray], probabilities_BC: npt.NDArray[Any]
    ) -> list[bool]:
        """Return ``unknown`` of rows that all have one pattern."""
        of = self.thresholds.get(pattern)
        if of is None:
            return [False] * len(probabilities_BC)
        if of.score == "mahalanobis":
            of_each = [self.modalities[name].standardised_list(features[name]) for name in pattern]
            return [sum(scores) / len(pattern) > of.threshold for scores in zip(*of_each, strict=True)]
        # Engines add in another order: what is as near to the threshold as that is known.
        return [score > of.threshold + ROUNDING for score in unsureness(probabilities_BC).tolist()]


def unsureness(probabilities_BC: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """One minus the probability of the most probable label, ``[B]``."""
    return np.asarray(1.0 - probabilities_BC.max(axis=1).astype(np.float64))


def nearest_mean(
    features_BD: FloatArray, whitening_DD: FloatArray, whitened_means_CD: FloatArray
) -> npt.NDArray[np.float64]:
    """Mahalanobis distance ``[B]`` of features to the nearest class mean."""
    whitened_BD = features_BD @ whitening_DD
    steps_BCD = whitened_BD[:, None] - whitened_means_CD
    return np.asarray(np.sqrt(np.einsum("bcd,bcd->bc", steps_BCD, steps_BCD, dtype=np.float64).min(axis=1)))
