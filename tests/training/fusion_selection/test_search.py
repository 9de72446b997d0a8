"""Calibration, learned reliability and the choice of a fusion, on votes made up so that the truth is known."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from pydantic import ValidationError
from torch.nn.functional import cross_entropy

from dimml.bundle import FUSED_HEAD
from dimml.fusion import FusionSpec, fuse
from dimml.modality import Frames, Waveform
from dimml_training.config import CertaintyConfig
from dimml_training.config.corruption_suite import Condition, Corruption, conditions
from dimml_training.corruptions.encoding import EncodedModality
from dimml_training.fusion_selection.candidate_scores import CandidateScorer
from dimml_training.fusion_selection.condition_rows import rows_of
from dimml_training.fusion_selection.cross_fit import (
    clip_folds,
    cross_fit,
    head_geometry,
    row_weights,
)
from dimml_training.fusion_selection.family_pairs import left_out_together
from dimml_training.fusion_selection.refit_rows import refit_rows
from dimml_training.fusion_selection.reliability_fit import feature_geometry
from dimml_training.fusion_selection.search import (
    ChosenFusion,
    choose_fusion,
    head_temperatures,
    seen_conditions,
)
from dimml_training.fusion_selection.temperature_scaling import calibration_temperature
from support.lying_heads import CLASSES, WIDTH, LyingHeads, lying_suite

QUICK = CertaintyConfig(
    draws=1,
    folds=2,
    temperatures=(0.2,),
    certainties=("max_prob", "neg_entropy", "margin", "reliability"),
    fused_head=(False, True),
)
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class MadeUp(LyingHeads):
    """Two heads of which one is noisier on clean clips."""

    noise: tuple[float, float] = (0.7, 1.0)
    damaged_noise: float = 2.0


def labels(clips: int, seed: int) -> Labels:
    return np.random.default_rng(seed).integers(0, CLASSES, clips)


def fused_head() -> torch.nn.Linear:
    head = torch.nn.Linear(2 * WIDTH, CLASSES)
    with torch.no_grad():
        head.weight.copy_(torch.cat([torch.eye(CLASSES, WIDTH)] * 2, dim=1))
        head.bias.zero_()
    return head


VALIDATION, TRAIN = MadeUp(labels(40, 1)), MadeUp(labels(200, 2), seed=7)


@pytest.fixture(scope="module")
def chosen() -> ChosenFusion:
    return choose_fusion(VALIDATION, TRAIN, fused_head(), lying_suite(), QUICK, seed=0)


def test_fitting_the_chosen_form_to_all_clips_again_gives_the_choice(chosen: ChosenFusion) -> None:
    """And to fewer clips other numbers, of the same form."""
    rows = rows_of(VALIDATION, fused_head(), lying_suite(), draws=1)
    geometry = head_geometry(rows_of(TRAIN, fused_head(), lying_suite()[:1], draws=1))
    spec, parameters = refit_rows(rows, geometry, chosen.spec, QUICK, seed=0)
    assert chosen.spec.certainty == "reliability"
    assert spec == chosen.spec
    for name, array in chosen.parameters.arrays().items():
        np.testing.assert_allclose(parameters.arrays()[name], array, atol=1e-6)
    fewer, _ = refit_rows(rows.take(rows.clip_R % 5 != 0), geometry, chosen.spec, QUICK, seed=0)
    assert fewer.head_temperatures != spec.head_temperatures
    form = {"certainty", "temperature", "fused_head", "pooling"}
    assert fewer.model_dump(include=form) == spec.model_dump(include=form)


@pytest.mark.parametrize("true", [0.5, 1.0, 4.0])
def test_a_known_temperature_is_recovered(true: float) -> None:
    rng = np.random.default_rng(0)
    logits = 2 * rng.standard_normal((20_000, 5))
    drawn = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    assert calibration_temperature((logits * true).astype(np.float32), drawn) == pytest.approx(true, rel=0.05)


def test_no_other_temperature_has_less_loss() -> None:
    rng = np.random.default_rng(1)
    logits, truth, weights = rng.standard_normal((80, 3)), rng.integers(0, 3, 80), rng.random(80)
    logits[np.arange(80), truth] += 1.5
    found = calibration_temperature(logits.astype(np.float32), truth, weights)

    def loss(temperature: float) -> float:
        losses = cross_entropy(torch.from_numpy(logits) / temperature, torch.from_numpy(truth), reduction="none")
        return float((losses * torch.from_numpy(weights)).sum())

    others = np.geomspace(0.2, 20, 500)
    assert found == pytest.approx(min(others, key=loss), rel=0.02)
    assert loss(found) <= min(map(loss, others)) + 1e-6


def test_whitened_training_features_have_unit_covariance_within_classes() -> None:
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 3, 5000)
    mixing = np.eye(4) + 0.3 * rng.standard_normal((4, 4))
    features = (rng.standard_normal((5000, 4)) @ mixing + 5 * rng.standard_normal((3, 4))[truth]).astype(np.float32)
    found = feature_geometry(features, truth, 4)
    whitened = features @ found.whitening_DD
    within = whitened - found.whitened_means_CD[truth]
    assert within.T @ within / 5000 == pytest.approx(np.eye(4), abs=0.05)
    assert found.whitened_means_CD[1] == pytest.approx(whitened[truth == 1].mean(axis=0), abs=1e-3)
    assert np.isfinite(feature_geometry(features[:1], truth[:1], 4).whitening_DD).all()


def test_no_fit_sees_the_clip_or_family_that_it_is_judged_on() -> None:
    """With a family's labels shuffled, the reliability of that family's rows stays what it was."""
    rows = rows_of(VALIDATION, None, lying_suite(), draws=1)
    known = rows_of(TRAIN, None, lying_suite()[:1], draws=1)
    geometry = [feature_geometry(own, known.labels_R, CLASSES) for own in known.features]
    turns = left_out_together(rows.conditions)
    assert turns == [frozenset(), *({f"audio_{f}", f"visual_{f}"} for f in "abc")]
    of_b = np.array(["b" in "".join(c.families)[-1:] for c in rows.conditions])[rows.condition_R]
    changed = rows.labels_R.copy()
    changed[of_b] = (changed[of_b] + 1) % CLASSES
    before = cross_fit(rows, geometry, (1.0, 1.0), folds=2, seed=0)
    after = cross_fit(replace(rows, labels_R=changed), geometry, (1.0, 1.0), folds=2, seed=0)
    np.testing.assert_array_equal(after.held_out_RH[of_b], before.held_out_RH[of_b])
    assert np.abs(after.final[0].out_weight_U - before.final[0].out_weight_U).max() > 1e-3
    fold_R = clip_folds(rows, 2, 0)
    changed = np.where(fold_R == 0, (rows.labels_R + 1) % CLASSES, rows.labels_R)
    after = cross_fit(replace(rows, labels_R=changed), geometry, (1.0, 1.0), folds=2, seed=0)
    np.testing.assert_array_equal(after.held_out_RH[fold_R == 0], before.held_out_RH[fold_R == 0])


def test_what_is_damaged_at_once_is_left_out_at_once() -> None:
    sound = Waveform(name="audio", sample_rate_hz=8000, samples=800)
    lips = Frames(name="lips", frames=4, height=16, width=16)
    seen = conditions((sound, lips), "seen")
    turns = left_out_together(seen)
    both = [c.families for c in seen if c.group == "both"]
    assert both
    assert all(any(families <= turn for turn in turns) for families in both)
    assert sorted(f for turn in turns for f in turn) == sorted({f for c in seen if c.in_means for f in c.families})


def test_reliability_distrusts_a_family_it_has_not_seen(chosen: ChosenFusion) -> None:
    assert chosen.spec.certainty == "reliability"
    assert chosen.parameters.reliability is not None
    development = Condition("new", "sound", False, {"audio": Corruption("new", "", 1.0, "sound", False, 1)}, True, 1)
    fresh = MadeUp(labels(100, 5), seed=9)
    rows = rows_of(fresh, fused_head(), [lying_suite()[0], development], draws=1)
    rows = rows if chosen.spec.fused_head else rows.without_fused_head()
    answer = fuse(rows.logits_RHC, rows.present_RH, chosen.spec, chosen.parameters, rows.features)
    damaged = rows.condition_R == 1
    assert answer.certainty_BH[damaged, 0].mean() < 0.3
    assert answer.certainty_BH[~damaged, 0].mean() > 0.7
    right = answer.probabilities_BC.argmax(axis=1) == rows.labels_R
    paper = fuse(*(rows.logits_RHC[:, :2], rows.present_RH[:, :2]), FusionSpec(fused_head=False))
    assert right[damaged].mean() > 0.85
    assert (paper.probabilities_BC.argmax(axis=1) == rows.labels_R)[damaged].mean() < 0.3
    assert right[~damaged].mean() > 0.95


def test_the_report_tells_what_was_beaten(chosen: ChosenFusion) -> None:
    report = chosen.report
    assert report["chosen"]["spec"] == chosen.spec.model_dump(mode="json")
    for name in ("paper", "average of logits", "average of probabilities"):
        beaten = report["instead_of"][name]
        assert beaten["mean_accuracy"] < report["chosen"]["mean_accuracy"] - 0.2
        assert report["chosen"]["clean_accuracy"] >= beaten["clean_accuracy"] - QUICK.clean_margin - 1e-9
    assert list(report["heads_alone"]) == ["audio", "visual", FUSED_HEAD]
    assert report["families"] == sorted(f"{m}_{f}" for m in ("audio", "visual") for f in "abc")
    assert report["validation_clips"] == 40


def test_a_static_candidate_is_judged_as_fuse_answers() -> None:
    rows = rows_of(VALIDATION, fused_head(), lying_suite(), draws=1)
    spec = FusionSpec(certainty="margin", temperature=0.3, pooling="product", fused_head=True,
                      head_temperatures=head_temperatures(rows))  # fmt: skip
    right = fuse(rows.logits_RHC, rows.present_RH, spec).logits_BC.argmax(axis=1) == rows.labels_R
    by_condition = {c.name: right[rows.condition_R == i].mean() for i, c in enumerate(rows.conditions)}
    heads = {c.name: rows.heads_right()[rows.condition_R == i, :2].mean(axis=0) for i, c in enumerate(rows.conditions)}
    counted = [c.name for c in rows.conditions if c.in_means]
    scores = CandidateScorer(rows, {}).score(spec)
    assert scores.clean == pytest.approx(by_condition["clean"])
    assert scores.accuracy == pytest.approx(np.mean([by_condition[name] for name in counted]))
    regrets = {name: by_condition[name] - heads[name].max() for name in counted}
    assert scores.regret == pytest.approx(np.mean(list(regrets.values())))
    assert scores.regrets == pytest.approx(regrets)
    assert regrets[scores.worst_condition] == pytest.approx(min(regrets.values()))
    assert scores.tail_regret == pytest.approx(min(regrets.values()))  # a fifth of six conditions: one


def test_ties_go_to_the_simplest() -> None:
    """Without corruption every sensible candidate is as good as any: then nothing is learned."""
    clean = [c for c in lying_suite() if c.group == "clean"]
    easy = MadeUp(labels(60, 1))
    found = choose_fusion(easy, TRAIN, fused_head(), clean, QUICK, seed=0)
    assert found.spec.certainty != "reliability"
    assert found.spec.temperature is None
    assert found.parameters.reliability is None


def test_a_fused_head_that_may_not_vote_is_not_chosen_in_a_plain_average_either() -> None:
    """Here the heads' votes are blurred, and the fused head alone is always right."""

    @dataclass(frozen=True)
    class Blurred(MadeUp):
        def get(self, condition: Condition, draw: int) -> dict[str, EncodedModality]:
            found = super().get(condition, draw)
            return {name: replace(own, logits_NC=np.zeros_like(own.logits_NC)) for name, own in found.items()}

    clips, head = Blurred(labels(40, 1)), fused_head()
    free, bound = (
        choose_fusion(clips, TRAIN, head, lying_suite(), QUICK.model_copy(update=update), seed=0)
        for update in ({"certainties": ("max_prob",)}, {"certainties": ("max_prob",), "fused_head": (False,)})
    )
    assert free.spec.fused_head
    assert not bound.spec.fused_head
    assert "paper" in bound.report["instead_of"], "what was beaten is told all the same"


