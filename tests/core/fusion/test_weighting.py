"""Masked certainty-aware logit weighting against hand-written sums."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dimml.errors import BundleError
from dimml.fusion import FusionSpec, Pooling, StaticCertainty, certainty_of, fuse, heads_present

LOGITS = arrays(np.float32, (3, 4, 5), elements=st.floats(-30, 30, width=32))
PRESENT = arrays(np.bool_, (3, 4))
MEASURES: tuple[StaticCertainty, ...] = ("max_prob", "neg_entropy", "margin")
POOLINGS: tuple[Pooling, ...] = ("logits", "log_probabilities", "probabilities", "product")
TEMPERATURES = st.sampled_from([None, 0.1, 1.0])


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


def pooled(rows_HC: list[list[float]], spec: FusionSpec) -> list[float]:
    """Probabilities of one row from its present heads' logits, by sums and products over classes."""
    temperatures = spec.head_temperatures or (1.0,) * len(rows_HC)
    scaled = [[z / t for z in row] for row, t in zip(rows_HC, temperatures, strict=True)]
    shares = [probabilities(row) for row in scaled]
    sure = [max(row) for row in shares]
    scores = [1.0 if spec.temperature is None else math.exp(c / spec.temperature) for c in sure]
    weights = [score / sum(scores) for score in scores]
    heads, classes = range(len(rows_HC)), range(len(rows_HC[0]))
    match spec.pooling:
        case "logits":
            answer = [math.exp(sum(weights[h] * rows_HC[h][c] for h in heads)) for c in classes]
        case "log_probabilities":
            answer = [math.prod(shares[h][c] ** weights[h] for h in heads) for c in classes]
        case "probabilities":
            answer = [sum(weights[h] * shares[h][c] for h in heads) for c in classes]
        case "product":
            sure = [min(c, 0.999) for c in sure]
            mixed = [[sure[h] * p + (1 - sure[h]) / len(classes) for p in shares[h]] for h in heads]
            answer = [math.prod(mixed[h][c] ** (weights[h] * len(heads)) for h in heads) for c in classes]
    sharpened = [value ** (1 / spec.answer_temperature) for value in answer]
    return [value / sum(sharpened) for value in sharpened]


@pytest.mark.parametrize("pooling", POOLINGS)
@given(
    logits=arrays(np.float32, (2, 3, 4), elements=st.floats(-8, 8, width=32)),
    temperature=TEMPERATURES,
    calibration=st.sampled_from([None, (0.5, 2.0, 1.5)]),
    answer_temperature=st.sampled_from([1.0, 0.7, 2.0]),
)
def test_every_pooling_is_its_formula(
    pooling: Pooling, logits, temperature: float | None, calibration, answer_temperature: float
) -> None:
    spec = FusionSpec(
        temperature=temperature,
        fused_head=True,
        pooling=pooling,
        head_temperatures=calibration,
        answer_temperature=answer_temperature,
    )
    # In float32 a probability, so a certainty, is off by 16 (the largest scaled logit) times 6e-8. A temperature of
    # 0.1 makes that 1e-5 in the softmax of weights, 5e-6 in a weight; three of them weigh logarithms 8.3 apart at most
    # (u is at least 0.001), over an answer temperature of 0.7: 1.8e-4 in a logit, a quarter of it in a probability.
    atol = 5e-5 if temperature is not None and temperature < 1.0 else 2e-5
    fused = fuse(logits, np.ones((2, 3), np.bool_), spec)
    for row, found in zip(logits.tolist(), fused.probabilities_BC, strict=True):
        np.testing.assert_allclose(found, pooled(row, spec), atol=atol)
    # A missing head is as if there were none.
    two = fuse(logits, np.array([[True, True, False]] * 2), spec)
    fewer = spec.model_copy(update={"head_temperatures": calibration and calibration[:2]})
    for row, found in zip(logits.tolist(), two.probabilities_BC, strict=True):
        np.testing.assert_allclose(found, pooled(row[:2], fewer), atol=atol)


def test_without_a_temperature_the_logits_are_averaged() -> None:
    logits = np.random.default_rng(0).normal(size=(5, 3, 4)).astype(np.float32)
    fused = fuse(logits, np.ones((5, 3), np.bool_), FusionSpec(temperature=None, fused_head=True))
    np.testing.assert_allclose(fused.logits_BC, logits.mean(axis=1), atol=1e-6)
    np.testing.assert_allclose(fused.weights_BH, 1 / 3, rtol=1e-6)


@pytest.mark.parametrize("pooling", POOLINGS)
@given(LOGITS, PRESENT, st.tuples(st.sampled_from(MEASURES), TEMPERATURES), st.sampled_from([np.nan, np.inf, -np.inf]))
def test_a_masked_slot_has_no_influence(
    pooling: Pooling, logits, present, choice: tuple[StaticCertainty, float | None], poison: float
) -> None:
    poisoned = np.where(present[..., None], logits, np.float32(poison))
    spec = FusionSpec(certainty=choice[0], temperature=choice[1], fused_head=True, pooling=pooling)
    clean, dirty = fuse(logits, present, spec), fuse(poisoned, present, spec)
    for name in ("probabilities_BC", "logits_BC", "certainty_BH", "weights_BH"):
        np.testing.assert_array_equal(getattr(clean, name), getattr(dirty, name))
        assert np.isfinite(getattr(dirty, name)).all()


@pytest.mark.parametrize("pooling", POOLINGS)
@given(LOGITS, PRESENT, st.sampled_from(MEASURES), TEMPERATURES)
def test_weights_are_zero_where_masked_and_sum_to_one(
    pooling: Pooling, logits, present, measure: StaticCertainty, temperature: float | None
) -> None:
    spec = FusionSpec(certainty=measure, temperature=temperature, fused_head=True, pooling=pooling)
    fused = fuse(logits, present, spec)
    assert (fused.weights_BH[~present] == 0).all()
    np.testing.assert_allclose(fused.weights_BH.sum(axis=1), present.any(axis=1).astype(float), atol=1e-5)
    nothing = ~present.any(axis=1)
    np.testing.assert_allclose(fused.probabilities_BC[nothing], 0.2, atol=1e-6)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_logits_in_the_thousands_stay_finite(pooling: Pooling) -> None:
    logits = np.random.default_rng(1).normal(size=(6, 3, 4)).astype(np.float32) * 5000
    fused = fuse(logits, np.ones((6, 3), np.bool_), FusionSpec(fused_head=True, pooling=pooling))
    assert np.isfinite(fused.logits_BC).all()
    np.testing.assert_allclose(fused.probabilities_BC.sum(axis=1), 1, rtol=1e-5)


def test_a_calibration_of_another_number_of_heads_is_refused() -> None:
    spec = FusionSpec(fused_head=True, head_temperatures=(1.0, 2.0))
    with pytest.raises(BundleError, match="head_temperatures has 2 entries for 3 heads"):
        fuse(np.zeros((1, 3, 4), np.float32), np.ones((1, 3), np.bool_), spec)
    with pytest.raises(ValueError, match="head_temperatures must be above 0 and finite, got 0"):
        FusionSpec(fused_head=True, head_temperatures=(1.0, 0.0))


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
