"""Which fit judges a condition: one that saw none of its families, also where modalities share names of families."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations_with_replacement

import numpy as np
import pytest

from dimml.modality import Flow, Frames, Kind, Modality, Series, Waveform
from dimml_training.config import CertaintyConfig
from dimml_training.config.corruption_suite import Condition, Corruption, conditions
from dimml_training.fusion_selection import accuracy_fit
from dimml_training.fusion_selection.accuracy_fit import Logistic, PatternRows, judged
from dimml_training.fusion_selection.condition_rows import ConditionRows
from dimml_training.fusion_selection.cross_fit import fit_plan
from dimml_training.fusion_selection.family_pairs import damaged_pairs, left_out_together, turns_of
from dimml_training.fusion_selection.search import seen_conditions

KINDS: dict[Kind, Callable[[str], Modality]] = {
    "waveform": lambda name: Waveform(name=name, sample_rate_hz=8000, samples=800),
    "frames": lambda name: Frames(name=name, frames=4, height=16, width=16),
    "flow": lambda name: Flow(name=name, frames=4, height=16, width=16),
    "series": lambda name: Series(name=name, channels=2, sample_rate_hz=50, samples=100),
}
TOGETHER: list[tuple[Kind, ...]] = [*combinations_with_replacement(KINDS, 2), ("waveform", "frames", "flow")]
FOLDS, CLIPS = 2, 4
each_set = pytest.mark.parametrize("kinds", TOGETHER, ids="+".join)


def suite(kinds: tuple[Kind, ...]) -> list[Condition]:
    modalities = [KINDS[kind](f"{kind}{place}") for place, kind in enumerate(kinds)]
    seen = seen_conditions(conditions(modalities, "seen"), CertaintyConfig())
    return [*seen, *damaged_pairs(seen)]


def rows_under(wanted: list[Condition]) -> ConditionRows:
    """One head, and ``CLIPS`` clips under every condition."""
    count = len(wanted) * CLIPS
    there = np.ones((count, 1), np.bool_)
    return ConditionRows(
        ("one",),
        tuple(wanted),
        np.zeros((count, 1, 2), np.float32),
        there,
        (np.zeros((count, 1), np.float32),),
        np.zeros(count, np.int64),
        np.tile(np.arange(CLIPS), len(wanted)),
        np.repeat(np.arange(len(wanted)), CLIPS),
        there,
    )


def families_met(rows: ConditionRows, seen_R: np.ndarray) -> frozenset[str]:
    return frozenset[str]().union(*(rows.conditions[i].families for i in np.unique(rows.condition_R[seen_R])))


@each_set
def test_no_condition_is_judged_by_a_fit_that_saw_one_of_its_families(kinds: tuple[Kind, ...]) -> None:
    """Of reliability and of rivals, whose plan this is; damage without any left-out family, such as silence, aside."""
    rows = rows_under(suite(kinds))
    counted_FR, fit_R = fit_plan(rows, FOLDS, 0)
    assert len(counted_FR) == FOLDS * len(left_out_together(rows.conditions)) + 1
    assert counted_FR[-1].all()
    for place, condition in enumerate(rows.conditions):
        for row in np.flatnonzero(rows.condition_R == place):
            seen_R = counted_FR[fit_R[row]]
            assert rows.clip_R[row] not in rows.clip_R[seen_R]
            if condition.in_means:
                assert not condition.families & families_met(rows, seen_R), condition.name


@each_set
def test_no_estimate_is_judged_by_a_fit_that_saw_one_of_its_families(
    kinds: tuple[Kind, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does any such fit begin where one to all rows ended."""
    rows = rows_under(suite(kinds))
    judged_rows: list[int] = []

    class Watched(Logistic):
        def __init__(self, seen: PatternRows) -> None:
            super().__init__(0.0, np.zeros(1))
            object.__setattr__(self, "seen", seen)

        def chance(self, inputs_RK: np.ndarray) -> np.ndarray:
            seen: PatternRows = self.seen  # type: ignore[attr-defined]
            met = frozenset[str]().union(*(rows.conditions[i].families for i in np.unique(seen.condition_R)))
            for row in inputs_RK[:, 0].astype(int).tolist():
                condition = rows.conditions[rows.condition_R[row]]
                assert fold_R[row] not in seen.fold_R
                assert not (condition.in_means and condition.families & met), condition.name
                judged_rows.append(row)
            return np.full(len(inputs_RK), 0.5)

    fold_R = rows.clip_R % FOLDS
    count = len(fold_R)
    sizes: list[int] = []

    def watched(seen: PatternRows, *start: Logistic) -> Logistic:
        sizes.append(len(seen.right_R))
        assert not start
        return Watched(seen)

    monkeypatch.setattr(accuracy_fit, "fit_logistic", watched)
    inputs_RK = np.arange(count, dtype=np.float64)[:, None]
    judged(PatternRows(inputs_RK, np.ones(count, np.bool_), np.ones(count), rows.condition_R, fold_R, CLIPS), rows)
    assert sorted(judged_rows) == list(range(count))
    assert max(sizes) < count


def test_turns_are_the_first_that_hold_all_families_else_any_else_none() -> None:
    def damaged(*by: tuple[str, str]) -> Condition:
        corruptions = {name: Corruption(family, "", 1.0, "picture", True, 1) for name, family in by}
        group = "picture" if len(by) == 1 else "both"
        name = "+".join(f"{m}:{c.name}" for m, c in corruptions.items())
        return Condition(name, group, True, corruptions, True, 1)  # type: ignore[arg-type]

    singles = [damaged(("one", family)) for family in "abcd"] + [damaged(("two", family)) for family in "cxya"]
    wanted = [Condition("clean", "clean", True, {}, False, 1), *singles]
    assert left_out_together(wanted) == [frozenset(), frozenset("abcx"), frozenset("cdya")]
    also = [("a", "x"), ("d", "c"), ("d", "y"), ("b", "y")]
    turns = turns_of([*wanted, *(replace_group(damaged(("one", one), ("two", two))) for one, two in also)])
    assert turns == [0, 1, 1, 1, 2, 1, 1, 2, 1, 1, 2, 2, 1]


def replace_group(condition: Condition) -> Condition:
    """As a condition that is not scored, which moves no family to another turn."""
    return Condition(condition.name, "composed", True, condition.by_modality, False, 1)
