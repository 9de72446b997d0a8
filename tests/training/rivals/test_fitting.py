"""Fitting rivals: to their stated loss, from what they may see alone, and the choice among their settings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from dimml_training.config.corruption_suite import Condition, Corruption
from dimml_training.config.rivals import (
    EcmlSetting,
    MlaSetting,
    PdfSetting,
    QmfSetting,
    RivalKind,
    RivalSetting,
    StackerSetting,
    TmcSetting,
)
from dimml_training.fusion_selection.condition_rows import ConditionRows, rows_of
from dimml_training.fusion_selection.cross_fit import fit_plan, row_weights
from dimml_training.rivals.choose import _scored, choose_rival, rows_to_fit
from dimml_training.rivals.fitting import RIVALS, Rows, fit
from dimml_training.rivals.heads import HeadRows
from dimml_training.rivals.mla import Mla
from dimml_training.rivals.pdf import Pdf
from dimml_training.rivals.qmf import Qmf
from dimml_training.rivals.stacker import Stacker
from support.lying_heads import CLASSES, LyingHeads, lying_suite

SETTINGS: dict[RivalKind, RivalSetting] = {
    "qmf": QmfSetting(pull=0.01),
    "pdf": PdfSetting(pull=0.01, hidden=8),
    "tmc": TmcSetting(pull=0.01),
    "ecml": EcmlSetting(pull=0.01),
    "mla": MlaSetting(pull=0.01),
    "stacker": StackerSetting(l2=0.001),
}
each_rival = pytest.mark.parametrize("kind", list(SETTINGS))


@pytest.fixture(scope="module", name="rows")
def validation_rows() -> ConditionRows:
    labels = np.random.default_rng(1).integers(0, CLASSES, 40)
    fused = torch.nn.Linear(12, CLASSES)
    with torch.no_grad():
        fused.weight.copy_(torch.cat([torch.eye(CLASSES, 6)] * 2, dim=1))
        fused.bias.zero_()
    return rows_of(LyingHeads(labels), fused, lying_suite(), draws=1)


def right(log_p_RC: Tensor, rows: HeadRows) -> float:
    return float((log_p_RC.argmax(dim=1) == rows.labels).float().mean())


@each_rival
def test_fitting_lowers_the_stated_loss(kind: RivalKind, rows: ConditionRows) -> None:
    given = rows_to_fit(rows)
    everything = torch.ones(1, len(rows.labels_R), dtype=torch.bool)
    places = torch.arange(len(rows.labels_R))

    @torch.no_grad()
    def stated(steps: int) -> float:
        rival = RIVALS[kind](given.rows, everything, SETTINGS[kind])
        if steps:
            with torch.enable_grad():
                rival = fit(kind, SETTINGS[kind], given, everything, steps=steps, seed=0)
        losses_R = rival.row_losses(given.rows, places, everything.float(), 1.0)[0]
        weighted = (losses_R * given.weights_R).sum() / given.weights_R.sum()
        return float(weighted + rival.penalty()[0])

    assert stated(40) < stated(10) < stated(0)


@each_rival
def test_an_answer_is_a_distribution_whatever_is_absent(kind: RivalKind, rows: ConditionRows) -> None:
    given = rows_to_fit(rows)
    rival = fit(kind, SETTINGS[kind], given, torch.ones(2, len(rows.labels_R)).bool(), steps=20, seed=0)
    absent = replace(
        given.rows.take(torch.arange(3)),
        present_RH=torch.tensor([[True, False, False], [False, True, False], [False] * 3]),
    )
    with torch.no_grad():
        answers = rival.log_probabilities(absent)
    assert answers.shape == (2, 3, CLASSES)
    torch.testing.assert_close(answers.exp().sum(dim=2), torch.ones(2, 3))
    torch.testing.assert_close(answers[:, 2].exp(), torch.full((2, CLASSES), 1 / CLASSES))


@each_rival
def test_a_fit_learns_nothing_from_rows_that_are_kept_from_it(kind: RivalKind, rows: ConditionRows) -> None:
    given = rows_to_fit(rows)
    counted = torch.ones(2, len(rows.labels_R), dtype=torch.bool)
    counted[0, ::3] = False
    other_labels = given.rows.labels.clone()
    other_labels[::3] = (other_labels[::3] + 1) % CLASSES
    other_logits = given.rows.logits_RHC.clone()
    other_logits[::3] *= -50.0
    other_features = tuple(own.clone() for own in given.rows.features)
    for own in other_features:
        own[::3] = 7.0 - 30.0 * own[::3]
    other = replace(given.rows, labels=other_labels, logits_RHC=other_logits, features=other_features)
    changed = Rows(other, given.weights_R)
    fits = [fit(kind, SETTINGS[kind], these, counted, steps=12, seed=0) for these in (given, changed)]
    for one, changed_one in zip(fits[0].parameters(), fits[1].parameters(), strict=True):
        torch.testing.assert_close(one[0], changed_one[0], rtol=0, atol=0)
    seen = given.rows.take(torch.nonzero(counted[0])[:, 0])
    with torch.no_grad():
        answers = [of.log_probabilities(seen)[0] for of in fits]
    torch.testing.assert_close(answers[0], answers[1], rtol=0, atol=0)
    assert any(not torch.equal(one[1], other[1]) for one, other in zip(*(f.parameters() for f in fits), strict=True))


def test_features_are_in_units_of_what_a_fit_has_seen_with_the_head_there() -> None:
    features = torch.tensor([[1.0, 5.0], [3.0, 5.0], [5.0, 5.0], [101.0, -5.0], [9.0, 9.0]])
    present = torch.tensor([[True], [True], [True], [True], [False]])
    rows = HeadRows(torch.zeros(5, 1, 3), present, (features,), torch.zeros(5, dtype=torch.int64))
    counted = torch.tensor([[True, True, True, False, True], [True, False, False, True, True], [True] + [False] * 4])
    (found,) = Mla(rows, counted, MlaSetting(pull=0.0)).standardised(rows)
    # 1, 3, 5: mean 3, deviation 2. The second feature is 5 in all that the first fit has seen, and keeps its unit.
    expected_first = torch.tensor([[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0], [49.0, -10.0], [0.0, 0.0]])
    torch.testing.assert_close(found[0], expected_first)
    # 1 and 101: mean 51, deviation 50·√2; 5 and -5: mean 0, deviation 5·√2.
    torch.testing.assert_close(found[1, 3], torch.tensor([50 / (50 * 2**0.5), -5 / (5 * 2**0.5)]))
    torch.testing.assert_close(found[2], features * present)  # a single row has no deviation


def test_qmf_scales_losses_over_what_a_fit_has_met_with_the_head_there() -> None:
    """Rows kept from a fit, not drawn yet or without the head have no loss, and are not the least of it."""
    labels = torch.zeros(5, dtype=torch.int64)
    present = torch.tensor([[True, True], [True, True], [True, False], [True, True], [True, True]])
    logits = torch.zeros(5, 2, 3)
    logits[:, :, 0] = torch.tensor([4.0, 0.0, -2.0, 9.0, 1.0])[:, None]
    rows = HeadRows(logits, present, (torch.zeros(5, 1), torch.zeros(5, 1)), labels)
    counted = torch.tensor([[False, True, True, True, True], [True] * 5, [False] * 5])
    qmf = Qmf(rows, counted, QmfSetting(pull=0.0))
    drawn = torch.tensor([0, 1, 2, 4])  # the fourth is never drawn
    for _ in range(2):
        qmf.row_losses(rows.take(drawn), drawn, counted[:, drawn].float(), 0.0)

    def loss(of_first: float) -> float:
        return float(np.log(np.exp(of_first) + 2) - of_first)

    def scaled(of_first: float, least: float, most: float) -> float:
        return (loss(of_first) - loss(least)) / (loss(most) - loss(least))

    found = qmf._histories(torch.arange(5))
    # The first fit met logits 0, -2 and 1 of the first head, and 0 and 1 of the second.
    assert found[0, :, 0].tolist() == pytest.approx([0.0, scaled(0, 1, -2), 1.0, 0.0, 0.0], abs=1e-6)
    assert found[0, :, 1].tolist() == pytest.approx([0.0, 1.0, 0.0, 0.0, 0.0], abs=1e-6)
    # The second met 4 too, which is then the least.
    expected = [0.0, scaled(0, 4, -2), 1.0, 0.0, scaled(1, 4, -2)]
    assert found[1, :, 0].tolist() == pytest.approx(expected, abs=1e-6)
    assert found[1, :, 1].tolist() == pytest.approx([0.0, 1.0, 0.0, 0.0, scaled(1, 4, 0)], abs=1e-6)
    assert not found[2].any(), "a fit that has met nothing"


@each_rival
def test_a_rival_learns_whom_not_to_believe(kind: RivalKind, rows: ConditionRows) -> None:
    """A damaged head is confidently wrong, and its features show it: averaging cannot know, every rival can."""
    own = rows.without_fused_head()
    damaged = own.take(np.array([c.in_means for c in own.conditions])[own.condition_R])
    given = rows_to_fit(damaged)
    averaged = right(given.rows.logits_RHC.log_softmax(dim=2).mean(dim=1), given.rows)
    rival = fit(kind, SETTINGS[kind], rows_to_fit(own), torch.ones(1, len(own.labels_R)).bool(), steps=200, seed=0)
    with torch.no_grad():
        assert right(rival.log_probabilities(given.rows)[0], given.rows) > averaged + 0.3


def test_pdf_predicts_the_probability_of_the_true_class(rows: ConditionRows) -> None:
    given = rows_to_fit(rows.without_fused_head())
    everything = torch.ones(1, len(rows.labels_R), dtype=torch.bool)
    rival = fit("pdf", PdfSetting(pull=100.0, hidden=16), given, everything, steps=400, seed=0)
    assert isinstance(rival, Pdf)
    with torch.no_grad():
        truth = rival.logits(given.rows)[0].softmax(dim=2)[torch.arange(len(everything[0])), :, given.rows.labels]
        missed = (rival.confidences(given.rows)[0] - truth).abs()[given.rows.present_RH]
    assert float(missed.mean()) < 0.1 < float(truth[given.rows.present_RH].std())


def test_the_stacker_recovers_a_known_weighting() -> None:
    """Classes are drawn from the softmax of twice the first head's log probabilities and none of the second's."""
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.standard_normal((20_000, 2, 3)).astype(np.float32))
    log_p = logits.log_softmax(dim=2)
    labels = torch.from_numpy((2 * log_p[:, 0].numpy() + rng.gumbel(size=(20_000, 3))).argmax(axis=1))
    there = torch.ones(20_000, 2, dtype=torch.bool)
    given = Rows(HeadRows(logits, there, (logits[:, 0], logits[:, 1]), labels), torch.ones(20_000))
    rival = fit("stacker", StackerSetting(l2=0.0), given, there[:1, :1].expand(1, 20_000), steps=1500, seed=0)
    assert isinstance(rival, Stacker)
    weight = rival.weight_FIC[0, :6].detach().reshape(2, 3, 3)
    # Only differences between classes show: of inputs, which are centred, and of outputs.
    found = (
        weight
        - weight.mean(dim=2, keepdim=True)
        - weight.mean(dim=1, keepdim=True)
        + weight.mean(dim=(1, 2))[:, None, None]
    )
    expected = 2 * (torch.eye(3) - 1 / 3)
    torch.testing.assert_close(found[0], expected, atol=0.15, rtol=0)
    torch.testing.assert_close(found[1], torch.zeros(3, 3), atol=0.15, rtol=0)


def test_every_row_is_scored_by_a_fit_that_saw_neither_its_clip_nor_its_family(rows: ConditionRows) -> None:
    counted_FR, fit_R = fit_plan(rows, 3, 0)
    assert counted_FR[-1].all()
    for place in range(0, len(fit_R), 7):
        seen = counted_FR[fit_R[place]]
        assert rows.clip_R[place] not in rows.clip_R[seen]
        families = rows.conditions[rows.condition_R[place]].families
        if rows.conditions[rows.condition_R[place]].in_means:
            met = {f for index in np.unique(rows.condition_R[seen]) for f in rows.conditions[index].families}
            assert not families & met


def test_the_setting_that_is_best_on_unseen_rows_is_taken(rows: ConditionRows) -> None:
    settings = (StackerSetting(l2=1000.0), StackerSetting(l2=0.01))  # the first answers nearly nothing
    chosen = choose_rival("stacker", settings, (False, True), rows, folds=2, steps=100, seed=0)
    tried = {(t["setting"]["l2"], t["fused_head"]): t["mean_accuracy"] for t in chosen.report["tried"]}
    assert len(tried) == 4
    assert chosen.report["chosen"]["setting"] == {"l2": 0.01}
    assert (
        chosen.report["chosen"]["mean_accuracy"]
        == max(tried.values())
        > max(accuracy for (l2, _), accuracy in tried.items() if l2 == 1000.0)
    )
    again = choose_rival("stacker", settings, (False, True), rows, folds=2, steps=100, seed=0)
    some = rows_to_fit(rows if chosen.fused_head else rows.without_fused_head()).rows
    np.testing.assert_array_equal(chosen.log_probabilities(some), again.log_probabilities(some))


def test_damage_that_leaves_no_answer_has_no_say_in_the_choice_of_a_setting(rows: ConditionRows) -> None:
    """Under another voice at -10 dB the clip's own class cannot be recognised: ours is not judged on it either."""
    (place,) = (index for index, c in enumerate(rows.conditions) if c.name == "audio:audio_a")
    unanswerable = Corruption("another_clip", "-10db", -10.0, "sound", True, 1)
    renamed = list(rows.conditions)
    renamed[place] = Condition(f"audio:{unanswerable.name}", "sound", True, {"audio": unanswerable}, True, 1)
    means = []
    for suite in (rows.conditions, tuple(renamed)):
        given = replace(rows, conditions=suite)
        right_R = np.where(given.condition_R == place, 0, given.labels_R)  # class 0 for all of it
        answers_RC = np.eye(CLASSES, dtype=np.float32)[right_R] * 5
        trial = _scored(StackerSetting(l2=0.01), False, given, answers_RC, row_weights(given))
        means.append(trial.accuracy)
    own = float((rows.labels_R[rows.condition_R == place] == 0).mean())
    counted = sum(c.in_means for c in rows.conditions)
    assert means == pytest.approx([(counted - 1 + own) / counted, 1.0])
