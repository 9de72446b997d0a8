"""Fit what recognises an unknown class: where features of training clips lie, and how far validation clips are off.

The encoders have seen the training clips and bent their features to them, so distances of training clips are too small:
centre, spread and thresholds are those of validation clips, which neither means nor covariance are made from.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import numpy as np
import numpy.typing as npt

from dimml.errors import DataError
from dimml.modality import patterns_of
from dimml.prediction_sets.thresholds import conformal_rank, fewest_clips
from dimml.prediction_sets.unknown import KnownFeatures, Matrix, UnknownClass, UnknownThreshold, nearest_mean
from dimml_training.evaluation.heads import HeadLogits
from dimml_training.fusion_selection.reliability_fit import feature_geometry

#: Below this spread, all known clips are at one distance: a constant feature, say.
_LEAST_SPREAD = 1e-6


def fit_unknown(
    train: HeadLogits, validation: HeadLogits, modalities: Sequence[str], classes: int, false_alarms: Decimal
) -> UnknownClass:
    """Fit to clean clips; ``modalities`` name the first heads of both.

    Raises DataError where a pattern of modalities has too few validation clips for the rate of false alarms.
    """
    known: dict[str, KnownFeatures] = {}
    scores: dict[str, npt.NDArray[np.float64]] = {}
    for place, name in enumerate(modalities):
        there_N = train.present_NH[:, place]
        geometry = feature_geometry(train.features[place][there_N], train.labels_N[there_N], classes)
        distances_N = nearest_mean(validation.features[place], geometry.whitening_DD, geometry.whitened_means_CD)
        own_N = distances_N[validation.present_NH[:, place]]
        known[name] = KnownFeatures(
            whitening=Matrix.of(geometry.whitening_DD),
            means=Matrix.of(geometry.whitened_means_CD),
            centre=float(own_N.mean()),
            spread=max(float(own_N.std()), _LEAST_SPREAD),
        )
        scores[name] = known[name].standardised(validation.features[place])
    return UnknownClass(
        false_alarms=false_alarms,
        modalities=known,
        patterns=tuple(
            _threshold(pattern, modalities, validation, scores, false_alarms) for pattern in patterns_of(modalities)
        ),
    )


def _threshold(
    pattern: tuple[str, ...],
    modalities: Sequence[str],
    validation: HeadLogits,
    scores: dict[str, npt.NDArray[np.float64]],
    false_alarms: Decimal,
) -> UnknownThreshold:
    """Compute the threshold of one pattern from the clips that have its modalities."""
    places = [modalities.index(name) for name in pattern]
    there_N = validation.present_NH[:, places].all(axis=1)
    own_N = np.sort(np.mean([scores[name][there_N] for name in pattern], axis=0))
    rank = conformal_rank(len(own_N), 1 - false_alarms)
    if rank > len(own_N):
        raise DataError(
            f"a false-alarm rate of {false_alarms} needs {fewest_clips(1 - false_alarms)} validation clips with "
            f"{' and '.join(pattern)}, and there are {len(own_N)}: give the split more, or allow more false alarms",
            field="false_alarms",
        )
    return UnknownThreshold(modalities=pattern, clips=len(own_N), threshold=float(own_N[rank - 1]))
