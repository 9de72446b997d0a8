"""The table of kin families, and the conditions in which a reliability learns from them.

Unlike a family of the suite, a kin family has no fixed severities: every clip draws its own, with a texture, a place or
a room, so that the reliability meets many ways to fail instead of a few.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

from dimml.modality import Kind, Modality
from dimml_training.config.corruption_suite import DAMAGES, Condition, Corruption, Sense

#: Random draws of each.
DRAWS: Final = 2


@dataclass(frozen=True)
class KinFamily:
    """One row of the table. ``near``: seen families of the suite that it resembles, and is left out together with."""

    name: str
    sense: Sense
    near: tuple[str, ...] = ()
    #: The only kind of modality to which it applies; None means every kind of its sense.
    only: Kind | None = None
    #: Needs more than one frame.
    moving: bool = False

    def suits(self, modality: Modality) -> bool:
        """Whether the family applies to this modality."""
        fits = self.sense == DAMAGES[modality.kind].sense and self.only in (None, modality.kind)
        return fits and (modality.covers_time or not self.moving)

    def corruption(self) -> Corruption:
        """The family as the suite writes one; its amount means nothing."""
        return Corruption(self.name, "", 0.0, self.sense, seen=True, draws=DRAWS, near=self.near)


#: What each does stands in ``kin.sound``, ``kin.picture`` and ``kin.series``, under the same names.
KIN: Final = (
    KinFamily("coloured_noise", "sound", near=("white",)),
    KinFamily("room", "sound"),
    KinFamily("overdrive", "sound"),
    KinFamily("training_voices", "sound", near=("another_clip",)),
    KinFamily("sheet", "picture", near=("grey_box",)),
    KinFamily("thing", "picture", near=("grey_box",)),
    KinFamily("collage", "picture", near=("grey_box",)),
    KinFamily("blotches", "picture", near=("pixel_noise",)),
    KinFamily("exposure", "picture", near=("darkness", "glare", "fading"), only="frames"),
    KinFamily("warp", "picture"),
    KinFamily("jpeg", "picture", near=("down_sampling",)),
    KinFamily("stutter", "picture", near=("dropped_frames",), moving=True),
    KinFamily("wander", "series", near=("sensor_noise", "drift")),
    KinFamily("slow_clock", "series"),
    KinFamily("squashed", "series"),
    KinFamily("turned", "series", near=("dead_channels",)),
    KinFamily("stray", "series", near=("lost_samples",)),
)
NAMES: Final = frozenset(family.name for family in KIN)


def kin_conditions(modalities: Sequence[Modality], draws: int = DRAWS) -> list[Condition]:
    """List the kin conditions for these modalities, each with at most ``draws`` draws.

    Every family of a target (all waveforms, or one modality of another kind) alone, and for every two targets each
    family of the longer list with one of the other, which needs no encoding of its own.
    """
    targets: dict[tuple[str, ...], list[Corruption]] = {}
    together: dict[Sense, list[Modality]] = {}
    alone: list[list[Modality]] = []
    for modality in modalities:
        damages = DAMAGES[modality.kind]
        if damages.together:
            together.setdefault(damages.sense, []).append(modality)
        else:
            alone.append([modality])
    for target in (*together.values(), *alone):
        own = [family.corruption() for family in KIN if all(family.suits(m) for m in target)]
        targets[tuple(m.name for m in target)] = own
    found = [_condition({target: kin}, draws) for target, own in targets.items() for kin in own]
    for (one, of_one), (other, of_other) in combinations(targets.items(), 2):
        if of_one and of_other:
            for turn in range(max(len(of_one), len(of_other))):
                pair = {one: of_one[turn % len(of_one)], other: of_other[turn % len(of_other)]}
                found.append(_condition(pair, draws))
    return found


def _condition(by_target: dict[tuple[str, ...], Corruption], draws: int) -> Condition:
    by_modality = {name: kin for target, kin in by_target.items() for name in target}
    return Condition(
        name=f"{'+'.join(by_modality)}:{'+'.join(kin.name for kin in by_target.values())}",
        group="kin",
        seen=True,
        by_modality=by_modality,
        in_means=False,
        draws=min(DRAWS, draws),
    )
