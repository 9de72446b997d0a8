"""Left-out pairs of families, on which a choice is judged, and conditions that damage two modalities at once.

One family left out leaves its kin to learn from (a low-pass teaches a high-pass), and damage to one modality alone says
nothing of two that fail together. So families are left out by two, neighbours in the table of the suite, where kin
stand side by side; and what is left out together of two modalities is also scored together.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Final

from dimml_training.config.corruption_suite import Condition, Corruption

#: Families of a modality that are left out together, where it has at least twice as many.
TOGETHER: Final = 2
#: Corruptions that leave no answer: of two voices of one talker, the louder one is the wrong one. They teach distrust,
#: but no fusion is preferred for its answers to them.
WITHOUT_ANSWER: Final = frozenset({"another_clip_-10db"})


def has_answer(condition: Condition) -> bool:
    """Whether the clip's own class can be recognised in what a condition leaves of it."""
    return not any(isinstance(c, Corruption) and c.name in WITHOUT_ANSWER for c in condition.by_modality.values())


def name_has_answer(condition: str) -> bool:
    """As ``has_answer``, of a condition of the suite by its name, which is all that a cell keeps of it."""
    return WITHOUT_ANSWER.isdisjoint(condition.rpartition(":")[2].split("+"))


def left_out_together(conditions: Sequence[Condition]) -> list[frozenset[str]]:
    """Sets of families to leave out in turn: first none, then a pair of every modality's families at a time.

    Families that damage several modalities at once in some condition share a turn, so that the condition is scored by
    fits that saw none of them.
    """
    return [frozenset(), *(frozenset(f for pair in turn.values() for f in pair) for turn in _turns(conditions))]


def turns_of(conditions: Sequence[Condition]) -> list[int]:
    """By condition, the index in ``left_out_together`` of the set without whose families it is judged.

    That is the first set that holds all of its families which are ever left out. Modalities of one sense share names of
    families, which then stand in several sets, and the first set with one family of a pair may lack the other. Where no
    set holds all, it is the first that holds any; 0 for a condition without such a family.
    """
    turns = left_out_together(conditions)
    every = frozenset[str]().union(*turns)
    found = []
    for condition in conditions:
        own = condition.families & every
        fitting = [turn for turn, families in enumerate(turns) if own and own <= families]
        touching = [turn for turn, families in enumerate(turns) if own & families]
        found.append((fitting or touching or [0])[0])
    return found


def damaged_pairs(conditions: Sequence[Condition]) -> list[Condition]:
    """Conditions in which two modalities are damaged at once, by families of one turn: one mildly, one severely.

    They need no encoding of their own: each modality is as under its own condition. None for a single modality.
    """
    known = {c.name for c in conditions}
    of_family: dict[tuple[str, str], list[Condition]] = {}
    for condition in conditions:
        if condition.in_means and condition.group != "both" and has_answer(condition):
            for family in condition.families:
                of_family.setdefault(("+".join(condition.by_modality), family), []).append(condition)
    found: dict[str, Condition] = {}
    for turn in _turns(conditions):
        for (one, families), (other, others) in combinations(turn.items(), 2):
            for k in range(max(len(families), len(others))):
                pair = [
                    of_family.get((target, own[k % len(own)])) for target, own in ((one, families), (other, others))
                ]
                if pair[0] is None or pair[1] is None:
                    continue
                first, second = (pair[0][-1], pair[1][0]) if k % 2 == 0 else (pair[0][0], pair[1][-1])
                both = _both(first, second)
                if both.name not in known:
                    found.setdefault(both.name, both)
    return list(found.values())


def _turns(conditions: Sequence[Condition]) -> list[dict[str, list[str]]]:
    """By turn: the families of each target of damage that are left out."""
    by_target: dict[str, dict[str, None]] = {}
    together: dict[str, int] = {}
    for index, condition in enumerate(c for c in conditions if c.group == "both"):
        for family in condition.families:
            together.setdefault(family, index)
    for condition in conditions:
        if condition.in_means and condition.group != "both":
            by_target.setdefault("+".join(condition.by_modality), {}).update(dict.fromkeys(condition.families))
    pairs: dict[str, list[list[str]]] = {}
    for target, families in by_target.items():
        names = list(families)
        size = TOGETHER if len(names) >= 2 * TOGETHER else 1
        parts = [names[start : start + size] for start in range(0, len(names), size)]
        last = len(together)
        pairs[target] = sorted(parts, key=lambda part: min(together.get(f, last) for f in part))
    turns = max((len(parts) for parts in pairs.values()), default=0)
    return [{t: parts[turn] for t, parts in pairs.items() if turn < len(parts)} for turn in range(turns)]


def _both(first: Condition, second: Condition) -> Condition:
    kinds = "+".join(condition.name.partition(":")[2] for condition in (first, second))
    by_modality = {**first.by_modality, **second.by_modality}
    return Condition(
        name=f"{'+'.join(by_modality)}:{kinds}",
        group="both",
        seen=first.seen and second.seen,
        by_modality=by_modality,
        in_means=True,
        draws=max(first.draws, second.draws),
    )
