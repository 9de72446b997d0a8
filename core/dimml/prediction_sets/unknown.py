"""Classes that the encoders were not trained on, recognised by features that lie far from those of every known class.

The distance of a modality's features to the nearest class mean, with one covariance for all classes (Lee et al. 2018,
"A simple unified framework for detecting out-of-distribution samples and adversarial attacks", arXiv 1807.03888), is
standardised by known clips; the score of an answer is the mean over the modalities that are ok. Its threshold is a
quantile of the scores of known clips, one for each pattern of modalities: at most the named share of answers to known
classes is taken for unknown, on average over recordings like those clips. How many unknown ones are found is not
promised. Shape suffixes: B rows, C classes, D features.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import cached_property
from typing import Annotated, Any, Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from dimml.fusion import FloatArray

#: Widest features: the manifest holds a square of them for each modality.
MOST_FEATURES: Final = 512
_FLOAT32: Final = np.dtype("<f4")

Share = Annotated[Decimal, Field(gt=0, lt=1)]


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
        return (nearest_mean(features_BD, self.whitening.array, self.means.array) - self.centre) / self.spread


class UnknownThreshold(BaseModel):
    """Score above which an answer from exactly these modalities is of an unknown class."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    modalities: tuple[str, ...] = Field(min_length=1)
    clips: int = Field(ge=1)
    threshold: float = Field(allow_inf_nan=False)


class UnknownClass(BaseModel):
    """How answers to recordings of a class that no encoder knows are recognised."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["mahalanobis"] = "mahalanobis"
    false_alarms: Share = Field(description="Largest share of answers to known classes that is taken for unknown.")
    modalities: dict[str, KnownFeatures] = Field(min_length=1)
    patterns: tuple[UnknownThreshold, ...] = Field(min_length=1, description="One for every set of modalities.")

    @cached_property
    def thresholds(self) -> dict[tuple[str, ...], float]:
        """Thresholds by the modalities that are ok, in the bundle's order."""
        return {pattern.modalities: pattern.threshold for pattern in self.patterns}

    def unknown(self, features: Mapping[str, FloatArray], patterns: Sequence[tuple[str, ...]]) -> npt.NDArray[np.bool_]:
        """Return which of B rows are of an unknown class, ``[B]``.

        ``features`` are ``[B, D]`` by modality, ``patterns`` the modalities that are ok in each row; a row without any
        is no answer, and not of an unknown class.
        """
        scores_B = np.zeros(len(patterns))
        for name, known in self.modalities.items():
            there = [row for row, pattern in enumerate(patterns) if name in pattern]
            if there:
                scores_B[there] += known.standardised(features[name][there])
        counts_B = np.array([max(1, len(pattern)) for pattern in patterns])
        thresholds_B = np.array([self.thresholds.get(pattern, np.inf) for pattern in patterns])
        return np.asarray(scores_B / counts_B > thresholds_B)


def nearest_mean(
    features_BD: FloatArray, whitening_DD: FloatArray, whitened_means_CD: FloatArray
) -> npt.NDArray[np.float64]:
    """Mahalanobis distance ``[B]`` of features to the nearest class mean."""
    whitened_BD = features_BD @ whitening_DD
    steps_BCD = whitened_BD[:, None] - whitened_means_CD
    return np.asarray(np.sqrt(np.einsum("bcd,bcd->bc", steps_BCD, steps_BCD, dtype=np.float64).min(axis=1)))
