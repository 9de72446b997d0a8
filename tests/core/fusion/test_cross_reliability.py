"""Cross-head reliability, in numpy, against sums written out, under every order and every absence of modalities."""

from __future__ import annotations

import math
from itertools import permutations, product

import numpy as np
import pytest

from dimml.errors import BundleError
from dimml.fusion import (
    ALONE,
    CROSS_STATISTICS,
    FIRST_OF_OTHERS,
    OTHERS,
    OWN_STATISTICS,
    STATISTICS,
    FusionParameters,
    FusionSpec,
    cross_statistics,
    fuse,
    heads_present,
    neighbour_cosine,
    reliability_statistics,
)
from support.reliability import random_reliability

CLASSES, WIDTHS = 4, (5, 3, 6)
HEADS = [random_reliability(np.random.default_rng(h), w, CLASSES, cross=True) for h, w in enumerate(WIDTHS)]
PAIR = ("of_vote", "of_their_vote", "divergence", "agreement")


def inputs(rows: int = 5) -> tuple[list[np.ndarray], np.ndarray]:
    rng = np.random.default_rng(3)
    features = [rng.normal(size=(rows, width)).astype(np.float32) for width in WIDTHS]
    return features, (2 * rng.normal(size=(rows, len(WIDTHS), CLASSES))).astype(np.float32)


def shares(logits: np.ndarray) -> list[float]:
    total = sum(math.exp(z) for z in logits.tolist())
    return [math.exp(z) / total for z in logits.tolist()]


def written_out(p: list[float], q: list[float]) -> dict[str, float]:
    """The statistics of a pair, of the head with ``p``, by their definitions."""
    mine, theirs = p.index(max(p)), q.index(max(q))
    middle = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    divergence = sum(
        sum(a * math.log2(a / m) for a, m in zip(own, middle, strict=True)) / 2 for own in (p, q)
    )  # Kullback-Leibler to the mixture, and not, as computed, a difference of entropies.
    return {
        "of_vote": q[mine],
        "of_their_vote": p[theirs],
        "divergence": divergence,
        "agreement": float(mine == theirs),
    }


def statistics(present: np.ndarray, modalities: int = 3) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    features, logits = inputs(len(present))
    return cross_statistics(features, logits, present, HEADS, modalities), features, logits


def test_with_two_modalities_the_others_are_the_other() -> None:
    found, features, logits = statistics(np.array([[True, True, False]] * 5))
    for row, (head, other) in product(range(5), ((0, 1), (1, 0))):
        by_name = dict(zip(CROSS_STATISTICS, found[row, head].tolist(), strict=True))
        wanted = written_out(shares(logits[row, head]), shares(logits[row, other]))
        assert {name: by_name[name] for name in PAIR} == pytest.approx(wanted, abs=1e-5)
        own = HEADS[other]
        (theirs,) = reliability_statistics(
            features[other][[row]], logits[[row], other], own.whitening_DD, own.whitened_means_CD
        )
        for name in OTHERS[:-1]:
            assert by_name[f"other_{name}"] == pytest.approx(float(theirs[STATISTICS.index(name)]), abs=1e-5)
        assert by_name["other_neighbour_cosine"] == found[row, other, OWN_STATISTICS.index("neighbour_cosine")]
        assert by_name["alone"] == 0


def test_several_others_are_averaged_and_the_fused_head_is_none() -> None:
    found, _, logits = statistics(np.ones((5, 3), np.bool_))
    pairs = [written_out(shares(logits[0, 0]), shares(logits[0, other])) for other in (1, 2)]
    for name in PAIR:
        mean = (pairs[0][name] + pairs[1][name]) / 2
        assert found[0, 0, CROSS_STATISTICS.index(name)] == pytest.approx(mean, abs=1e-5)
    fused, _, _ = statistics(np.ones((5, 3), np.bool_), modalities=2)
    only, _, _ = statistics(np.array([[True, True, False]] * 5))
    np.testing.assert_array_equal(fused[:, :2], only[:, :2])
    assert fused[0, 2, CROSS_STATISTICS.index("agreement")] in (0, 0.5, 1)