def test_few_clips_teach_nothing() -> None:
    found = choose_fusion(MadeUp(labels(12, 1)), TRAIN, None, lying_suite(), QUICK, seed=0)
    assert found.spec.certainty != "reliability"
    assert not found.spec.fused_head


def test_a_choice_repeats(chosen: ChosenFusion) -> None:
    again = choose_fusion(VALIDATION, TRAIN, fused_head(), lying_suite(), QUICK, seed=0)
    assert again.spec == chosen.spec
    for name, value in again.parameters.arrays().items():
        np.testing.assert_array_equal(value, chosen.parameters.arrays()[name])


def test_a_choice_sees_seen_families_alone() -> None:
    modalities = (
        Waveform(name="audio", sample_rate_hz=8000, samples=4000),
        Frames(name="visual", frames=3, height=24, width=24),
    )
    everything = conditions(modalities, "all")
    allowed = seen_conditions(everything, CertaintyConfig())
    assert [c.name for c in allowed] == [c.name for c in everything if c.seen and c.group != "conflict"]
    some = seen_conditions(everything, CertaintyConfig().model_copy(update={"families": ("white", "blur", "voices")}))
    assert frozenset().union(*(c.families for c in some)) <= {"white", "blur"}
    assert some[0].group == "clean"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("low_bitrate", "low_bitrate is a development family, kept"),
        ("wite", r"no family 'wite'; the seen ones are white, "),
    ],
)
def test_a_family_that_no_choice_may_see_is_refused(name: str, message: str) -> None:
    with pytest.raises(ValidationError, match=rf"families\n.*{message}"):
        CertaintyConfig(families=("white", name))
    assert CertaintyConfig(families=("white", "black")).families == ("white", "black")


def test_clean_weighs_a_fifth_and_no_signal_nothing() -> None:
    nothing = Condition("audio:silence", "nosignal", True, {}, False, 1)
    rows = rows_of(VALIDATION, None, [*lying_suite(), nothing], draws=1)
    weights = row_weights(rows)
    share = np.bincount(rows.condition_R, weights=weights) / weights.sum()
    assert (share[0], share[-1]) == (pytest.approx(0.2), 0.0)
    assert share[1:-1] == pytest.approx(0.8 / len(share[1:-1]))
