"""Figures of answers, held against scikit-learn, plain loops and what is known of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from dimml.metrics import classification as figures
from dimml.metrics.classification import (
    CalibrationBins,
    auroc,
    auroc_or_none,
    confidence_bins,
    disagreement,
    ece,
    f1_scores,
    macro_f1,
    macro_mean,
    nll,
    nll_of_logits,
    perfect_ece,
)


@pytest.mark.parametrize("classes", [2, 5, 30])
def test_macro_f1_is_scikit_learns_over_the_classes_that_occur(sklearn_metrics: Any, classes: int) -> None:
    rng = np.random.default_rng(classes)
    truth_N, guess_N = rng.integers(0, classes, 40), rng.integers(0, classes, 40)
    truth_N[truth_N == 1] = guess_N[guess_N == 1] = 0  # a class in neither
    expected = sklearn_metrics.f1_score(truth_N, guess_N, average="macro", zero_division=0)
    assert macro_f1(truth_N, guess_N, classes) == pytest.approx(expected)
    counts_CC = figures.confusion_matrix(truth_N, guess_N, classes)
    expected_CC = sklearn_metrics.confusion_matrix(truth_N, guess_N, labels=range(classes))
    assert counts_CC.tolist() == expected_CC.tolist()
    of_counts = macro_mean(f1_scores(counts_CC.diagonal(), counts_CC.sum(axis=1), counts_CC.sum(axis=0)))
    assert of_counts == macro_f1(truth_N, guess_N, classes)


def test_classes_that_do_not_occur_do_not_count() -> None:
    assert macro_f1(np.array([0, 1]), np.array([0, 1]), 5) == 1.0
    # 2 is guessed and never true: it counts, as 0.
    assert macro_f1(np.array([0, 0]), np.array([0, 2]), 3) == pytest.approx((2 / 3 + 0) / 2)
    nothing = np.zeros(0, np.int64)
    assert np.isnan(macro_f1(nothing, nothing, 3))
    assert macro_mean(np.full(3, np.nan), empty=0.0) == 0.0


def test_nll_is_scikit_learns_and_bounded(sklearn_metrics: Any) -> None:
    rng = np.random.default_rng(0)
    probabilities_NC = rng.dirichlet(np.ones(4), size=50)
    labels_N = rng.integers(0, 4, 50)
    expected = sklearn_metrics.log_loss(labels_N, probabilities_NC, labels=range(4))
    assert nll(probabilities_NC, labels_N) == pytest.approx(expected)
    weights_N = np.ones(50)
    assert nll_of_logits(np.log(probabilities_NC), labels_N, weights_N) == pytest.approx(expected)
    assert nll_of_logits(2.0 * np.log(probabilities_NC), labels_N, weights_N, temperature=2.0) == pytest.approx(
        expected
    )
    twice_N = np.where(np.arange(50) < 10, 2.0, 1.0)
    repeated = np.r_[np.arange(50), np.arange(10)]
    assert nll_of_logits(np.log(probabilities_NC), labels_N, twice_N) == pytest.approx(
        sklearn_metrics.log_loss(labels_N[repeated], probabilities_NC[repeated], labels=range(4))
    )
    assert nll(np.array([[1.0, 0.0]]), np.array([1])) == pytest.approx(-np.log(1e-12))
    assert nll(np.array([[1.0, 0.0]], np.float32), np.array([0])) == 0.0


def looped_ece(confidence_N: npt.NDArray[Any], right_N: npt.NDArray[np.bool_]) -> float:
    total = 0.0
    for number in range(15):
        last = number == 14
        inside = [i for i, c in enumerate(confidence_N) if number / 15 <= c < (number + 1) / 15 or (last and c == 1.0)]
        if inside:
            gap = np.mean([right_N[i] for i in inside]) - np.mean([confidence_N[i] for i in inside])
            total += len(inside) / len(confidence_N) * abs(gap)
    return total


def test_ece_is_that_of_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    confidence_N = rng.random(200)
    right_N = rng.random(200) < 0.6
    assert ece(confidence_N, right_N) == pytest.approx(looped_ece(confidence_N, right_N))
    assert ece(np.ones(4), np.array([True, True, False, False])) == pytest.approx(0.5)
    assert ece(np.array([0.25]), np.array([True])) == 0.75


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_diagram_is_the_same_whole_and_row_by_row(dtype: type[np.floating[Any]]) -> None:
    rng = np.random.default_rng(3)
    confidence_N = np.r_[rng.random(100), 0.0, 1.0, 0.5].astype(dtype)
    right_N = rng.random(103) < 0.6
    whole, counted = CalibrationBins.of(confidence_N, right_N), CalibrationBins()
    for confidence, right in zip(confidence_N.tolist(), right_N.tolist(), strict=True):
        counted.add(confidence, right)
    np.testing.assert_array_equal(whole.sums_K3, counted.sums_K3)
    assert whole.ece == counted.ece == pytest.approx(looped_ece(confidence_N, right_N))
    assert whole.ece == pytest.approx(ece(confidence_N, right_N), abs=1e-12)
    assert whole.rows.sum() == 103
    in_third = confidence_bins(confidence_N) == 2
    assert whole.confidence[2] == pytest.approx(confidence_N[in_third].mean())
    assert whole.accuracy[2] == pytest.approx(right_N[in_third].mean())


def test_an_empty_diagram_has_no_error() -> None:
    for empty in (CalibrationBins(), CalibrationBins.of(np.zeros(0), np.zeros(0, np.bool_))):
        assert (empty.ece, empty.rows.sum(), empty.confidence.sum(), empty.accuracy.sum()) == (0.0, 0, 0.0, 0.0)


def test_a_perfect_calibrator_is_rarely_above_its_bound_and_falls_with_the_clips() -> None:
    rng = np.random.default_rng(1)
    confidence_N = rng.uniform(0.5, 1.0, size=300)
    bound = perfect_ece(confidence_N)
    above = np.mean([ece(confidence_N, rng.random(300) < confidence_N) > bound for _ in range(400)])
    assert 0.02 < above < 0.09
    assert perfect_ece(np.repeat(confidence_N, 10)) < 0.5 * bound


def test_auroc_counts_ties_half(sklearn_metrics: Any) -> None:
    rng = np.random.default_rng(2)
    score_N = rng.integers(0, 5, size=100) / 5
    positive_N = rng.random(100) < 0.3 + 0.4 * score_N
    assert auroc(score_N, positive_N) == pytest.approx(sklearn_metrics.roc_auc_score(positive_N, score_N))
    assert auroc(np.ones(4), np.array([True, False, True, False])) == 0.5


def test_a_ranking_of_one_kind_alone_has_no_auroc() -> None:
    assert auroc_or_none(np.array([0.1, 0.2]), np.array([True, True])) is None
    assert auroc_or_none(np.array([0.1, 0.2]), np.array([False, True])) == 1.0
    assert auroc_or_none(np.zeros(0), np.zeros(0, np.bool_)) is None


def test_disagreement_is_the_chance_of_two_draws_to_differ() -> None:
    own_NMC = np.array([[[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.5], [0.3, 0.7]]])
    assert disagreement(own_NMC) == pytest.approx([0.0, 1.0, 0.5])
    three_NMC = np.array([[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]])
    assert disagreement(three_NMC) == pytest.approx([2 / 3])
