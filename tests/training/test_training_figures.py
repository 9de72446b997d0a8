"""Calibration, ranking and disagreement, held against plain loops and against what is known of them."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from dimml_training.figures import auroc, disagreement, ece, perfect_ece


def test_ece_is_that_of_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    confidence_N = rng.random(200)
    right_N = rng.random(200) < 0.6
    total = 0.0
    for number in range(15):
        inside = [i for i in range(200) if number / 15 <= confidence_N[i] < (number + 1) / 15]
        if inside:
            gap = np.mean([right_N[i] for i in inside]) - np.mean([confidence_N[i] for i in inside])
            total += len(inside) / 200 * abs(gap)
    assert ece(confidence_N, right_N) == pytest.approx(total)
    assert ece(np.ones(4), np.array([True, True, False, False])) == pytest.approx(0.5)


def test_a_perfect_calibrator_is_rarely_above_its_bound_and_falls_with_the_clips() -> None:
    rng = np.random.default_rng(1)
    confidence_N = rng.uniform(0.5, 1.0, size=300)
    bound = perfect_ece(confidence_N)
    above = np.mean([ece(confidence_N, rng.random(300) < confidence_N) > bound for _ in range(400)])
    assert 0.02 < above < 0.09
    assert perfect_ece(np.repeat(confidence_N, 10)) < 0.5 * bound


def test_auroc_counts_ties_half() -> None:
    rng = np.random.default_rng(2)
    score_N = rng.integers(0, 5, size=100) / 5
    positive_N = rng.random(100) < 0.3 + 0.4 * score_N
    assert auroc(score_N, positive_N) == pytest.approx(roc_auc_score(positive_N, score_N))
    assert auroc(np.ones(4), np.array([True, False, True, False])) == 0.5


def test_disagreement_is_the_chance_of_two_draws_to_differ() -> None:
    own_NMC = np.array([[[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.5], [0.3, 0.7]]])
    assert disagreement(own_NMC) == pytest.approx([0.0, 1.0, 0.5])
    three_NMC = np.array([[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]])
    assert disagreement(three_NMC) == pytest.approx([2 / 3])