def test_the_order_of_modalities_does_not_matter() -> None:
    features, logits = inputs()
    for present in product([True, False], repeat=3):
        present_BH = np.array([present] * 5)
        found = cross_statistics(features, logits, present_BH, HEADS, 3)
        for order in permutations(range(3)):
            places = list(order)
            again = cross_statistics(
                [features[h] for h in places], logits[:, places], present_BH[:, places], [HEADS[h] for h in places], 3
            )
            np.testing.assert_allclose(again, found[:, places], atol=1e-6)


def test_a_head_alone_says_so_and_the_others_have_no_influence() -> None:
    spec = FusionSpec(certainty="cross_reliability", fused_head=False, pooling="product")
    features, logits = inputs()
    present = np.array([[True, False, False]] * 5)
    found = cross_statistics(features, logits, present, HEADS, 3)
    assert (found[:, 0, ALONE] == 1).all()
    assert (found[:, 0, FIRST_OF_OTHERS:ALONE] == 0).all()
    assert (found[:, 1, ALONE] == 0).all(), "a head that is not there itself still sees the first"
    fused = fuse(logits, present, spec, FusionParameters(tuple(HEADS)), features)
    features[1][:], logits[:, 2] = np.nan, np.nan
    again = fuse(logits, present, spec, FusionParameters(tuple(HEADS)), features)
    np.testing.assert_array_equal(fused.certainty_BH, again.certainty_BH)
    assert (fused.certainty_BH[:, 1:] == 0).all()


def test_the_network_sees_nothing_of_others_that_are_not_there() -> None:
    features, logits = inputs(1)
    (head, *_), alone = HEADS, heads_present(np.array([[True, False, False]]), fused_head=False)
    statistics_K = cross_statistics(features, logits, alone, HEADS, 3)[0, 0]
    score = float(head.out_bias[0])
    for unit in range(len(head.hidden_bias_U)):
        inner = float(head.hidden_bias_U[unit])
        for k in [*range(FIRST_OF_OTHERS), ALONE]:
            standard = (statistics_K[k] - head.offset_K[k]) / head.scale_K[k]
            inner += float(standard * head.hidden_weight_KU[k, unit])
        score += math.tanh(inner) * float(head.out_weight_U[unit])
    spec = FusionSpec(certainty="cross_reliability", fused_head=False)
    fused = fuse(logits, alone, spec, FusionParameters(tuple(HEADS)), features)
    assert fused.certainty_BH[0, 0] == pytest.approx(1 / (1 + math.exp(-score)), abs=1e-5)


def test_the_cosine_is_of_the_ten_nearest() -> None:
    angles = np.linspace(0, math.pi, 15)
    stored = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    feature = np.array([[3.0, 0.0], [0.0, 0.0]], np.float32)
    wanted = np.mean([math.cos(angle) for angle in angles[:10]])
    np.testing.assert_allclose(neighbour_cosine(feature, stored), [wanted, 0], atol=1e-6)
    np.testing.assert_allclose(neighbour_cosine(feature, stored[:2]), [np.cos(angles[:2]).mean(), 0], atol=1e-6)


def test_parameters_go_through_arrays_and_back_and_what_is_missing_is_said() -> None:
    arrays = FusionParameters(tuple(HEADS)).arrays()
    back = FusionParameters.from_arrays(arrays)
    assert back.arrays().keys() == arrays.keys()
    del arrays["reliability.1.neighbours_ND"]
    features, logits = inputs()
    spec = FusionSpec(certainty="cross_reliability", fused_head=False)
    with pytest.raises(BundleError, match="training features of every head; head 1 has none"):
        fuse(logits, np.ones((5, 3), np.bool_), spec, FusionParameters.from_arrays(arrays), features)
