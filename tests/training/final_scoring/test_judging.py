"""Errors against the best rival, mean regret and its worst fifth, against plain loops over the clips."""

from __future__ import annotations

import numpy as np
import pytest

from dimml_training.compare.summary import Summary
from dimml_training.final_scoring.judging import judge, judgement_lines, method_lines, rivals, tail_estimate
from dimml_training.fusion_selection.candidate_scores import tail_mean
from support.made_up_cells import CLIPS, cell

COUNTED = ("audio:white", "audio:voices", "visual:patch")
VALIDATION = {"audio:white": 0.4, "audio:voices": 0.2, "visual:patch": 0.9, "clean": 0.9}


def made_up(data: str = "made_up") -> tuple[Summary, dict[tuple[str, int], dict[str, float]]]:
    """A summary of four methods and two repeats, and each one's accuracy by condition."""
    made, accuracies = [], {}
    for repeat in (0, 1):
        for method, share in (("dimml", 0.8), ("joint_concat", 0.7), ("late_logits", 0.6), ("dimml_clw", 0.95)):
            of_method, right = cell(method, repeat, share, data=data)
            made.append(of_method)
            accuracies[method, repeat] = {name: float(bits.mean()) for name, bits in right.items()}
        for name, share, validation in (("audio", 0.5, VALIDATION), ("visual", 0.7, dict.fromkeys(VALIDATION, 0.5))):
            of_method, right = cell(f"single:{name}", repeat, share, validation=validation, data=data)
            made.append(of_method)
            accuracies[f"single:{name}", repeat] = {c: float(bits.mean()) for c, bits in right.items()}
    return Summary(made), accuracies


def test_figures_are_those_of_plain_loops() -> None:
    summary, accuracies = made_up()
    found = judge([summary])
    regrets = []
    for condition in COUNTED:
        better = "single:audio" if VALIDATION[condition] > 0.5 else "single:visual"
        regrets.append(np.mean([accuracies["dimml", r][condition] - accuracies[better, r][condition] for r in (0, 1)]))
    assert found.regret is not None
    assert found.regret.value == pytest.approx(np.mean(regrets))
    assert found.tail is not None
    assert found.tail.value == pytest.approx(min(regrets))  # a fifth of three conditions: one
    assert found.worst == ("made_up", COUNTED[int(np.argmin(regrets))], pytest.approx(min(regrets)))
    errors = {m: np.mean([1 - accuracies[m, r][c] for c in COUNTED for r in (0, 1)]) for m in ("dimml", "joint_concat")}
    assert found.rival == "joint_concat"
    assert found.fewer_errors is not None
    assert found.fewer_errors.value == pytest.approx(1 - errors["dimml"] / errors["joint_concat"])
    assert found.fewer_errors.low < found.fewer_errors.value < found.fewer_errors.high
    assert found.conditions == 3


def test_data_sets_are_pooled_by_condition() -> None:
    (one, _), (other, _) = made_up("one"), made_up("other")
    alone, together = judge([one]), judge([one, other])
    assert together.conditions == 6
    assert alone.regret is not None
    assert together.regret is not None
    assert together.regret.value == pytest.approx(alone.regret.value)  # the same bits twice
    assert together.data == ("one", "other")


def test_own_answers_are_no_rivals() -> None:
    summary, _ = made_up()
    assert rivals(summary) == ["late_logits", "joint_concat"]


def test_without_each_modality_alone_there_is_no_regret() -> None:
    summary, _ = made_up()
    bare = Summary([c for m, of in summary.cells.items() if m != "single:audio" for c in of.values()])
    found = judge([bare])
    assert (found.regret, found.tail, found.worst) == (None, None, None)
    assert found.fewer_errors is not None
    assert any("not run yet" in line for line in judgement_lines(found))


def test_the_tail_is_the_mean_of_the_worst_fifth() -> None:
    assert tail_mean(np.array([0.0, -0.4, 0.1, -0.2, 0.0, 0.0, 0.0, 0.0, 0.0, 0.3])) == pytest.approx(-0.3)
    assert tail_mean(np.array([0.2, 0.1])) == pytest.approx(0.1)
    # Ten conditions without any spread over clips: every resample has the same tail.
    gaps_KP = np.repeat(np.linspace(-0.5, 0.4, 10)[:, None], CLIPS, axis=1)
    weights_SP = np.random.default_rng(0).multinomial(CLIPS, np.full(CLIPS, 1 / CLIPS), size=50).astype(np.float64)
    found = tail_estimate([(gaps_KP[:5], weights_SP), (gaps_KP[5:], weights_SP)])
    assert (found.value, found.low, found.high) == pytest.approx((-0.45, -0.45, -0.45))


def test_the_figures_stand_in_the_tables() -> None:
    summary, _ = made_up()
    found = judge([summary])
    text = "\n".join([*judgement_lines(found), *method_lines(summary)])
    assert found.tail is not None
    assert f"{100 * found.tail.value:+.1f}" in text
    assert "fewer errors than `joint_concat`" in text
    assert text.count("`dimml`") == 1
