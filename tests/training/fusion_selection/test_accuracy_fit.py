"""The estimate of how often answers are right: its fit against scipy's, and what it gains on votes that are made up."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from dimml.bundle import FUSED_HEAD
from dimml.ensemble import EnsembleResult
from dimml.fusion import FloatArray, heads_present
from dimml.monitoring.accuracy import pattern_of
from dimml.monitoring.observation import observations
from dimml.status import OK, ModalityStatus, Reason
from dimml_training.config import CertaintyConfig
from dimml_training.config.corruption_suite import ABSENT, Condition, Corruption
from dimml_training.evaluation.answer_chance import answer_chances
from dimml_training.evaluation.heads import HeadLogits, fused_answer
from dimml_training.fusion_selection.accuracy_fit import ANCHOR, RIDGE, PatternRows, fit_accuracy, fit_logistic
from dimml_training.fusion_selection.condition_rows import rows_of
from dimml_training.fusion_selection.search import ChosenFusion, choose_fusion
from support.lying_heads import CLASSES, WIDTH, LyingHeads, lying_suite
from support.tiny_sets import bundle_of_sets

RNG = np.random.default_rng(11)
QUICK = CertaintyConfig(
    draws=1, folds=2, temperatures=(0.2,), certainties=("max_prob", "reliability"), fused_head=(False, True)
)


def made_up(clips: int, seed: int) -> LyingHeads:
    labels_N = np.random.default_rng(seed).integers(0, CLASSES, clips)
    return LyingHeads(labels_N, seed, noise=(0.75, 0.75), damaged_noise=1.5)


def fused_head() -> torch.nn.Linear:
    head = torch.nn.Linear(2 * WIDTH, CLASSES)
    with torch.no_grad():
        head.weight.copy_(torch.cat([torch.eye(CLASSES, WIDTH)] * 2, dim=1))
        head.bias.zero_()
    return head


@pytest.fixture(scope="module")
def chosen() -> ChosenFusion:
    return choose_fusion(made_up(40, 1), made_up(200, 2), fused_head(), lying_suite(), QUICK, seed=0)


def random_rows(clean_shift: float = 0.0) -> PatternRows:
    """Three conditions of 60, 40 and 80 rows, clean first, of which the inputs say little."""
    condition = np.repeat([0, 1, 3], [60, 40, 80])
    inputs = RNG.standard_normal((180, 3)) * [1.0, 5.0, 0.2]
    chance = 1 / (1 + np.exp(-(0.8 * inputs[:, 0] - 0.1 * inputs[:, 1] + clean_shift * (condition == 0))))
    return PatternRows(inputs, RNG.random(180) < chance, chance, condition, np.arange(180) % 3, 60)


@pytest.mark.parametrize("clean_shift", [0.0, 3.0])
def test_the_fit_is_the_least_of_its_loss_as_scipy_finds_it(clean_shift: float) -> None:
    """Half of the weight is the clean condition's, and its mean estimate is drawn to its accuracy."""
    rows = random_rows(clean_shift)
    weight = np.select([rows.condition_R == 0, rows.condition_R == 1], [0.5 / 60, 0.25 / 40], 0.25 / 80)
    mean = np.average(rows.inputs_RK, axis=0, weights=weight)
    spread = np.sqrt(np.average((rows.inputs_RK - mean) ** 2, axis=0, weights=weight))
    standard = (rows.inputs_RK - mean) / spread

    def loss(b: FloatArray) -> float:
        p = 1 / (1 + np.exp(-(b[0] + standard @ b[1:])))
        log_likelihood = np.where(rows.right_R, np.log(p), np.log(1 - p))
        miss = p[:60].mean() - rows.right_R[:60].mean()
        ridge = 0.5 * (RIDGE * (b[1:] ** 2).sum() + 1e-6 * b[0] ** 2)
        return float(-(weight * log_likelihood).sum() + ridge + ANCHOR * miss**2)

    least = minimize(loss, np.zeros(4), method="BFGS", options={"gtol": 1e-9})
    found = fit_logistic(rows)
    expected = 1 / (1 + np.exp(-(least.x[0] + standard @ least.x[1:])))
    assert found.chance(rows.inputs_RK) == pytest.approx(expected, abs=1e-5)
    assert found.chance(rows.inputs_RK)[:60].mean() == pytest.approx(rows.right_R[:60].mean(), abs=0.04)


def test_damage_that_answers_hide_is_estimated_where_certainty_shows_it(chosen: ChosenFusion) -> None:
    """Damaged heads are wrong with larger logits: alone, their answers are sure and false."""
    report = chosen.report["accuracy_estimate"]
    assert set(report) == {"audio+visual", "audio", "visual"}
    assert chosen.accuracy is not None
    for name in ("audio", "visual"):
        assert report[name]["clips"] == 40
        assert report[name]["conditions"] == 3
        assert report[name]["used"]
        assert report[name]["probability_error"]["families_left_out"] > 50
        assert report[name]["estimate_error"]["families_left_out"] < 25
        assert report[name]["estimate_error"]["clean"] < 5
    for of in chosen.accuracy.patterns:
        assert set(of.certainty) - {FUSED_HEAD} == set(of.modalities)


