"""Fit what recognises an unknown class: for each pattern of modalities a score, chosen on validation, and a threshold.

The encoders have seen the training clips and bent their features to them, so distances of training clips are too small:
centre, spread and thresholds are those of validation clips, which neither means nor covariance are made from.

The score of a pattern is chosen by taking each known class for unknown in turn: its mean and its training clips leave
the geometry of the features, its probability leaves the answers, and its validation clips are set against the others.
Only the encoders keep having seen it, which both scores gain from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

import numpy as np
import numpy.typing as npt

from dimml.errors import DataError
from dimml.metrics.classification import auroc_or_none
from dimml.prediction_sets.thresholds import conformal_rank, fewest_clips
from dimml.prediction_sets.unknown import KnownFeatures, Matrix, Score, UnknownClass, UnknownThreshold, unsureness
from dimml_training.evaluation.heads import HeadLogits
from dimml_training.fusion_selection.held_out import PatternAnswers
from dimml_training.fusion_selection.reliability_fit import feature_geometry

#: Below this spread, all known clips are at one distance: a constant feature, say.
_LEAST_SPREAD = 1e-6
#: Most classes that are taken for unknown in turn, spread evenly: each costs a geometry of every modality.
MOST_LEFT_OUT = 20
#: Fewest classes for a choice: one is left out, and two to tell apart remain.
FEWEST_CLASSES = 3

Array = npt.NDArray[np.float64]


def fit_unknown(
    train: HeadLogits,
    validation: HeadLogits,
    modalities: Sequence[str],
    *,
    classes: int,
    false_alarms: Decimal,
    answers: Sequence[PatternAnswers],
) -> UnknownClass:
    """Fit to clean clips; ``modalities`` name the first heads of ``train`` and ``validation``.

    ``answers`` are to the validation clips that have a pattern's modalities, in their order, for every pattern.

    Raises DataError where a pattern of modalities has too few validation clips for the rate of false alarms.
    """
    known = {name: _known(train, validation, place, classes) for place, name in enumerate(modalities)}
    areas = left_out_areas(train, validation, modalities, classes=classes, answers=answers)
    patterns = []
    for own in answers:
        score: Score = max(areas[own.modalities], key=lambda name: areas[own.modalities][name])
        scores_K = (
            unsureness(own.probabilities_KC)
            if score == "max_softmax"
            else _feature_scores(known, validation, modalities, own.modalities)
        )
        patterns.append(_threshold(own.modalities, scores_K, score, false_alarms))
    used = {name for of in patterns if of.score == "mahalanobis" for name in of.modalities}
    return UnknownClass(
        false_alarms=false_alarms,
        modalities={name: own for name, own in known.items() if name in used},
        patterns=tuple(patterns),
    )


def left_out_areas(
    train: HeadLogits,
    validation: HeadLogits,
    modalities: Sequence[str],
    *,
    classes: int,
    answers: Sequence[PatternAnswers],
) -> dict[tuple[str, ...], dict[Score, float]]:
    """Mean AUROC of telling each class, left out in turn, from the others: by pattern, of each score.

    0.5 where there is nothing to choose by. The first score of a pattern is the one that equal areas fall to.
    """
    found: dict[tuple[str, ...], dict[Score, list[float]]] = {
        own.modalities: {"max_softmax": [], "mahalanobis": []} for own in answers
    }
    left_out = np.unique(np.linspace(0, classes - 1, MOST_LEFT_OUT).round().astype(int)).tolist()
    for label in left_out if classes >= FEWEST_CLASSES else []:
        known = {
            name: _known(train, validation, place, classes, without=label) for place, name in enumerate(modalities)
        }
        for own in answers:
            strange_K = own.labels_K == label
            others_KC = np.delete(own.probabilities_KC.astype(np.float64), label, axis=1)
            sums_K1 = np.maximum(others_KC.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
            scores: dict[Score, Array] = {
                "max_softmax": unsureness(others_KC / sums_K1),
                "mahalanobis": _feature_scores(known, validation, modalities, own.modalities),
            }
            for name, scores_K in scores.items():
                area = auroc_or_none(scores_K, strange_K)
                if area is not None:
                    found[own.modalities][name].append(area)
    return {
        pattern: {name: float(np.mean(areas)) if areas else 0.5 for name, areas in of.items()}
        for pattern, of in found.items()
    }


def _known(
    train: HeadLogits, validation: HeadLogits, place: int, classes: int, *, without: int | None = None
) -> KnownFeatures:
    """Where the features of one modality's known classes lie, as if there had never been the class ``without``."""
    there_N = train.present_NH[:, place] & (train.labels_N != (-1 if without is None else without))
    geometry = feature_geometry(train.features[place][there_N], train.labels_N[there_N], classes)
    means_CD = geometry.whitened_means_CD
    if without is not None:
        means_CD = np.delete(means_CD, without, axis=0)
    raw = KnownFeatures(whitening=Matrix.of(geometry.whitening_DD), means=Matrix.of(means_CD), centre=0.0, spread=1.0)
    own_N = validation.present_NH[:, place] & (validation.labels_N != (-1 if without is None else without))
    distances_N = raw.standardised(validation.features[place][own_N])
    return raw.model_copy(
        update={"centre": float(distances_N.mean()), "spread": max(float(distances_N.std()), _LEAST_SPREAD)}
    )


def _feature_scores(
    known: Mapping[str, KnownFeatures], votes: HeadLogits, modalities: Sequence[str], pattern: Sequence[str]
) -> Array:
    """Score the K clips that have a pattern's modalities by their features, ``[K]``."""
    places = [modalities.index(name) for name in pattern]
    there_N = votes.present_NH[:, places].all(axis=1)
    of_each = [
        known[name].standardised(votes.features[place][there_N]) for name, place in zip(pattern, places, strict=True)
    ]
    return np.asarray(np.mean(of_each, axis=0))


def _threshold(pattern: tuple[str, ...], scores_K: Array, score: Score, false_alarms: Decimal) -> UnknownThreshold:
    """Compute the threshold of one pattern from the scores of the clips that have its modalities."""
    rank = conformal_rank(len(scores_K), 1 - false_alarms)
    if rank > len(scores_K):
        raise DataError(
            f"a false-alarm rate of {false_alarms} needs {fewest_clips(1 - false_alarms)} validation clips with "
            f"{' and '.join(pattern)}, and there are {len(scores_K)}: give the split more, or allow more false alarms",
            field="false_alarms",
        )
    threshold = float(np.partition(scores_K, rank - 1)[rank - 1])
    return UnknownThreshold(modalities=pattern, clips=len(scores_K), threshold=threshold, score=score)
