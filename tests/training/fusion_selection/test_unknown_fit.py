"""Fitting what tells an unknown class, on features whose truth is known."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest

from dimml.errors import DataError
from dimml.modality import patterns_of
from dimml.prediction_sets.unknown import UnknownClass
from dimml_training.evaluation.heads import HeadLogits
from dimml_training.fusion_selection.held_out import PatternAnswers
from dimml_training.fusion_selection.unknown_fit import fit_unknown

NAMES, CLASSES, WIDTH = ("audio", "visual"), 3, 6


def votes(clips: int, rng: np.random.Generator, *, unknown: bool = False) -> HeadLogits:
    """Features around class means on the axes, or around a point of no class."""
    labels = rng.integers(0, CLASSES, clips)
    centres = np.full((clips, WIDTH), -2.0) if unknown else 4 * np.eye(CLASSES, WIDTH)[labels]
    features = tuple((centres + rng.standard_normal((clips, WIDTH))).astype(np.float32) for _ in NAMES)
    return HeadLogits(
        heads=NAMES,
        logits_NHC=np.zeros((clips, 2, CLASSES), np.float32),
        present_NH=np.ones((clips, 2), np.bool_),
        labels_N=labels,
        features=features,
    )


def answers(of: HeadLogits) -> list[PatternAnswers]:
    """Answers from every pattern, which say nothing of the class."""
    rng, found = np.random.default_rng(9), []
    for pattern in patterns_of(NAMES):
        there = of.present_NH[:, [NAMES.index(name) for name in pattern]].all(axis=1)
        labels = of.labels_N[there]
        p = rng.dirichlet(np.ones(CLASSES), len(labels)).astype(np.float32)
        found.append(PatternAnswers(pattern, p, labels))
    return found


def fit(train: HeadLogits, validation: HeadLogits, rate: str) -> UnknownClass:
    return fit_unknown(
        train, validation, NAMES, classes=CLASSES, false_alarms=Decimal(rate), answers=answers(validation)
    )


def test_the_score_that_tells_classes_left_out_is_chosen_for_each_pattern() -> None:
    """Features tell classes; then those of the sound tell nothing, and its answers are unsure of a class left out.

    With one class of three left out, an answer that is 0.8 sure and splits the rest has 0.5 at most; others 0.89.
    """
    rng = np.random.default_rng(4)
    train, validation = votes(300, rng), votes(300, rng)
    assert {of.score for of in fit(train, validation, "0.1").patterns} == {"mahalanobis"}
    noise = [rng.standard_normal((300, WIDTH)).astype(np.float32) for _ in range(2)]
    train, validation = (
        replace(of, features=(own, of.features[1])) for of, own in zip((train, validation), noise, strict=True)
    )
    sure = np.where(np.eye(CLASSES, dtype=bool)[validation.labels_N], 0.8, 0.1).astype(np.float32)
    given = answers(validation)
    given[1] = replace(given[1], probabilities_KC=sure)
    found = fit_unknown(train, validation, NAMES, classes=CLASSES, false_alarms=Decimal("0.1"), answers=given)
    assert [(of.modalities, of.score) for of in found.patterns] == [
        (("audio", "visual"), "mahalanobis"),
        (("audio",), "max_softmax"),
        (("visual",), "mahalanobis"),
    ]
    assert found.patterns[1].threshold == pytest.approx(0.2, abs=1e-6)
    every = [replace(own, probabilities_KC=sure) for own in given]
    assert (
        fit_unknown(train, validation, NAMES, classes=CLASSES, false_alarms=Decimal("0.1"), answers=every).modalities
        == {}
    )


def test_false_alarms_are_as_many_as_allowed_and_unknown_ones_are_found() -> None:
    rng = np.random.default_rng(1)
    alarms: dict[tuple[str, ...], list[float]] = {pattern: [] for pattern in patterns_of(NAMES)}
    any_p = np.ones((200, CLASSES))
    for _ in range(40):
        found = fit(votes(200, rng), votes(79, rng), "0.1")
        known, other = votes(200, rng), votes(200, rng, unknown=True)
        for pattern, shares in alarms.items():
            fresh = dict(zip(NAMES, known.features, strict=True))
            shares.append(np.mean(found.unknown(fresh, [pattern] * 200, any_p)))
            strange = dict(zip(NAMES, other.features, strict=True))
            assert np.mean(found.unknown(strange, [pattern] * 200, any_p)) > 0.6
    # 8000 clips, and 40 thresholds of 79 clips each: a standard error below 0.007.
    for shares in alarms.values():
        assert np.mean(shares) == pytest.approx(0.1, abs=0.021)


def test_too_few_clips_for_the_rate_are_refused() -> None:
    rng = np.random.default_rng(2)
    with pytest.raises(DataError, match="needs 19 validation clips with audio and visual, and there are 18"):
        fit(votes(60, rng), votes(18, rng), "0.05")


def test_clips_count_for_the_modalities_that_they_have() -> None:
    rng = np.random.default_rng(3)
    validation = votes(40, rng)
    validation.present_NH[:10, 1] = False
    found = fit(votes(60, rng), validation, "0.1")
    assert {pattern.modalities: pattern.clips for pattern in found.patterns} == {
        ("audio", "visual"): 30,
        ("audio",): 40,
        ("visual",): 30,
    }
