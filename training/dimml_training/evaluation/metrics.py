"""What confidence is worth: figures of calibration, ranking and disagreement of a set of answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dimml.monitoring.observation import disagreement

BINS = 15
SIMULATIONS = 1_000


def ece(confidence_N: npt.NDArray[Any], right_N: npt.NDArray[np.bool_]) -> float:
    """Expected calibration error over 15 bins of equal width (Guo et al. 2017)."""
    return float(_ece(confidence_N, right_N[None])[0])


def perfect_ece(confidence_N: npt.NDArray[Any], *, seed: int = 0) -> float:
    """The 95th percentile of the ECE that a perfect calibrator shows on as many clips of these confidences."""
    right_SN = np.random.default_rng(seed).random((SIMULATIONS, len(confidence_N))) < confidence_N
    return float(np.quantile(_ece(confidence_N, right_SN), 0.95))


def weighted_ece(
    confidence_N: npt.NDArray[Any], right_N: npt.NDArray[np.bool_], weights_SN: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """``ece`` of S samples in which each clip counts as often as ``weights_SN`` says, ``[S]``."""
    gap_SK = (weights_SN * (right_N - confidence_N.astype(np.float64))) @ _bins(confidence_N)
    return np.asarray(np.abs(gap_SK).sum(axis=1) / weights_SN.sum(axis=1), np.float64)


def auroc(score_N: npt.NDArray[Any], positive_N: npt.NDArray[np.bool_]) -> float:
    """The chance that a positive scores higher than a negative, ties counting half; both must occur."""
    positives = int(positive_N.sum())
    negatives = len(positive_N) - positives
    _, place_N, counts = np.unique(score_N, return_inverse=True, return_counts=True)
    rank = np.cumsum(counts) - (counts - 1) / 2.0  # ties share the mean of their ranks
    ranks = float(rank[place_N][positive_N].sum())
    return (ranks - positives * (positives + 1) / 2) / (positives * negatives)


def auroc_or_none(score_N: npt.NDArray[Any], positive_N: npt.NDArray[np.bool_]) -> float | None:
    """``auroc``, or None where all or none are positive."""
    return None if positive_N.all() or not positive_N.any() else auroc(score_N, positive_N)


def confidence_rise(clean_N: npt.NDArray[Any], without_N: npt.NDArray[Any], answered_N: npt.NDArray[np.bool_]) -> float:
    """Share of the clips answered both with and without a modality whose confidence is higher without it."""
    return float((without_N > clean_N)[answered_N].mean()) if answered_N.any() else 0.0


def conflict(
    clean_N: npt.NDArray[Any],
    conflict_N: npt.NDArray[Any],
    own_NMC: npt.NDArray[Any],
    own_conflict_NMC: npt.NDArray[Any],
) -> dict[str, float]:
    """No label is right in conflict: how far the answer's confidence falls, and, where several modalities' heads vote
    (``own``), whether their disagreement tells conflict from clean (AUROC). Clean and conflict may differ in N."""
    found = {"confidence": float(conflict_N.mean()), "confidence_clean": float(clean_N.mean())}
    if own_NMC.shape[1] > 1:
        scores = [disagreement(own_NMC), disagreement(own_conflict_NMC)]
        found["disagreement_auroc"] = auroc(np.concatenate(scores), np.repeat([False, True], [len(s) for s in scores]))
    return found


def _ece(confidence_N: npt.NDArray[Any], right_SN: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    gap_SK = (right_SN - confidence_N.astype(np.float64)) @ _bins(confidence_N)
    return np.asarray(np.abs(gap_SK).sum(axis=1) / len(confidence_N))


def _bins(confidence_N: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which bin each confidence falls into, ``[N, K]``."""
    bin_N = np.minimum((confidence_N * BINS).astype(np.int64), BINS - 1)
    return np.asarray(bin_N[:, None] == np.arange(BINS))
