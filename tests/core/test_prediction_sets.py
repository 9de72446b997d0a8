"""Thresholds and sets against MAPIE's, and against their definition counted out clip by clip."""

from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from dimml.bundle import Bundle
from dimml.errors import ConfigurationError, DataError, InvalidParameterError
from dimml.modality import patterns_of
from dimml.prediction import AbstainReason, Prediction
from dimml.prediction_sets.answers import answer_sets, check_abstention
from dimml.prediction_sets.thresholds import (
    PatternThreshold,
    PredictionSets,
    conformal_rank,
    fewest_clips,
    in_set,
    parse_share,
    pattern_threshold,
    scores_of,
)
from dimml.request_parameters import Abstention, abstention_of
from dimml.status import OK, ModalityStatus, Reason
from support.tiny_sets import bundle_of_sets, tiny_sets

#: Made by scripts/mapie_sets.py.
MAPIE = json.loads(Path(__file__).with_name("mapie_sets.json").read_text())
DEADLINE = ModalityStatus.because(Reason.DEADLINE)


#: In the first case MAPIE's product of floats, 100 * (1 - 0.45), is above 55, and its rank is one too high.
FLOAT_TRAP, *CASES = MAPIE["cases"]


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['clips']} clips at {c['coverage']}")
def test_thresholds_and_sets_are_those_of_mapie(case: dict[str, Any]) -> None:
    p, labels, clips = np.array(case["probabilities"]), np.array(case["labels"]), case["clips"]
    found = pattern_threshold(["audio"], scores_of(p[:clips], labels[:clips]), Decimal(case["coverage"]))
    assert abs(found.threshold - case["threshold"]) < 1e-12
    ours = in_set(p[clips:], np.full(len(p) - clips, found.threshold))
    theirs = np.array(case["sets"], bool)
    # Ours are never empty: where MAPIE's is, ours holds the most probable label alone.
    empty = ~theirs.any(axis=1)
    theirs[empty, p[clips:][empty].argmax(axis=1)] = True
    assert np.array_equal(ours, theirs)


def test_where_a_product_of_floats_is_a_rank_too_high_ours_is_not() -> None:
    p, labels, clips = np.array(FLOAT_TRAP["probabilities"]), np.array(FLOAT_TRAP["labels"]), FLOAT_TRAP["clips"]
    scores = np.sort(scores_of(p[:clips], labels[:clips]))
    assert (clips, FLOAT_TRAP["coverage"]) == (99, "0.55")
    assert FLOAT_TRAP["threshold"] == pytest.approx(scores[55], abs=1e-12)
    assert pattern_threshold(["audio"], scores, Decimal("0.55")).threshold == scores[54]


def test_the_cases_of_mapie_hold_empty_and_larger_sets() -> None:
    sizes = [sum(one) for case in MAPIE["cases"] for one in case["sets"]]
    assert min(sizes) == 0
    assert max(sizes) > 2


@pytest.mark.parametrize("coverage", ["0.5", "0.55", "0.8", "0.9", "0.95", "0.999"])
def test_a_threshold_is_the_least_score_that_enough_clips_do_not_exceed(coverage: str) -> None:
    """The rank by its definition: the least k with k / (n + 1) >= c, counted up in exact numbers."""
    share = Fraction(coverage)
    for clips in range(1, 120):
        rank = next(k for k in range(clips + 2) if Fraction(k, clips + 1) >= share)
        assert conformal_rank(clips, Decimal(coverage)) == rank
        assert (rank <= clips) == (clips >= fewest_clips(Decimal(coverage)))


def test_a_coverage_is_read_as_written_and_not_as_a_float() -> None:
    assert 100 * 0.55 > 55, "the trap: ceil of this float is 56"
    assert conformal_rank(99, parse_share("0.55", "coverage", "0.9")) == 55
    scores = np.random.default_rng(0).permutation(99) / 100
    assert pattern_threshold(["audio"], scores, parse_share("0.55", "coverage", "0.9")).threshold == 0.54


