"""Metrics of a classifier's answers: per class, calibration, likelihood and ranking.

The one numpy implementation that training, its report, comparisons, ``dimml score`` and monitoring use. Nothing is
rounded, and the caller's dtype decides the precision. Shape suffixes: N rows, C classes, K bins, S samples, M
modalities.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Final

import numpy as np
import numpy.typing as npt

#: Bins of confidence, of equal width over [0, 1] (Guo et al. 2017, arXiv 1706.04599, section 4).
BINS: Final = 15
#: Lowest probability whose logarithm is taken: the loss of a probability of 0 would be infinite.
SMALLEST_PROBABILITY: Final = 1e-12
#: Samples of a perfect calibrator.
SIMULATIONS: Final = 1_000

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]


def confusion_matrix(truth_N: Ints, guess_N: Ints, classes: int) -> Ints:
    """Count rows by class, ``[C, C]``: truth down, guess across."""
    return np.bincount(truth_N * classes + guess_N, minlength=classes**2).reshape(classes, classes)


def f1_scores(hits: npt.NDArray[Any], truths: npt.NDArray[Any], guesses: npt.NDArray[Any]) -> Doubles:
    """F1 of each class, ``2 · hits / (truths + guesses)``; NaN for a class in neither truth nor guess.

    The counts have one shape, ``[C]`` or ``[S, C]``: correct guesses of a class, its rows, rows guessed to be of it.
    """
    either = truths + guesses
    return np.where(either > 0, 2.0 * hits / np.maximum(either, 1), np.nan)


def macro_mean(scores_C: Doubles, *, empty: float = float("nan")) -> float:
    """Mean over the classes that have a score; ``empty`` where none has."""
    known = scores_C[~np.isnan(scores_C)]
    return float(known.mean()) if len(known) else empty


def macro_f1(truth_N: Ints, guess_N: Ints, classes: int) -> float:
    """Mean F1 over the classes that occur in truth or guess; NaN without rows.

    scikit-learn's ``f1_score(average="macro")`` over the labels that occur.
    """
    hits_C, truths_C, guesses_C = (
        np.bincount(of, minlength=classes) for of in (truth_N[truth_N == guess_N], truth_N, guess_N)
    )
    return macro_mean(f1_scores(hits_C, truths_C, guesses_C))


def log_losses(probability: npt.ArrayLike) -> npt.NDArray[Any]:
    """``-log p`` of true classes' probabilities, of any shape and in their dtype; bounded below a p of 1e-12."""
    return np.asarray(-np.log(np.maximum(probability, SMALLEST_PROBABILITY)))


def nll(probabilities_NC: npt.NDArray[Any], labels_N: Ints) -> float:
    """Mean negative log-likelihood of the true classes."""
    return float(log_losses(probabilities_NC[np.arange(len(labels_N)), labels_N]).mean())


def nll_of_logits(
    logits_NC: npt.NDArray[Any], labels_N: Ints, weights_N: Doubles, *, temperature: float = 1.0
) -> float:
    """Weighted mean of ``-log softmax(z / T)`` of the true class, in double precision; it has no bound."""
    scaled_NC = logits_NC.astype(np.float64) / temperature
    scaled_NC -= scaled_NC.max(axis=1, keepdims=True)
    losses_N = np.log(np.exp(scaled_NC).sum(axis=1)) - np.take_along_axis(scaled_NC, labels_N[:, None], axis=1)[:, 0]
    return float(losses_N @ weights_N / weights_N.sum())


def confidence_bins(confidence_N: npt.NDArray[Any]) -> Ints:
    """Index of each confidence's bin, ``[N]``: bin k is [k/15, (k+1)/15), the last one closed."""
    return np.asarray(np.minimum((confidence_N * BINS).astype(np.int64), BINS - 1))


def ece(confidence_N: npt.NDArray[Any], right_N: Bools) -> float:
    """Expected calibration error of at least one row: ``Σ_k |Σ_{i in bin k} (right_i - confidence_i)| / N``.

    Guo et al. 2017, equation 3, its shares and means of bins multiplied out.
    """
    return float(_ece(confidence_N, right_N[None])[0])


def perfect_ece(confidence_N: npt.NDArray[Any], *, seed: int = 0) -> float:
    """The 95th percentile of the ECE that a perfect calibrator shows on as many clips of these confidences."""
    right_SN = np.random.default_rng(seed).random((SIMULATIONS, len(confidence_N))) < confidence_N
    return float(np.quantile(_ece(confidence_N, right_SN), 0.95))


