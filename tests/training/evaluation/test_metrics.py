"""Rise of confidence and conflict, held against scikit-learn and what is known of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dimml_training.evaluation.metrics import confidence_rise, conflict


def test_the_rise_of_confidence_is_counted_where_both_answer() -> None:
    clean_N, without_N = np.array([0.5, 0.5, 0.5, 0.5]), np.array([0.6, 0.4, 0.5, 0.9])
    assert confidence_rise(clean_N, without_N, np.array([True, True, True, False])) == pytest.approx(1 / 3)
    assert confidence_rise(clean_N, without_N, np.zeros(4, np.bool_)) == 0.0


def test_conflict_is_told_by_confidence_and_by_disagreement(sklearn_metrics: Any) -> None:
    agree, differ = [[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]
    own_NMC, own_conflict_NMC = np.array([agree, differ]), np.array([differ, differ, agree])
    found = conflict(np.array([0.9, 0.8]), np.array([0.5, 0.6, 0.7]), own_NMC, own_conflict_NMC)
    told = np.array([0.0, 1.0, 1.0, 1.0, 0.0])
    assert found == pytest.approx(
        {
            "confidence": 0.6,
            "confidence_clean": 0.85,
            "disagreement_auroc": sklearn_metrics.roc_auc_score([False, False, True, True, True], told),
        }
    )
    assert "disagreement_auroc" not in conflict(np.ones(2), np.ones(2), own_NMC[:, :1], own_NMC[:, :1])