def test_too_few_clips_are_refused_with_the_number_that_is_enough() -> None:
    with pytest.raises(DataError, match=r"needs 9 calibration clips with audio and visual, and there are 8"):
        pattern_threshold(["audio", "visual"], np.zeros(8), Decimal("0.9"))
    assert pattern_threshold(["audio"], np.arange(9) / 10, Decimal("0.9")).threshold == 0.8


@pytest.mark.parametrize("text", ["0", "1", "1.5", "-0.1", "nan", "inf", "90%", ""])
def test_a_coverage_out_of_range_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="above 0 and below 1"):
        parse_share(text, "coverage", "0.9")


def test_coverage_holds_on_new_clips() -> None:
    """The promise, on made-up answers whose probabilities are far from calibrated: 0.8 of new labels are in the set."""
    rng = np.random.default_rng(3)
    covered = []
    for _ in range(400):
        p = rng.dirichlet(np.full(4, 0.4), 80)
        labels = np.array([rng.choice(4, p=0.5 * one + 0.125) for one in p])
        threshold = pattern_threshold(["audio"], scores_of(p[:40], labels[:40]), Decimal("0.8")).threshold
        covered.append(in_set(p[40:], np.full(40, threshold))[np.arange(40), labels[40:]].mean())
    # 16,000 answers with thresholds of 400 draws: a standard error of 0.0038.
    assert np.mean(covered) > 0.8 - 3 * 0.0038


def test_a_label_on_the_threshold_is_in_the_set_on_every_engine() -> None:
    score = scores_of(np.array([[0.3, 0.7]], np.float32), np.array([0]))
    other_engine = np.nextafter(np.float32(0.3), np.float32(0))
    assert in_set(np.array([[other_engine, 0.7]], np.float32), score).tolist() == [[True, True]]


def statuses(*columns: str) -> dict[str, list[ModalityStatus]]:
    """Columns for audio and visual: ``+`` where a row has the modality."""
    return {
        name: [OK if mark == "+" else DEADLINE for mark in marks]
        for name, marks in zip(("audio", "visual"), columns, strict=True)
    }


def with_sets(**limits: Any) -> Bundle:
    return bundle_of_sets(prediction_sets=tiny_sets(0.5, 0.8, 0.95, **limits))


def test_each_row_has_the_threshold_of_its_own_pattern() -> None:
    p = np.tile(np.array([[0.60, 0.25, 0.15]], np.float32), (4, 1))
    found = answer_sets(with_sets(), p, statuses("++--", "+-+-"), {})
    assert found is not None
    # Whole: 1 - p <= 0.5; sound alone: 0.8; picture alone: 0.95; the last row is no answer.
    assert found.set_BC.tolist() == [
        [True, False, False],
        [True, True, False],
        [True, True, True],
        [False, False, False],
    ]
    assert found.labels(1, ("red", "green", "blue"), p[1]) == ["red", "green"]
    assert list(found.reasons) == [None] * 4


def test_labels_of_a_set_stand_in_order_of_falling_probability() -> None:
    p = np.array([[0.3, 0.25, 0.45]], np.float32)
    found = answer_sets(with_sets(), p, statuses("-", "+"), {})
    assert found is not None
    assert found.labels(0, ("red", "green", "blue"), p[0]) == ["blue", "red", "green"]


@pytest.mark.parametrize(
    ("bundled", "asked", "reason"),
    [
        ({}, {}, None),
        ({"abstain_below": 0.7}, {}, "low_probability"),
        ({"abstain_below": 0.7}, {"abstain_below": 0.0}, None),
        ({}, {"abstain_below": 0.61}, "low_probability"),
        ({"max_set_size": 1}, {}, "large_set"),
        ({"max_set_size": 1}, {"max_set_size": 2}, None),
        ({}, {"max_set_size": 1, "abstain_below": 0.5}, "large_set"),
        ({"abstain_below": 0.7}, {"max_set_size": 1}, "low_probability"),
    ],
)
def test_a_request_sets_its_own_limits_and_otherwise_the_bundle_does(
    bundled: dict[str, Any], asked: dict[str, Any], reason: str | None
) -> None:
    p = np.array([[0.60, 0.25, 0.15]], np.float32)
    found = answer_sets(with_sets(**bundled), p, statuses("+", "-"), {}, Abstention(**asked))
    assert found is not None
    assert list(found.reasons) == [None if reason is None else AbstainReason(reason)]


