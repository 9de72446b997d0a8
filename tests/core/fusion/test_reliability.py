"""Learned reliability, in numpy, against sums written out and against the geometry it stands on."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dimml.errors import BundleError
from dimml.fusion import (
    STATISTICS,
    FusionParameters,
    FusionSpec,
    fuse,
    reliability_of,
    reliability_statistics,
)
from support.reliability import random_reliability

CLASSES, WIDTHS = 4, (5, 3, 8)
SPEC = FusionSpec(certainty="reliability", temperature=0.1, fused_head=True)


def learned(seed: int = 0) -> FusionParameters:
    rng = np.random.default_rng(seed)
    return FusionParameters(tuple(random_reliability(rng, width, CLASSES) for width in WIDTHS))


def inputs(batch: int = 6) -> tuple[np.ndarray, list[np.ndarray]]:
    rng = np.random.default_rng(3)
    logits = 3 * rng.normal(size=(batch, len(WIDTHS), CLASSES))
    return logits.astype(np.float32), [rng.normal(size=(batch, width)).astype(np.float32) for width in WIDTHS]


def test_statistics_are_what_their_names_say() -> None:
    rng = np.random.default_rng(5)
    covariance = np.cov(rng.normal(size=(3, 50)))
    whitening = np.linalg.cholesky(np.linalg.inv(covariance)).astype(np.float32)
    means = rng.normal(size=(CLASSES, 3)).astype(np.float32)
    feature, logit = rng.normal(size=3).astype(np.float32), np.array([0.5, 3.0, -1.0, 2.0], np.float32)
    (row,) = reliability_statistics(feature[None], logit[None], whitening, means @ whitening)
    found = dict(zip(STATISTICS, row.tolist(), strict=True))
    shares = sorted(math.exp(z) / sum(map(math.exp, logit.tolist())) for z in logit.tolist())
    distances = [math.sqrt((feature - m) @ np.linalg.inv(covariance) @ (feature - m)) for m in means]
    assert found["max_prob"] == pytest.approx(shares[-1], abs=1e-6)
    assert found["margin"] == pytest.approx(shares[-1] - shares[-2], abs=1e-6)
    entropy = -sum(p * math.log(p) for p in shares)
    assert found["neg_entropy"] == pytest.approx(1 - entropy / math.log(CLASSES), abs=1e-6)
    assert found["energy"] == pytest.approx(math.log(sum(map(math.exp, logit.tolist()))), abs=1e-5)
    assert found["logit_norm"] == pytest.approx(math.hypot(*logit.tolist()), abs=1e-5)
    assert found["feature_norm"] == pytest.approx(math.log1p(math.hypot(*feature.tolist())), abs=1e-5)
    assert found["distance"] == pytest.approx(math.log1p(min(distances)), rel=1e-4)
    gap = math.log1p(distances[1]) - math.log1p(min(distances))
    assert found["distance_gap"] == pytest.approx(gap, abs=1e-4)
    assert found["nearest_is_vote"] == (0.0 if gap > 0.02 else 1.0)


def test_the_nearest_class_is_the_vote_or_not() -> None:
    means = np.eye(3, dtype=np.float32)
    logits = np.array([[9.0, 0, 0], [9.0, 0, 0]], np.float32)
    features = np.array([[1.0, 0, 0], [0, 0, 1.0]], np.float32)
    statistics = reliability_statistics(features, logits, means, means)
    assert statistics[:, STATISTICS.index("nearest_is_vote")].tolist() == [1.0, 0.0]
    assert statistics[:, STATISTICS.index("distance")].tolist() == [0.0, 0.0]


def test_reliability_is_the_network_written_out() -> None:
    (head, *_), (logits, features) = learned().reliability or (), inputs()
    statistics = reliability_statistics(features[0], logits[:, 0], head.whitening_DD, head.whitened_means_CD)
    for row, found in zip(statistics, reliability_of(features[0], logits[:, 0], head), strict=True):
        score = float(head.out_bias[0])
        for unit in range(len(head.hidden_bias_U)):
            inner = float(head.hidden_bias_U[unit])
            for k, value in enumerate(row):
                inner += float((value - head.offset_K[k]) / head.scale_K[k] * head.hidden_weight_KU[k, unit])
            score += math.tanh(inner) * float(head.out_weight_U[unit])
        assert found == pytest.approx(1 / (1 + math.exp(-score)), abs=1e-5)


def test_certainty_is_the_reliability_and_masked_slots_have_no_influence() -> None:
    (logits, features), parameters = inputs(), learned()
    assert parameters.reliability is not None
    present = np.array([[True, True, True], [True, False, False], [False, False, False]] * 2)
    fused = fuse(logits, present, SPEC, parameters, features)
    for index, head in enumerate(parameters.reliability):
        own = reliability_of(features[index], logits[:, index], head)
        np.testing.assert_allclose(fused.certainty_BH[:, index], np.where(present[:, index], own, 0), atol=1e-6)
    assert fused.certainty_BH[present].std() > 0.05, "the network tells nothing apart"
    poisoned = np.where(present[..., None], logits, np.float32(np.nan))
    rubbish = [np.where(present[:, [h]], own, np.float32(np.inf)) for h, own in enumerate(features)]
    again = fuse(poisoned, present, SPEC, parameters, rubbish)
    for name in ("probabilities_BC", "logits_BC", "certainty_BH", "weights_BH"):
        np.testing.assert_array_equal(getattr(fused, name), getattr(again, name))


def test_whatever_is_finite_gives_a_finite_answer() -> None:
    (logits, features), parameters = inputs(), learned()
    everything = np.ones((6, 3), np.bool_)
    for scale in (0.0, 1e3, 1e20, 1e37):
        sized = [(np.sign(own) * scale).astype(np.float32) for own in features]
        fused = fuse((np.sign(logits) * scale).astype(np.float32), everything, SPEC, parameters, sized)
        assert np.isfinite(fused.certainty_BH).all()
        assert np.isfinite(fused.probabilities_BC).all()


def test_what_is_missing_is_said() -> None:
    (logits, features), parameters = inputs(1), learned()
    assert parameters.reliability is not None
    everything = np.ones((1, 3), np.bool_)
    for given, seen in [
        (None, features),
        (FusionParameters(), features),
        (FusionParameters(parameters.reliability[:2]), features),
        (parameters, None),
        (parameters, features[:2]),
    ]:
        with pytest.raises(BundleError, match="needs learned parameters and features of all 3 heads"):
            fuse(logits, everything, SPEC, given, seen)


def test_parameters_go_through_arrays_and_back() -> None:
    parameters = learned()
    arrays = parameters.arrays()
    back = FusionParameters.from_arrays(arrays).arrays()
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        assert back[name].dtype == np.float32
        np.testing.assert_array_equal(back[name], array)
    assert FusionParameters().arrays() == {}
    assert FusionParameters.from_arrays({}).reliability is None
    del arrays["reliability.1.scale_K"]
    with pytest.raises(BundleError, match=r"lack 'reliability\.1\.scale_K'"):
        FusionParameters.from_arrays(arrays)
