"""Shapley values against their definition by orders of joining, and against the axioms that they are known by."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import numpy.typing as npt
import pytest

from dimml.explanation.shapley import LEAST_PROBABILITY, coalitions, log_probability, shapley_values

Worth = npt.NDArray[np.float64]


def by_orders(worth_S: Worth, players: int) -> list[float]:
    """What each player adds when it joins, on average over all orders: the definition, by sets and not by bits."""
    of_set = {frozenset(np.flatnonzero(row)): worth for row, worth in zip(coalitions(players), worth_S, strict=True)}
    added = [0.0] * players
    orders = list(permutations(range(players)))
    for order in orders:
        for place, player in enumerate(order):
            added[player] += of_set[frozenset(order[: place + 1])] - of_set[frozenset(order[:place])]
    return [total / len(orders) for total in added]


def random_worth(players: int, seed: int = 0) -> Worth:
    return np.random.default_rng(seed).normal(size=2**players)


def test_coalitions_are_all_sets_from_none_to_everybody() -> None:
    rows = coalitions(3)
    assert rows.tolist()[:4] == [[False] * 3, [True, False, False], [False, True, False], [True, True, False]]
    assert len({tuple(row) for row in rows.tolist()}) == 8
    assert not rows[0].any()
    assert rows[-1].all()


@pytest.mark.parametrize("players", [1, 2, 3, 4, 6])
def test_they_are_what_players_add_on_average_over_all_orders(players: int) -> None:
    worth = random_worth(players)
    assert shapley_values(worth) == pytest.approx(by_orders(worth, players), abs=1e-12)


@pytest.mark.parametrize("players", range(1, 9))
def test_they_share_out_all_that_there_is(players: int) -> None:
    worth = random_worth(players, seed=players)
    assert shapley_values(worth).sum() == pytest.approx(worth[-1] - worth[0], abs=1e-12)


def test_who_adds_the_same_everywhere_gets_the_same() -> None:
    # Worth by the number of players alone, on top of what the last one has by itself.
    rows = coalitions(3)
    worth = np.array([0.0, 1.0, 5.0])[rows[:, :2].sum(axis=1)] + 2.0 * rows[:, 2]
    assert shapley_values(worth) == pytest.approx([2.5, 2.5, 2.0])


def test_who_never_adds_anything_gets_nothing() -> None:
    rows = coalitions(3)
    worth = random_worth(2)[rows[:, 0] + 2 * rows[:, 2]]
    values = shapley_values(worth)
    assert values[1] == pytest.approx(0.0, abs=1e-15)
    assert values[[0, 2]] == pytest.approx(by_orders(random_worth(2), 2))


def test_they_are_additive() -> None:
    one, other = random_worth(4, seed=1), random_worth(4, seed=2)
    assert shapley_values(3.0 * one + other) == pytest.approx(3.0 * shapley_values(one) + shapley_values(other))


def test_other_numbers_of_coalitions_are_a_fault_of_the_caller() -> None:
    for count in (3, 6):
        with pytest.raises(ValueError, match="2\\^K"):
            shapley_values(np.zeros(count))


def test_the_logarithm_of_an_impossible_answer_is_finite() -> None:
    assert log_probability(np.array([1.0, 0.25, 0.0], np.float32)) == pytest.approx(
        [0.0, np.log(0.25), np.log(LEAST_PROBABILITY)]
    )
