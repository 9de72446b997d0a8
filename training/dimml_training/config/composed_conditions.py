"""Composed conditions: chains of two seen families, one after the other on the same modality.

They teach a reliability that looks at several heads what damage does that no list has: two things at once. They are
never scored. Damage to two modalities at once is in ``fusion_selection.family_pairs``, and is scored too.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from dimml.modality import Modality
from dimml_training.config.corruption_suite import Condition, Corruption, conditions

#: As in ``corruptions.applying``: what mixes in another clip cannot come second, where only damaged clips are at hand.
_FIRST_ONLY = frozenset({"another_clip", "patch"})


def composed_conditions(modalities: Sequence[Modality], families: Collection[str] | None = None) -> list[Condition]:
    """List the composed conditions for these modalities, of all seen families or those given.

    For every target of damage (all waveforms, or one modality of pictures or sensors), each family is followed by the
    next one of the target's list, both by their mildest standard severity.
    """
    targets: dict[tuple[str, ...], dict[str, list[Corruption]]] = {}
    for condition in conditions(modalities, "seen"):
        allowed = families is None or condition.families <= set(families)
        if condition.group not in ("sound", "picture", "series") or not allowed:
            continue
        (corruption, *_) = (c for c in condition.by_modality.values() if isinstance(c, Corruption))
        of_target = targets.setdefault(tuple(condition.by_modality), {})
        of_target.setdefault(corruption.family, []).append(corruption)
    return [
        _condition(target, chain)
        for target, by_family in targets.items()
        for chain in _chains(list(by_family.values()))
    ]


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


def _condition(target: tuple[str, ...], chain: Corruption) -> Condition:
    return Condition(
        name=f"{'+'.join(target)}:{chain.name}",
        group="composed",
        seen=True,
        by_modality=dict.fromkeys(target, chain),
        in_means=False,
        draws=1,
    )
