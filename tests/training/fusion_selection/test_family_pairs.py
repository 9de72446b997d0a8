"""Pairs of families left out together, damage to two modalities at once, forms fixed by other data sets, and ties."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pytest
from pydantic import ValidationError

from dimml.digests import historic
from dimml.errors import DataError
from dimml.fusion import FusionSpec
from dimml.modality import Frames, Waveform
from dimml_training.config import CertaintyConfig, FusionForm
from dimml_training.config.corruption_suite import Condition, Corruption, conditions
from dimml_training.corruptions.encoding import EncodedModality
from dimml_training.fusion_selection.candidate_scores import CandidateScorer
from dimml_training.fusion_selection.condition_rows import rows_of
from dimml_training.fusion_selection.family_pairs import damaged_pairs, has_answer, left_out_together
from dimml_training.fusion_selection.forms import form_key, form_of, form_of_others, read_form_key
from dimml_training.fusion_selection.search import choose_fusion, seen_conditions

CLASSES = 4
SOUND = Waveform(name="audio", sample_rate_hz=8000, samples=800)
LIPS = Frames(name="lips", frames=4, height=16, width=16)


@dataclass(frozen=True)
class MadeUp:
    """Two heads: damaged sound is a sure wrong vote, damaged lips an unsure one; clean, sound is better than lips."""

    labels_N: npt.NDArray[np.int64]

    def get(self, condition: Condition, draw: int) -> dict[str, EncodedModality]:
        found = {}
        for place, name in enumerate(("audio", "lips")):
            rng = np.random.default_rng([place, draw, *condition.name.encode()])
            damaged = name in condition.by_modality
            votes = np.eye(CLASSES)[(self.labels_N + (damaged and place == 0)) % CLASSES] * (1.0 if damaged else 3.0)
            logits = (votes + (0.3 + 0.4 * place) * rng.standard_normal(votes.shape)).astype(np.float32)
            found[name] = EncodedModality(logits, logits, np.ones(len(self.labels_N), np.bool_))
        return found


def seen() -> list[Condition]:
    return seen_conditions(conditions((SOUND, LIPS), "seen"), CertaintyConfig())


def singles(suite: Sequence[Condition], name: str) -> set[str]:
    return {f for c in suite if list(c.by_modality) == [name] and c.in_means for f in c.families}


def test_families_are_left_out_by_two_of_every_modality() -> None:
    suite = seen()
    turns = left_out_together(suite)
    assert turns[0] == frozenset()
    for name in ("audio", "lips"):
        own = singles(suite, name)
        parts = [turn & own for turn in turns[1:]]
        assert sorted(f for part in parts for f in part) == sorted(own)
        assert [len(part) for part in parts] == [2] * (len(own) // 2)
    assert {"low_pass", "high_pass"} <= next(turn for turn in turns if "low_pass" in turn)


def test_a_damaged_pair_is_of_families_that_are_left_out_together() -> None:
    suite = seen()
    pairs = damaged_pairs(suite)
    turns = left_out_together(suite)
    assert len(pairs) == len({c.name for c in pairs}) == 8
    for condition in pairs:
        assert list(condition.by_modality) == ["audio", "lips"]
        assert (condition.group, condition.seen, condition.in_means) == ("both", True, True)
        assert any(condition.families <= turn for turn in turns)
        assert has_answer(condition)
        assert condition.name not in {c.name for c in suite}
    # What is scored stays left out together when the pairs themselves are among the conditions.
    assert left_out_together([*suite, *pairs]) == turns
    assert damaged_pairs([*suite, *pairs]) == []


def test_a_single_modality_has_no_pairs() -> None:
    assert damaged_pairs(conditions((SOUND,), "seen")) == []


def test_another_voice_over_the_talkers_own_leaves_no_answer_and_no_place_in_the_objective() -> None:
    names = {c.name: has_answer(c) for c in seen()}
    assert [name for name, answered in names.items() if not answered] == ["audio:another_clip_-10db"]

    def condition(family: str, severity: str) -> Condition:
        corruption = Corruption(family, severity, 1.0, "sound", True, 1)
        return Condition(f"audio:{corruption.name}", "sound", True, {"audio": corruption}, True, 1)

    suite = [
        Condition("clean", "clean", True, {}, False, 1),
        condition("another_clip", "-10db"),
        condition("white", "0db"),
    ]
    rows = rows_of(MadeUp(np.arange(40) % CLASSES), None, suite, draws=1)
    scores = CandidateScorer(rows, {}).score(FusionSpec(fused_head=False))
    assert list(scores.regrets) == ["audio:white_0db"]
    right = scores.accuracy
    changed = rows.logits_RHC.copy()
    changed[rows.condition_R == 1] = -changed[rows.condition_R == 1]
    worse = CandidateScorer(replace(rows, logits_RHC=changed), {}).score(FusionSpec(fused_head=False))
    assert (worse.accuracy, worse.objective) == (right, scores.objective)


A = FusionForm(certainty="reliability", pooling="product", temperature=None, fused_head=True)
B = FusionForm(certainty="max_prob", pooling="logits", temperature=0.5, fused_head=False)


def test_a_form_is_fixed_by_the_other_data_sets_alone() -> None:
    a, b = form_key(A), form_key(B)
    objectives = {
        "one": [{a: 0.90, b: 0.80}, {a: 0.88, b: 0.80}],
        "two": [{a: 0.95, b: 0.94}],
        "three": [{a: 0.10, b: 0.99}],
    }
    assert form_of_others(objectives, "three").form == A
    # For one and two, three counts: there A has 90 times the errors of B.
    assert form_of_others(objectives, "one").form == B
    fixed = form_of_others(objectives, "three")
    assert fixed.others == ("one", "two")
    assert fixed.excess == pytest.approx(0.0)
    # B against A: errors 0.2 of 0.1 and 0.2 of 0.12, then 0.06 of 0.05.
    other = "max_prob logits 1 own"
    without_a = {name: [{b: r[b], other: max(r.values())} for r in of] for name, of in objectives.items()}
    ratio = form_of_others({**without_a, "two": [{b: 0.94}]}, "three")
    assert ratio.form == B
    assert ratio.excess == pytest.approx(((0.2 / 0.1 + 0.2 / 0.12) / 2 + 1) / 2 - 1)
    with pytest.raises(DataError, match="none with a choice"):
        form_of_others({"one": objectives["one"]}, "one")


def test_a_form_is_all_of_a_spec_that_is_not_fitted() -> None:
    for form in (A, B):
        assert read_form_key(form_key(form)) == form
        spec = FusionSpec(**form.model_dump(), head_temperatures=(1.0, 2.0), answer_temperature=3.0)
        assert form_of(spec) == form


def test_a_config_without_a_form_keeps_its_digest() -> None:
    free = CertaintyConfig()
    assert historic(free) == {"form": True, "kin": True}
    assert historic(CertaintyConfig(regret_weighted=(False,))) == {"form": True, "kin": True, "regret_weighted": True}
    bound = CertaintyConfig.model_validate(json.loads(f'{{"form": {A.model_dump_json()}}}'))
    assert bound.form == A
    assert historic(bound) == {"kin": True}
    with pytest.raises(ValidationError, match="temperature"):
        FusionForm(certainty="margin", pooling="logits", temperature=0.0, fused_head=False)


def test_with_a_form_it_and_the_plain_averages_are_tried_alone() -> None:
    suite = [c for c in seen() if c.group in {"clean", "sound"}]
    clips, known = MadeUp(np.arange(40) % CLASSES), MadeUp(np.arange(80) % CLASSES)
    form = FusionForm(certainty="margin", pooling="probabilities", temperature=0.1, fused_head=False)
    config = CertaintyConfig(draws=1, folds=2, form=form)
    found = choose_fusion(clips, known, None, suite, config, seed=0)
    assert list(found.forms) == [form_key(form)]
    average = {"paper": 1.0, "plain": None}["plain"]
    assert found.spec.temperature in {0.1, average}
    objectives = {name: scores["objective"] for name, scores in found.report["instead_of"].items()}
    best_plain = max(value for name, value in objectives.items() if name.startswith("average"))
    prefers_plain = 1 - best_plain <= (1 - found.forms[form_key(form)]) * 1.01
    assert (found.spec.temperature is None) == prefers_plain
    assert set(found.report["regret_points"]) == {c.name for c in suite if c.in_means and has_answer(c)}
