"""Composed conditions: chains of two seen families, and seen damage to two modalities at once.

They teach a reliability that looks at several heads what damage does that no list has: two things at once. They are
never scored.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import combinations

from dimml.modality import Modality
from dimml_training.config.corruption_suite import Condition, Corruption, conditions

#: As in ``corruptions.applying``: what mixes in another clip cannot come second, where only damaged clips are at hand.
_FIRST_ONLY = frozenset({"another_clip", "patch"})


def composed_conditions(modalities: Sequence[Modality], families: Collection[str] | None = None) -> list[Condition]:
    """List the composed conditions for these modalities, of all seen families or those given.

    For every target of damage (all waveforms, or one modality of pictures or sensors), each family is followed by the
    next one of the target's list, the first by its mildest standard severity; and for every two targets, each family of
    the longer list meets one of the other: its strongest severity the other's mildest, and the reverse in turn.
    """
    targets: dict[tuple[str, ...], dict[str, list[Corruption]]] = {}
    for condition in conditions(modalities, "seen"):
        allowed = families is None or condition.families <= set(families)
        if condition.group not in ("sound", "picture", "series") or not allowed:
            continue
        (corruption, *_) = (c for c in condition.by_modality.values() if isinstance(c, Corruption))
        of_target = targets.setdefault(tuple(condition.by_modality), {})
        of_target.setdefault(corruption.family, []).append(corruption)
    found = []
    for target, by_family in targets.items():
        found += [_condition({target: chain}) for chain in _chains(list(by_family.values()))]
    for (one, of_one), (other, of_other) in combinations(targets.items(), 2):
        lists = list(of_one.values()), list(of_other.values())
        for turn in range(max(map(len, lists))):
            strong = turn % 2
            pair = [own[turn % len(own)][-1 if side == strong else 0] for side, own in enumerate(lists)]
            found.append(_condition({one: pair[0], other: pair[1]}))
    return found


def _chains(families: Sequence[Sequence[Corruption]]) -> list[Corruption]:
    """Make a chain of each family and the next; of two families one, of one none."""
    chains = []
    for place in range(len(families) if len(families) > 2 else len(families) - 1):
        first, second = families[place][0], families[(place + 1) % len(families)][0]
        if second.family in _FIRST_ONLY:
            first, second = second, first
        if second.family not in _FIRST_ONLY:
            chains.append(replace(first, then=second, draws=max(first.draws, second.draws)))
    return chains


def _condition(by_target: dict[tuple[str, ...], Corruption]) -> Condition:
    by_modality = {name: corruption for target, corruption in by_target.items() for name in target}
    return Condition(
        name=f"{'+'.join(by_modality)}:{'+'.join(corruption.name for corruption in by_target.values())}",
        group="composed",
        seen=True,
        by_modality=by_modality,
        in_means=False,
        draws=1,
    )
