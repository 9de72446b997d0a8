"""Masked certainty-aware logit weighting against hand-written sums."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dimml.fusion import FusionSpec, StaticCertainty, certainty_of, fuse, heads_present

LOGITS = arrays(np.float32, (3, 4, 5), elements=st.floats(-30, 30, width=32))
PRESENT = arrays(np.bool_, (3, 4))
MEASURES: tuple[StaticCertainty, ...] = ("max_prob", "neg_entropy", "margin")


def probabilities(logits: list[float]) -> list[float]:
    total = sum(math.exp(z - max(logits)) for z in logits)
    return [math.exp(z - max(logits)) / total for z in logits]


def expected_row(logits_HC: list[list[float]], present_H: list[bool], temperature: float) -> list[float]:
    """The paper's rule for one row, with absent heads simply left out of every sum."""
    there = [row for row, here in zip(logits_HC, present_H, strict=True) if here]
    scores = [math.exp(max(probabilities(row)) / temperature) for row in there]
    return [sum(s / sum(scores) * row[c] for s, row in zip(scores, there, strict=True)) for c in range(len(there[0]))]


@given(LOGITS, PRESENT, st.sampled_from([0.1, 1.0, 3.0]))
def test_equals_the_papers_formula_over_present_heads(logits, present, temperature: float) -> None:
    fused = fuse(logits, present, FusionSpec(temperature=temperature, fused_head=True))
    for row in range(len(logits)):
        if present[row].any():
            wanted = expected_row(logits[row].tolist(), present[row].tolist(), temperature)
            np.testing.assert_allclose(fused.logits_BC[row], wanted, rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(fused.probabilities_BC[row], probabilities(wanted), rtol=1e-3, atol=1e-4)


@given(LOGITS, PRESENT, st.sampled_from(MEASURES), st.sampled_from([np.nan, np.inf, -np.inf]))
def test_a_masked_slot_has_no_influence(logits, present, measure: StaticCertainty, poison: float) -> None:
    poisoned = np.where(present[..., None], logits, np.float32(poison))
    spec = FusionSpec(certainty=measure, fused_head=True)
    clean, dirty = fuse(logits, present, spec), fuse(poisoned, present, spec)
    for name in ("probabilities_BC", "logits_BC", "certainty_BH", "weights_BH"):
        np.testing.assert_array_equal(getattr(clean, name), getattr(dirty, name))
        assert np.isfinite(getattr(dirty, name)).all()


@given(LOGITS, PRESENT, st.sampled_from(MEASURES))
def test_weights_are_zero_where_masked_and_sum_to_one(logits, present, measure: StaticCertainty) -> None:
    fused = fuse(logits, present, FusionSpec(certainty=measure, fused_head=True))
    assert (fused.weights_BH[~present] == 0).all()
    np.testing.assert_allclose(fused.weights_BH.sum(axis=1), present.any(axis=1).astype(float), atol=1e-5)
    nothing = ~present.any(axis=1)
    np.testing.assert_allclose(fused.probabilities_BC[nothing], 0.2, atol=1e-6)


@pytest.mark.parametrize("measure", MEASURES)
def test_certainty_runs_from_zero_to_one(measure: StaticCertainty) -> None:
    sure, unsure = np.array([100.0, 0, 0, 0], np.float32), np.zeros(4, np.float32)
    assert certainty_of(sure, measure) == pytest.approx(1.0)
    assert certainty_of(unsure, measure) == pytest.approx(0.25 if measure == "max_prob" else 0.0, abs=1e-6)


def test_margin_is_the_lead_of_the_first_over_the_second() -> None:
    logits = np.log(np.array([0.2, 0.5, 0.3], np.float32))
    assert certainty_of(logits, "margin") == pytest.approx(0.2, abs=1e-6)


def test_the_fused_head_votes_only_when_every_modality_is_there() -> None:
    present = np.array([[True, True], [True, False], [False, False]])
    np.testing.assert_array_equal(
        heads_present(present, fused_head=True), [[True, True, True], [True, False, False], [False, False, False]]
    )
    assert heads_present(present, fused_head=False) is present