def test_a_bundle_without_thresholds_gives_no_sets_and_refuses_limits() -> None:
    plain = bundle_of_sets()
    assert answer_sets(plain, np.full((1, 2), 0.5, np.float32), statuses("+", "+"), {}) is None
    check_abstention(plain, Abstention())
    with pytest.raises(InvalidParameterError, match="dimml calibrate RUN --coverage") as refused:
        check_abstention(plain, Abstention(max_set_size=2))
    assert refused.value.field == "max_set_size"


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"abstain_below": 1.1}, "abstain_below"),
        ({"abstain_below": float("nan")}, "abstain_below"),
        ({"abstain_below": "0.5"}, "abstain_below"),
        ({"abstain_below": True}, "abstain_below"),
        ({"max_set_size": 0}, "max_set_size"),
        ({"max_set_size": 1.5}, "max_set_size"),
    ],
)
def test_limits_out_of_range_are_refused(parameters: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidParameterError) as refused:
        abstention_of(parameters)
    assert refused.value.field == field


def test_a_manifest_keeps_its_thresholds_to_the_last_bit() -> None:
    sets = tiny_sets(1 / 3, 0.1 + 0.2, np.nextafter(0.7, 1.0))
    again = PredictionSets.model_validate_json(sets.model_dump_json())
    assert again == sets
    assert str(again.coverage) == "0.9"
    assert [again.thresholds[pattern] for pattern in patterns_of(("audio", "visual"))] == [
        1 / 3,
        0.1 + 0.2,
        np.nextafter(0.7, 1.0),
    ]


def test_a_manifest_needs_a_threshold_for_every_pattern() -> None:
    whole = tiny_sets(0.5, 0.5, 0.5)
    with pytest.raises(ValidationError, match="no threshold for answers from visual"):
        bundle_of_sets(prediction_sets=whole.model_copy(update={"patterns": whole.patterns[:2]}))
    other = PatternThreshold(modalities=("smell",), clips=9, rank=9, threshold=0.5)
    with pytest.raises(ValidationError, match="a threshold names 'smell'"):
        bundle_of_sets(prediction_sets=whole.model_copy(update={"patterns": (*whole.patterns, other)}))
    with pytest.raises(ValidationError, match="two thresholds"):
        PredictionSets(coverage=Decimal("0.9"), folds=0, patterns=(*whole.patterns, whole.patterns[0]))


def test_answers_without_sets_are_byte_for_byte_as_before() -> None:
    answer = Prediction(
        request_id="r", model="m", version=1, label="a", probability=1.0, predictions=[], degraded=False, modalities={}
    )
    assert answer.model_dump_json(exclude=answer.not_asked_for) == (
        '{"request_id":"r","model":"m","version":1,"label":"a","probability":1.0,"predictions":[],"degraded":false,'
        '"truncated":false,"truncations":{},"modalities":{},"fused_head":null,"start_s":null,"end_s":null,'
        '"timings_ms":null}'
    )
    sure = answer.model_copy(update={"set": ["a"], "abstained": False})
    assert sure.model_dump_json(exclude=sure.not_asked_for).endswith(
        ',"set":["a"],"abstained":false,"abstained_reason":null}'
    )


def test_a_manifest_of_before_keeps_its_hash() -> None:
    plain = bundle_of_sets()
    assert "prediction_sets" in plain.model_dump()
    before = plain.model_dump_json(exclude={"prediction_sets": True})
    assert Bundle.model_validate_json(before).sha256 == plain.sha256
    assert bundle_of_sets(prediction_sets=tiny_sets(0.5, 0.5, 0.5)).sha256 != plain.sha256
