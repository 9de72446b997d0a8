"""Shapley values of the modalities, exact: every coalition of modalities is a row of one masked fusion.

Shapley, "A value for n-person games" (1953); Strumbelj and Kononenko, "Explaining prediction models and individual
predictions with feature contributions" (2014); Lundberg and Lee, "A unified approach to interpreting model
predictions" (2017). The worth of a coalition is the logarithm of the probability that the fusion gives to the answer
where only the coalition's modalities are present. Shape suffixes: S coalitions, K modalities that take part.
"""

from __future__ import annotations

from math import factorial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

#: Most modalities that are explained: the number of coalitions doubles with each.
MOST_MODALITIES: Final = 8
#: Least probability whose logarithm is taken.
LEAST_PROBABILITY: Final = 1e-12


def coalitions(players: int) -> npt.NDArray[np.bool_]:
    """Return all coalitions of ``players``, ``[S, K]`` with S = 2^K: player k is in row s where bit k of s is set.

    The first row is empty, the last one is everybody.
    """
    rows_S1 = np.arange(2**players)[:, None]
    return np.asarray((rows_S1 >> np.arange(players)) % 2 == 1)


def log_probability(probabilities: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Natural logarithm of probabilities, which are raised to ``LEAST_PROBABILITY`` where they are below it."""
    return np.log(np.maximum(np.asarray(probabilities, np.float64), LEAST_PROBABILITY))


def shapley_values(worth_S: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Compute each player's Shapley value, ``[K]``, from the worth of every coalition in the order of ``coalitions``.

    ``phi_k = sum over S without k of |S|! (K - |S| - 1)! / K! (v(S + k) - v(S))``: what a player adds, on average over
    all orders in which the players may join. The values add up to ``v(everybody) - v(nothing)``.
    """
    players = len(worth_S).bit_length() - 1
    if len(worth_S) != 2**players:
        raise ValueError(f"worth_S must have 2^K entries, got {len(worth_S)}")
    chances = [factorial(n) * factorial(players - n - 1) / factorial(players) for n in range(players)]
    sizes_S = coalitions(players).sum(axis=1)
    values = np.empty(players)
    for player in range(players):
        without = np.flatnonzero(np.arange(len(worth_S)) >> player & 1 == 0)
        chance = np.array([chances[size] for size in sizes_S[without]])
        values[player] = chance @ (worth_S[without | 1 << player] - worth_S[without])
    return values
