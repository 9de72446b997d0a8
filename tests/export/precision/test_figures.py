"""What reduced precision costs, in figures by hand, and what it may cost."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dimml.fusion import FusionSpec, fuse
from dimml_export.precision.figures import agreement, answer_loss, faults, figures_of, harmful, head_losses
from dimml_training.evaluation.heads import HeadLogits

SPEC = FusionSpec(fused_head=False, head_temperatures=(2.0, 1.0))


def votes(second: list[float], present: list[list[bool]] | None = None) -> HeadLogits:
    """Two heads and classes, four clips of class 0; each head's margin for class 0, the first's always 2."""
    margins = np.stack([np.full(4, 2.0), np.array(second)], axis=1).astype(np.float32)
    logits = np.stack([margins / 2, -margins / 2], axis=2)
    there = np.ones((4, 2), np.bool_) if present is None else np.array(present)
    return HeadLogits(("audio", "visual"), logits, there, np.zeros(4, np.int64))


def figures(of: HeadLogits) -> dict[str, Any]:
    return figures_of(of, fuse(of.logits_NHC, of.present_NH, SPEC), SPEC)


def sigmoid(x: float) -> float:
    return 1 / (1 + float(np.exp(-x)))


def test_heads_are_judged_at_their_temperature_where_they_vote() -> None:
    there = [[True, True], [True, True], [True, True], [True, False]]
    found = figures(votes([3.0, 3.0, -1.0, -1.0], there))
    assert found["heads"]["audio"]["accuracy"] == 1.0
    # Always right with the probability that a margin of 2 at temperature 2 gives.
    assert found["heads"]["audio"]["ece"] == pytest.approx(1 - sigmoid(1.0), abs=1e-6)
    assert found["heads"]["visual"]["accuracy"] == pytest.approx(2 / 3)
    expected = (2 * (1 - sigmoid(3.0)) + sigmoid(1.0)) / 3
    assert found["heads"]["visual"]["ece"] == pytest.approx(expected, abs=1e-6)
    silent = figures(votes([1.0] * 4, [[True, False]] * 4))
    assert silent["heads"]["visual"] == {"accuracy": None, "ece": None}


def test_agreement_counts_equal_labels_of_clips_in_which_a_head_votes() -> None:
    there = [[True, True]] * 3 + [[True, False]]
    before, after = votes([1.0, 1.0, 1.0, 1.0], there), votes([1.0, -9.0, 1.0, -1.0], there)
    pairs = [(of, fuse(of.logits_NHC, of.present_NH, SPEC)) for of in (before, after)]
    assert agreement(*pairs) == {"audio": 1.0, "visual": pytest.approx(2 / 3), "answer": 0.75}


def made_up(answer: float, calibration: float, **heads: float | None) -> dict[str, Any]:
    return {"accuracy": answer, "ece": calibration, "heads": {h: {"accuracy": a, "ece": 0.0} for h, a in heads.items()}}


BEFORE = made_up(0.9, 0.02, audio=0.8, visual=0.7, rear=None)


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (made_up(0.895, 0.03, audio=0.795, visual=0.9, rear=None), []),
        (
            made_up(0.9, 0.02, audio=0.794, visual=0.7, rear=None),
            ["the audio head's accuracy falls from 80.0% to 79.4%"],
        ),
        (made_up(0.894, 0.02, audio=0.8, visual=0.7, rear=None), ["the answer's accuracy falls from 90.0% to 89.4%"]),
        (made_up(0.9, 0.0301, audio=0.8, visual=0.7), ["the answer's calibration error rises from 0.020 to 0.030"]),
        (made_up(0.9, float("nan"), audio=0.8, visual=0.7), ["the answer's calibration error rises from 0.020 to nan"]),
    ],
)
def test_half_a_point_and_a_hundredth_are_allowed_and_no_more(after: dict[str, Any], expected: list[str]) -> None:
    assert faults(BEFORE, after) == expected
    assert harmful(head_losses(BEFORE, after)) == [fault.split()[1] for fault in expected if "head's" in fault]


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (made_up(0.89, 0.02), 0.01),
        (made_up(0.9, 0.05), 0.015),
        (made_up(0.91, 0.01), -0.005),
    ],
)
def test_the_answer_loses_accuracy_or_calibration_in_one_measure(after: dict[str, Any], expected: float) -> None:
    """A hundredth of calibration error counts as half a point, as the bounds have it."""
    assert answer_loss(BEFORE, after) == pytest.approx(expected)
