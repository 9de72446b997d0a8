"""Fitting what tells an unknown class, on features whose truth is known."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest

from dimml.errors import DataError
from dimml.modality import patterns_of
from dimml_training.evaluation.heads import HeadLogits
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


def test_false_alarms_are_as_many_as_allowed_and_unknown_ones_are_found() -> None:
    rng = np.random.default_rng(1)
    alarms: dict[tuple[str, ...], list[float]] = {pattern: [] for pattern in patterns_of(NAMES)}
    for _ in range(40):
        found = fit_unknown(votes(200, rng), votes(79, rng), NAMES, CLASSES, Decimal("0.1"))
        known, other = votes(200, rng), votes(200, rng, unknown=True)
        for pattern, shares in alarms.items():
            fresh = dict(zip(NAMES, known.features, strict=True))
            shares.append(found.unknown(fresh, [pattern] * 200).mean())
            strange = dict(zip(NAMES, other.features, strict=True))
            assert found.unknown(strange, [pattern] * 200).mean() > 0.6
    # 8000 clips, and 40 thresholds of 79 clips each: a standard error below 0.007.
    for shares in alarms.values():
        assert np.mean(shares) == pytest.approx(0.1, abs=0.021)


def test_too_few_clips_for_the_rate_are_refused() -> None:
    rng = np.random.default_rng(2)
    with pytest.raises(DataError, match="needs 19 validation clips with audio and visual, and there are 18"):
        fit_unknown(votes(60, rng), votes(18, rng), NAMES, CLASSES, Decimal("0.05"))


def test_clips_count_for_the_modalities_that_they_have() -> None:
    rng = np.random.default_rng(3)
    validation = votes(40, rng)
    validation.present_NH[:10, 1] = False
    found = fit_unknown(votes(60, rng), validation, NAMES, CLASSES, Decimal("0.1"))
    assert {pattern.modalities: pattern.clips for pattern in found.patterns} == {
        ("audio", "visual"): 30,
        ("audio",): 40,
        ("visual",): 30,
    }
