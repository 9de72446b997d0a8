"""Which candidates are worth a label: those that the bundle is likely wrong about, unlike each other, and some by lot.

The part by lot is drawn first, all candidates equally likely. It alone says how often the bundle is right, and may
calibrate anew: what was picked for being doubtful is harder than what comes in, and a threshold fitted to it promises
the wrong thing.

The rest is picked one by one, by ``need · novelty / sqrt(1 + picked of its predicted label)``:

- ``need``: the larger of doubt and disagreement, and 1 more where the bundle abstained;
- ``novelty``: how far it is from what has been chosen, 1 from ``NEAR`` on (after maximal marginal relevance, Carbonell
  and Goldstein 1998, SIGIR); 0 for a range that overlaps one of the same recording;
- the root keeps a class that the bundle often doubts from taking the whole budget, and a class from being left out for
  being rare among the doubtful.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from dimml_client.labelling.candidates import Candidate, Candidates

Reason = Literal["abstained", "disagreement", "unsure", "random"]
#: Two candidates nearer than this (of at most 1) count as alike: as near are answers of 0.8 and 0.9 for one of ten
#: labels, whose modalities' votes are as far apart.
NEAR: Final = 0.1
#: What is left of the need of a candidate like a chosen one, so that a budget that all candidates fit in takes them by
#: need.
_ALIKE: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Choice:
    """A candidate by its place in the table's candidates, and why it was chosen."""

    place: int
    reason: Reason


def choose(candidates: Candidates, budget: int, *, random_share: float, seed: int) -> list[Choice]:
    """Choose ``budget`` candidates, or all if there are fewer: those by lot first, then by need, best first.

    ``random_share`` of them, rounded, is drawn by lot from ``seed``.
    """
    rows, count = candidates.rows, min(budget, len(candidates.rows))
    by_lot = np.random.default_rng(seed).choice(len(rows), size=round(random_share * count), replace=False)
    chosen = [Choice(int(place), "random") for place in np.sort(by_lot)]
    need_N = np.array([max(row.doubt, row.disagreement) + row.abstained for row in rows])
    novelty = _Novelty(candidates)
    of_label: dict[str, int] = defaultdict(int)
    label_N, places = np.unique([row.label for row in rows], return_inverse=True)
    left_N = np.ones(len(rows), np.bool_)
    for choice in chosen:
        left_N[choice.place] = False
        novelty.chose(choice.place)
    while len(chosen) < count:
        balance_N = 1.0 / np.sqrt(1.0 + np.array([of_label[label] for label in label_N.tolist()]))[places]
        gain_N = np.where(left_N, (need_N + _ALIKE) * np.maximum(novelty.of_all(), _ALIKE) * balance_N, -1.0)
        place = int(gain_N.argmax())
        chosen.append(Choice(place, _reason(rows[place])))
        left_N[place] = False
        of_label[rows[place].label] += 1
        novelty.chose(place)
    return chosen


def _reason(row: Candidate) -> Reason:
    if row.abstained:
        return "abstained"
    return "disagreement" if row.disagreement > row.doubt else "unsure"


class _Novelty:
    """Distance of every candidate to the nearest chosen one, kept up to date: a pick costs one pass over them."""

    def __init__(self, candidates: Candidates) -> None:
        self._candidates = candidates
        self._distance_N = np.full(len(candidates.rows), np.inf, np.float32)
        self._of_recording: dict[tuple[tuple[str, str], ...], list[int]] = defaultdict(list)
        for place, row in enumerate(candidates.rows):
            self._of_recording[tuple(row.parts.items())].append(place)

    def chose(self, place: int) -> None:
        """Take a candidate among the chosen."""
        vectors_ND, row = self._candidates.vectors_ND, self._candidates.rows[place]
        away_N = np.sqrt(np.square(vectors_ND - vectors_ND[place]).sum(axis=1))
        self._distance_N = np.minimum(self._distance_N, away_N)
        for other in self._of_recording[tuple(row.parts.items())]:
            if _overlap(row, self._candidates.rows[other]):
                self._distance_N[other] = 0.0

    def of_all(self) -> npt.NDArray[np.float64]:
        """Return the novelty of every candidate, 0 to 1."""
        return np.minimum(1.0, self._distance_N.astype(np.float64) / NEAR)


def _overlap(one: Candidate, other: Candidate) -> bool:
    """Whether two ranges of one recording have time in common; without a range it is all of the recording."""
    starts = max(one.start_s or 0.0, other.start_s or 0.0)
    ends = min(float("inf") if row.end_s is None else row.end_s for row in (one, other))
    return starts < ends