def test_the_estimate_of_new_answers_from_one_modality_falls_with_their_accuracy(chosen: ChosenFusion) -> None:
    """The sound alone, clean and damaged: by what a manifest holds, on clips that fitted nothing."""
    damage = Corruption("audio_b", "", 1.0, "sound", True, 1)
    alone: list[Condition] = [
        Condition("clean", "clean", True, {}, False, 1),
        Condition("audio", "both", True, {"visual": ABSENT}, True, 1),
        Condition("damaged", "both", True, {"audio": damage, "visual": ABSENT}, True, 1),
    ]
    rows = rows_of(made_up(200, 6), fused_head(), alone, draws=1)
    votes = HeadLogits(rows.heads, rows.logits_RHC, rows.present_RH, rows.labels_R, rows.features)
    fused = fused_answer(votes, chosen.spec, chosen.parameters)
    chance, right = answer_chances(votes, fused, 2, chosen.accuracy), fused.logits_BC.argmax(axis=1) == rows.labels_R
    for condition, probability_misses in ((1, False), (2, True)):
        of = rows.condition_R == condition
        assert chance[of].mean() == pytest.approx(right[of].mean(), abs=0.15)
        assert (fused.probabilities_BC[of].max(axis=1).mean() - right[of].mean() > 0.4) == probability_misses


def test_what_is_evaluated_is_what_a_server_observes(chosen: ChosenFusion) -> None:
    """Rows of all patterns, through the fusion that was chosen."""
    rows = rows_of(made_up(60, 3), fused_head(), lying_suite(), draws=1)
    present = rows.present_RH[:, :2]
    assert {tuple(row) for row in present.tolist()} == {(True, True), (True, False), (False, True)}
    votes = HeadLogits(
        rows.heads, rows.logits_RHC, heads_present(present, fused_head=True), rows.labels_R, rows.features
    )
    fused = fused_answer(votes, chosen.spec, chosen.parameters)
    evaluated = answer_chances(votes, fused, 2, chosen.accuracy)
    voting = len(votes.heads) if chosen.spec.fused_head else 2
    served = type(fused)(
        fused.probabilities_BC, fused.logits_BC, fused.certainty_BH[:, :voting], fused.weights_BH[:, :voting]
    )
    gone = ModalityStatus.because(Reason.SILENT)
    statuses = {
        name: [OK if there else gone for there in column]
        for name, column in zip(("audio", "visual"), present.T.tolist(), strict=True)
    }
    own = {
        name: np.where(present[:, [index]], rows.logits_RHC[:, index], np.float32(0))
        for index, name in enumerate(statuses)
    }
    bundle = bundle_of_sets(fusion=chosen.spec, labels=("a", "b", "c", "d"), accuracy_estimate=chosen.accuracy)
    observed = list(observations(bundle, EnsembleResult(served, own, statuses, {}, 0.0)))
    assert [row.chance for row in observed] == pytest.approx(evaluated.tolist(), abs=1e-6)
    estimated = {pattern_of(of.modalities) for of in bundle.accuracy_estimate.patterns}  # type: ignore[union-attr]
    differs = [row.chance != row.probability for row in observed]
    assert differs == [row.pattern in estimated for row in observed]
    assert answer_chances(votes, fused, 2, None) == pytest.approx(fused.probabilities_BC.max(axis=1))


def test_too_few_clips_or_no_damage_leave_the_answers_probability(chosen: ChosenFusion) -> None:
    few = rows_of(made_up(29, 4), fused_head(), lying_suite(), draws=1)
    plain = chosen.spec.model_copy(update={"certainty": "max_prob"})
    assert fit_accuracy(few, plain, None, folds=2, seed=0) == (None, {})
    clean: list[Condition] = lying_suite()[:1]
    undamaged = rows_of(made_up(40, 4), fused_head(), clean, draws=1)
    assert fit_accuracy(undamaged, plain, None, folds=2, seed=0) == (None, {})


def test_nothing_is_learned_from_what_leaves_no_answer(chosen: ChosenFusion) -> None:
    plain = chosen.spec.model_copy(update={"certainty": "max_prob"})
    hopeless = Corruption("another_clip", "-10db", -10.0, "sound", True, 1)
    more = [*lying_suite(), Condition("audio:another_clip_-10db", "audio", True, {"audio": hopeless}, True, 1)]
    without, with_it = (
        fit_accuracy(rows_of(made_up(40, 1), fused_head(), suite, draws=1), plain, None, folds=2, seed=0)
        for suite in (lying_suite(), more)
    )
    assert without[0] is not None
    assert with_it[0] == without[0]
    for pattern, report in without[1].items():
        assert with_it[1][pattern]["conditions"] == report["conditions"]
