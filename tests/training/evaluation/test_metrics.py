"""Calibration, ranking and disagreement, held against plain loops and against what is known of them."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from dimml.monitoring.observation import disagreement
from dimml_training.evaluation.metrics import auroc, auroc_or_none, confidence_rise, conflict, ece, perfect_ece


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


def test_a_ranking_of_one_kind_alone_has_no_auroc() -> None:
    assert auroc_or_none(np.array([0.1, 0.2]), np.array([True, True])) is None
    assert auroc_or_none(np.array([0.1, 0.2]), np.array([False, True])) == 1.0


def test_the_rise_of_confidence_is_counted_where_both_answer() -> None:
    clean_N, without_N = np.array([0.5, 0.5, 0.5, 0.5]), np.array([0.6, 0.4, 0.5, 0.9])
    assert confidence_rise(clean_N, without_N, np.array([True, True, True, False])) == pytest.approx(1 / 3)
    assert confidence_rise(clean_N, without_N, np.zeros(4, np.bool_)) == 0.0


def test_conflict_is_told_by_confidence_and_by_disagreement() -> None:
    agree, differ = [[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]
    own_NMC, own_conflict_NMC = np.array([agree, differ]), np.array([differ, differ, agree])
    found = conflict(np.array([0.9, 0.8]), np.array([0.5, 0.6, 0.7]), own_NMC, own_conflict_NMC)
    told = np.array([0.0, 1.0, 1.0, 1.0, 0.0])
    assert found == pytest.approx(
        {
            "confidence": 0.6,
            "confidence_clean": 0.85,
            "disagreement_auroc": roc_auc_score([False, False, True, True, True], told),
        }
    )
    assert "disagreement_auroc" not in conflict(np.ones(2), np.ones(2), own_NMC[:, :1], own_NMC[:, :1])
