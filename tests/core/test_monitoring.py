"""Drift against scipy's statement of it and against chance itself; what a row of an answer has to say."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.spatial.distance import jensenshannon
from scipy.stats import chi2

from dimml.bundle import Bundle
from dimml.digests import historic
from dimml.ensemble import EnsembleResult
from dimml.fusion import fuse, heads_present, softmax
from dimml.metrics.buckets import UNIT_BUCKETS
from dimml.monitoring.accuracy import SlidingMean, patterns
from dimml.monitoring.drift import SlidingCounts, jensen_shannon_distance, noise_distance
from dimml.monitoring.observation import MAX_LABELS, OTHER_LABELS, label_name, label_series, observations
from dimml.monitoring.reference import Reference, reference_of
from dimml.status import OK, ModalityStatus, Reason

LABELS = (4, 6)


def test_the_distance_is_scipys() -> None:
    rng = np.random.default_rng(0)
    for bins in (2, 5, 13, 400):
        for _ in range(20):
            ours, theirs = (rng.multinomial(200, rng.dirichlet(np.full(bins, 0.3))) for _ in range(2))
            assert jensen_shannon_distance(ours, theirs) == pytest.approx(jensenshannon(ours, theirs, base=2), abs=1e-9)


def test_the_distance_ends_at_nought_and_one() -> None:
    assert jensen_shannon_distance(np.array([3, 0, 1]), np.array([6, 0, 2])) == 0.0
    assert jensen_shannon_distance(np.array([3, 0, 0]), np.array([0, 1, 2])) == pytest.approx(1.0)


@pytest.mark.parametrize(("bins", "rows", "clips"), [(4, 100, 300), (10, 500, 300), (13, 200, 1000), (50, 500, 5000)])
def test_chance_alone_seldom_passes_the_noise(bins: int, rows: int, clips: int) -> None:
    rng = np.random.default_rng(bins)
    shares = rng.dirichlet(np.full(bins, 5.0))
    pairs = [(rng.multinomial(rows, shares), rng.multinomial(clips, shares)) for _ in range(4000)]
    passed = np.mean([jensen_shannon_distance(*pair) > noise_distance(*pair) for pair in pairs])
    assert passed < 0.008  # about one in a thousand: the formula is of second order
    # Nor is it far above: a third nearer, and chance passes it often.
    nearer = np.mean([jensen_shannon_distance(*pair) > 0.67 * noise_distance(*pair) for pair in pairs])
    assert nearer > 0.03


def test_the_noise_is_chi_squareds_quantile() -> None:
    for bins in (2, 10, 100):
        counts = np.ones(bins, np.int64) * 7
        exact = chi2.ppf(0.999, bins - 1) * (2 / counts.sum()) / (8 * np.log(2))
        assert noise_distance(counts, counts) == pytest.approx(min(1.0, np.sqrt(exact)), rel=0.02)


def test_a_window_forgets_and_says_nothing_below_the_minimum() -> None:
    rng = np.random.default_rng(3)
    counts, seen = SlidingCounts(5, 40), []
    reference = (10, 20, 30, 0, 5)
    for number in range(200):
        seen.append(int(rng.integers(5)))
        counts.add(seen[-1])
        drift = counts.drift(reference, minimum=10)
        if number < 9:
            assert drift is None
        else:
            assert drift is not None
            last = np.bincount(seen[-40:], minlength=5)
            assert drift.distance == pytest.approx(jensenshannon(last, reference, base=2), abs=1e-9)


def test_a_reference_counts_what_numpy_counts() -> None:
    rng = np.random.default_rng(1)
    present = rng.random((200, 3)) < 0.8
    certainty, answers = rng.random((200, 3)), rng.dirichlet(np.ones(4), 200)
    certainty[0] = 1.0 + 1e-7  # single precision
    reference = reference_of(("audio", "visual", "fused"), certainty, present, answers)
    assert reference is not None
    for index, head in enumerate(("audio", "visual", "fused")):
        there = np.minimum(certainty[present[:, index], index], 1.0)
        expected = np.histogram(there, bins=[-1.0, *UNIT_BUCKETS])[0]
        assert reference.certainty[head] == tuple(expected)
    assert reference.labels == tuple(np.bincount(answers[present.any(axis=1)].argmax(axis=1), minlength=4))
    assert [reference.certainty_bin(value) for value in (0.0, 0.05, 0.051, 1.0, 1.0001)] == [0, 0, 1, 12, 12]
    assert reference_of(("audio",), certainty[:, :1], np.zeros((200, 1), np.bool_), answers) is None


def test_a_head_that_never_votes_has_no_reference() -> None:
    present = np.array([[True, False], [True, False]])
    reference = reference_of(("audio", "visual"), np.ones((2, 2)), present, np.eye(2))
    assert reference is not None
    assert set(reference.certainty) == {"audio"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"certainty": {"audio": [1, 2]}}, "has 2 bins, not 13"),
        ({"certainty": {"audio": [0] * 13}}, "counts no clip"),
        ({"certainty": {"audio": [-1] * 13}}, "greater than or equal to 0"),
        ({"labels": [0, 0]}, "labels counts no clip"),
        ({"certainty_bounds": [0.5, 0.5, 1.0]}, "must ascend"),
        ({"answer_probability": {"audio": 0.0}}, "greater than 0"),
        ({"answer_probability": {"audio": 1.1}}, "less than or equal to 1"),
    ],
)
def test_a_bad_reference_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Reference.model_validate({"labels": LABELS, **changes})


def bundle(labels: int = 2, **changes: Any) -> Bundle:
    sound = {"kind": "waveform", "name": "audio", "sample_rate_hz": 8000, "samples": 8000}
    picture = {"kind": "frames", "name": "visual", "frames": 2, "height": 8, "width": 8}
    return Bundle.model_validate(
        {
            "name": "toy",
            "version": 1,
            "labels": [f"class {number}" for number in range(labels)],
            "clip_s": 1.0,
            "encoders": [{"modality": sound, "features": 4}, {"modality": picture, "features": 6}],
            "fusion": {"fused_head": True},
            "created": "2026-01-01T00:00:00Z",
            "dimml_version": "0",
            **changes,
        }
    )


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ({"labels": [1, 2, 3]}, "counts 3 labels of 2"),
        ({"labels": LABELS, "certainty": {"x": [1] * 13}}, "names 'x'"),
        ({"labels": LABELS, "answer_probability": {"visual+audio": 0.5}}, r"names 'visual\+audio', .*'audio\+visual'"),
    ],
)
def test_a_reference_must_be_the_bundles(reference: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        bundle(reference=reference)


def test_a_reference_of_an_earlier_export_keeps_the_manifests_digest() -> None:
    before = bundle(reference={"labels": LABELS})
    assert "answer_probability" not in historic(before)
    assert historic(before)["reference"] == {"answer_probability": True}
    now = bundle(reference={"labels": LABELS, "answer_probability": {"audio": 0.5}})
    assert now.sha256 != before.sha256


def test_patterns_are_all_sets_of_modalities_but_the_empty_one() -> None:
    assert patterns(["a", "b", "c"]) == ("a+b+c", "a+b", "a+c", "b+c", "a", "b", "c")


def test_a_sliding_mean_is_that_of_the_last_values_to_the_last_digit() -> None:
    values = [1e16, 1.0, -1e16, *np.random.default_rng(3).random(40).tolist()]
    mean = SlidingMean(10)
    for number, value in enumerate(values, start=1):
        mean.add(value)
        last = values[:number][-10:]
        assert mean.sum_and_count() == (math.fsum(last), len(last))


def test_a_manifest_without_a_reference_loads() -> None:
    document = bundle().model_dump()
    del document["reference"]
    assert Bundle.model_validate(document).reference is None


def test_what_rows_have_to_say() -> None:
    rng = np.random.default_rng(2)
    silent, left_out = ModalityStatus.because(Reason.SILENT), ModalityStatus.because(Reason.NOT_REQUESTED)
    statuses = {"audio": [OK, silent, left_out, silent], "visual": [OK, OK, OK, silent]}
    present = np.array([[s.ok for s in row] for row in zip(*statuses.values(), strict=True)])
    logits = {name: rng.normal(size=(4, 2)).astype(np.float32) for name in statuses}
    stacked = np.stack([*logits.values(), sum(logits.values())], axis=1).astype(np.float32)
    fused = fuse(stacked, heads_present(present, fused_head=True))
    rows = list(observations(bundle(), EnsembleResult(fused, logits, statuses, {}, 0.0)))
    assert [set(row.heads) for row in rows] == [{"audio", "visual", "fused"}, {"visual"}, {"visual"}]
    assert [row.degraded for row in rows] == [False, True, False]
    assert [row.answer for row in rows] == list(fused.logits_BC[:3].argmax(axis=1))
    # Two draws differ: the sum over all pairs of different labels.
    audio, visual = softmax(logits["audio"][0]), softmax(logits["visual"][0])
    differ = sum(audio[i] * visual[j] for i in range(2) for j in range(2) if i != j)
    assert rows[0].disagreement == pytest.approx(differ, abs=1e-6)
    assert [row.disagreement for row in rows[1:]] == [None, None]
    assert rows[1].heads["visual"] == (fused.certainty_BH[1, 1], fused.weights_BH[1, 1])


def test_labels_are_bounded() -> None:
    few, many = bundle(3), bundle(MAX_LABELS + 5)
    assert label_series(few) == few.labels
    assert len(label_series(many)) == MAX_LABELS + 1
    counted = Counter(label_name(many, answer) for answer in range(many.classes))
    assert set(counted) == set(label_series(many))
    assert counted[OTHER_LABELS] == 5
