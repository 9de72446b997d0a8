"""What is chosen: against the rule spelt out naively, and what the rule is for."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from dimml_client.labelling.candidates import Candidate, Candidates
from dimml_client.labelling.choosing import NEAR, choose


def candidate(number: int, **changes: Any) -> Candidate:
    given: dict[str, Any] = {
        "key": f"clip{number}",
        "id": f"clip{number}",
        "parts": {"media": f"clip{number}.mp4"},
        "start_s": None,
        "end_s": None,
        "label": "a",
        "probability": 0.5,
        "doubt": 0.5,
        "disagreement": 0.0,
        "abstained": False,
        **changes,
    }
    return Candidate(**given)


def candidates(rows: list[Candidate], vectors: Any = None) -> Candidates:
    """Without vectors, all are far from each other."""
    far = np.eye(len(rows), dtype=np.float32) if vectors is None else np.asarray(vectors, np.float32)
    return Candidates("door", 1, ("a", "b", "c"), tuple(rows), far, {})


def picked(of: Candidates, budget: int) -> list[int]:
    return [choice.place for choice in choose(of, budget, random_share=0.0, seed=0)]


def naive(of: Candidates, budget: int) -> list[int]:
    """The rule as the module states it, with loops."""
    chosen: list[int] = []
    while len(chosen) < budget:
        gains = []
        for place, row in enumerate(of.rows):
            near = min((float(np.linalg.norm(of.vectors_ND[place] - of.vectors_ND[c])) for c in chosen), default=np.inf)
            need = max(row.doubt, row.disagreement) + row.abstained
            same = sum(of.rows[c].label == row.label for c in chosen)
            gains.append(-1.0 if place in chosen else need * min(1.0, near / NEAR) / np.sqrt(1 + same))
        chosen.append(int(np.argmax(gains)))
    return chosen


def test_the_rule_is_followed() -> None:
    rng = np.random.default_rng(1)
    rows = [
        candidate(n, label="abc"[rng.integers(3)], doubt=rng.random(), disagreement=rng.random(), abstained=n % 17 == 0)
        for n in range(60)
    ]
    # Close enough that many are alike.
    of = candidates(rows, 0.1 * rng.normal(size=(60, 2)))
    assert picked(of, 25) == naive(of, 25)


def test_the_most_doubtful_come_first_and_those_that_abstained_before_all() -> None:
    rows = [candidate(n, doubt=d, abstained=n == 3) for n, d in enumerate([0.1, 0.6, 0.3, 0.2])]
    rows.append(candidate(4, doubt=0.05, disagreement=0.9))
    choices = choose(candidates(rows), 4, random_share=0.0, seed=0)
    expected = [(3, "abstained"), (4, "disagreement"), (1, "unsure"), (2, "unsure")]
    assert [(choice.place, choice.reason) for choice in choices] == expected


def test_of_those_that_are_alike_one_is_chosen() -> None:
    rows = [candidate(n, doubt=0.9 if n < 5 else 0.2) for n in range(8)]
    vectors = np.vstack([np.full((5, 8), 0.3), np.eye(8)[5:]])
    assert picked(candidates(rows, vectors), 4) == [0, 5, 6, 7]


def test_a_class_that_is_often_doubted_does_not_take_the_whole_budget() -> None:
    rows = [candidate(n, doubt=0.5, label="a") for n in range(20)]
    rows += [candidate(n, doubt=0.3, label="b") for n in range(20, 40)]
    labels = Counter(rows[place].label for place in picked(candidates(rows), 12))
    assert labels["b"] >= 3
    assert labels["a"] > labels["b"], "it is doubted more"


def test_ranges_that_overlap_are_alike_and_others_of_the_recording_are_not() -> None:
    rows = [
        candidate(n, parts={"media": "long.mp4"}, start_s=start, end_s=start + 2.0, doubt=0.5 - 0.01 * n)
        for n, start in enumerate([0.0, 1.0, 2.0, 3.0])
    ]
    assert picked(candidates(rows), 2) == [0, 2]


def test_the_lot_takes_its_share_all_equally_likely_whatever_their_doubt() -> None:
    rows = [candidate(n, doubt=n / 10) for n in range(10)]
    of, drawn = candidates(rows), Counter[int]()
    for seed in range(400):
        choices = choose(of, 5, random_share=0.4, seed=seed)
        lot = [choice.place for choice in choices if choice.reason == "random"]
        assert (len(lot), len({choice.place for choice in choices})) == (2, 5)
        drawn.update(lot)
    # 80 expected of each; five standard deviations of a binomial of 400 and 0.2 are 40.
    assert all(40 < drawn[place] < 120 for place in range(10))
    assert choose(of, 5, random_share=0.4, seed=7) == choose(of, 5, random_share=0.4, seed=7)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_budget_beyond_the_candidates_takes_each_once(share: float) -> None:
    rows = [candidate(n, doubt=0.0) for n in range(6)]
    # Alike, and without any doubt.
    choices = choose(candidates(rows, np.zeros((6, 2))), 9, random_share=share, seed=0)
    assert sorted(choice.place for choice in choices) == list(range(6))
    assert sum(choice.reason == "random" for choice in choices) == round(6 * share)


def test_what_is_like_one_drawn_by_lot_is_not_picked_too() -> None:
    # Five pairs of twins, all as doubtful: one of each pair is enough.
    of = candidates([candidate(n) for n in range(10)], np.repeat(np.eye(5), 2, axis=0))
    for seed in range(20):
        choices = choose(of, 3, random_share=0.34, seed=seed)
        assert [choice.reason for choice in choices] == ["random", "unsure", "unsure"]
        assert len({choice.place // 2 for choice in choices}) == 3