def weighted_ece(confidence_N: npt.NDArray[Any], right_N: Bools, weights_SN: Doubles) -> Doubles:
    """``ece`` of S samples in which each row counts as often as ``weights_SN`` says, ``[S]``."""
    gap_SK = (weights_SN * (right_N - confidence_N.astype(np.float64))) @ _in_bins(confidence_N)
    return np.asarray(np.abs(gap_SK).sum(axis=1) / weights_SN.sum(axis=1), np.float64)


@dataclass
class CalibrationBins:
    """A reliability diagram, of all rows at once or updated row by row in constant memory. It may be empty."""

    #: By bin: number of rows, sum of confidence, number of correct rows.
    sums_K3: Doubles = field(default_factory=lambda: np.zeros((BINS, 3)))

    @classmethod
    def of(cls, confidence_N: npt.NDArray[Any], right_N: Bools) -> CalibrationBins:
        """Build the diagram of all rows."""
        bin_N = confidence_bins(confidence_N)
        columns = (None, confidence_N, right_N)
        return cls(np.stack([np.bincount(bin_N, weights=of, minlength=BINS) for of in columns], axis=1, dtype=float))

    def add(self, confidence: float, right: bool) -> None:
        """Count one row, its confidence in double precision."""
        self.sums_K3[min(int(confidence * BINS), BINS - 1)] += (1.0, confidence, float(right))

    @property
    def rows(self) -> Ints:
        """Rows in each bin, ``[K]``."""
        return self.sums_K3[:, 0].astype(np.int64)

    @property
    def confidence(self) -> Doubles:
        """Mean confidence in each bin, ``[K]``; 0 where it is empty."""
        return np.asarray(self.sums_K3[:, 1] / np.maximum(self.sums_K3[:, 0], 1.0))

    @property
    def accuracy(self) -> Doubles:
        """Share of correct rows in each bin, ``[K]``; 0 where it is empty."""
        return np.asarray(self.sums_K3[:, 2] / np.maximum(self.sums_K3[:, 0], 1.0))

    @property
    def ece(self) -> float:
        """Expected calibration error from the sums of bins, equal to ``ece`` except for rounding; 0 without rows."""
        rows, confidence, right = self.sums_K3.T
        return float(np.abs(confidence - right).sum() / max(1.0, rows.sum()))


def auroc(score_N: npt.NDArray[Any], positive_N: Bools) -> float:
    """Compute the chance that a positive scores higher than a negative, ties counting half; both must occur.

    Mann-Whitney's U over the number of pairs (Hanley and McNeil 1982, Radiology 143(1)).
    """
    positives = int(positive_N.sum())
    negatives = len(positive_N) - positives
    _, place_N, counts = np.unique(score_N, return_inverse=True, return_counts=True)
    rank = np.cumsum(counts) - (counts - 1) / 2.0  # ties share the mean of their ranks
    ranks = float(rank[place_N][positive_N].sum())
    return (ranks - positives * (positives + 1) / 2) / (positives * negatives)


def auroc_or_none(score_N: npt.NDArray[Any], positive_N: Bools) -> float | None:
    """Compute ``auroc``, or return None if all or none are positive."""
    return None if positive_N.all() or not positive_N.any() else auroc(score_N, positive_N)


def disagreement(own_NMC: npt.NDArray[Any]) -> Doubles:
    """Compute the disagreement ``[N]`` of the modalities' heads from their distributions ``[N, M, C]``.

    It is the probability that two heads, each drawing from its distribution, name different classes; the mean over all
    pairs, of which there must be at least one.
    """
    pairs = combinations(range(own_NMC.shape[1]), 2)
    same = [(own_NMC[:, i] * own_NMC[:, j]).sum(axis=1) for i, j in pairs]
    return np.asarray(1.0 - np.mean(same, axis=0), np.float64)


def _ece(confidence_N: npt.NDArray[Any], right_SN: Bools) -> Doubles:
    gap_SK = (right_SN - confidence_N.astype(np.float64)) @ _in_bins(confidence_N)
    return np.asarray(np.abs(gap_SK).sum(axis=1) / len(confidence_N))


def _in_bins(confidence_N: npt.NDArray[Any]) -> Bools:
    """Whether each row falls into each bin, ``[N, K]``."""
    return np.asarray(confidence_bins(confidence_N)[:, None] == np.arange(BINS))
