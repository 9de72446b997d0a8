"""The fixed table of corruptions and conditions: their severities, and which of them training may see.

A *family* is one kind of damage. Training and the choice of a fusion may know the *seen* families; the *development*
ones show while dimml is developed how both do on damage that they have not seen, and the *final* ones
(``corruptions.final``), sealed, are scored once. A *corruption* is a family at one severity. A *condition* says what
happens to each modality.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, ClassVar, Final, Literal

from dimml.modality import Kind, Modality

#: What a family damages; several kinds of modality may share one.
Sense = Literal["sound", "picture", "series"]
Group = Literal["clean", "sound", "picture", "series", "both", "absent", "nosignal", "conflict", "kin", "composed"]
Which = Literal["seen", "development", "all"]

#: Random draws of a corruption that has a random part.
DRAWS = 3


class Instead(StrEnum):
    """Replacement of a whole modality."""

    ABSENT = "absent"
    #: The modality of a clip with another label.
    OTHER_CLIP = "other_clip"


ABSENT, OTHER_CLIP = Instead.ABSENT, Instead.OTHER_CLIP


@dataclass(frozen=True)
class Corruption:
    """A family at one severity; ``amount`` is the severity as a number, in the family's unit."""

    HISTORIC_DEFAULTS: ClassVar[Mapping[str, Any]] = {"then": None, "near": ()}
    family: str
    severity: str
    amount: float
    kind: Sense
    seen: bool
    #: 1 if the corruption has no random part.
    draws: int
    #: What is done to the damaged clip next.
    then: Corruption | None = None
    #: Seen families that it resembles: what is scored as never seen must not have learned from it either.
    near: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Family and severity, such as ``white_0db``; of a chain both, ``white_0db>gaps_60pct``."""
        own = f"{self.family}_{self.severity}" if self.severity else self.family
        return own if self.then is None else f"{own}>{self.then.name}"

    @property
    def families(self) -> frozenset[str]:
        """Names of the families in it, one or a chain's, and of those that it resembles."""
        return frozenset({self.family, *self.near}) | (frozenset() if self.then is None else self.then.families)


@dataclass(frozen=True)
class Condition:
    """Damage to each modality named in ``by_modality``; the others are clean.

    ``in_means``: whether it counts in means over conditions and in the worst condition. ``draws``: random draws of it.
    """

    name: str
    group: Group
    seen: bool
    by_modality: Mapping[str, Corruption | Instead]
    in_means: bool
    draws: int

    @property
    def families(self) -> frozenset[str]:
        """Names of the families in this condition."""
        each = (c.families for c in self.by_modality.values() if isinstance(c, Corruption))
        return frozenset[str]().union(*each)


@dataclass(frozen=True)
class Family:
    """One row of the table.

    ``severities`` maps labels to amounts, mildest first; those in ``standard`` are in every run of the suite, the
    others only in severity curves.
    """

    name: str
    kind: Sense
    seen: bool
    random: bool
    severities: Mapping[str, float]
    standard: tuple[str, ...]
    #: The only kind of modality to which it applies; None means every kind of its sense.
    only: Kind | None = None
    #: Needs more than one frame.
    moving: bool = False

    def at(self, severity: str) -> Corruption:
        """This family at one of its severities."""
        draws = DRAWS if self.random else 1
        return Corruption(self.name, severity, self.severities[severity], self.kind, self.seen, draws)

    def suits(self, modality: Modality) -> bool:
        """Whether the family applies to this modality."""
        fits = self.kind == DAMAGES[modality.kind].sense and self.only in (None, modality.kind)
        return fits and (modality.covers_time or not self.moving)


_QUARTERS = {"25pct": 0.25, "50pct": 0.5, "75pct": 0.75}
_SNR_DB = {"20db": 20.0, "10db": 10.0, "0db": 0.0, "-10db": -10.0}

#: Formulas and units are in ``corruptions.sound``, ``corruptions.picture`` and ``corruptions.series``, under the same
#: names.
FAMILIES: tuple[Family, ...] = (
    Family("white", "sound", True, True, _SNR_DB, ("10db", "0db", "-10db")),
    Family("another_clip", "sound", True, True, _SNR_DB, ("0db", "-10db")),
    Family("tones", "sound", True, True, _SNR_DB, ("-10db",)),
    Family("clicks", "sound", True, True, _SNR_DB, ("-10db",)),
    Family("low_pass", "sound", True, False, {"2000hz": 2000.0, "1000hz": 1000.0, "500hz": 500.0}, ("500hz",)),
    Family("high_pass", "sound", True, False, {"500hz": 500.0, "1000hz": 1000.0, "2000hz": 2000.0}, ("2000hz",)),
    Family("gaps", "sound", True, True, {"20pct": 0.2, "40pct": 0.4, "60pct": 0.6}, ("60pct",)),
    Family("time_shift", "sound", True, True, {"10pct": 0.1, "20pct": 0.2, "40pct": 0.4}, ("20pct",)),
    Family("pink", "sound", False, True, _SNR_DB, ("0db", "-10db")),
    Family("voices", "sound", False, True, _SNR_DB, ("10db", "0db", "-10db")),
    Family("reverberation", "sound", False, True, {"0.3s": 0.3, "0.8s": 0.8, "2s": 2.0}, ("0.8s",)),
    Family("clipping", "sound", False, False, {"20db": 20.0, "40db": 40.0, "60db": 60.0}, ("40db",)),
    Family("pixel_noise", "picture", True, True, {"20": 20.0, "40": 40.0, "80": 80.0}, ("20", "80")),
    Family("blur", "picture", True, False, {"2pct": 0.02, "5pct": 0.05, "10pct": 0.1}, ("2pct", "10pct")),
    Family("darkness", "picture", True, False, {"0.3": 0.3, "0.1": 0.1, "0.05": 0.05}, ("0.1",), only="frames"),
    Family("glare", "picture", True, False, {"60": 60.0, "120": 120.0, "180": 180.0}, ("120",), only="frames"),
    Family("fading", "picture", True, False, {"0.5": 0.5, "0.2": 0.2, "0.1": 0.1}, ("0.2",)),
    Family("grey_box", "picture", True, True, {"40pct": 0.4, "60pct": 0.6, "80pct": 0.8}, ("40pct", "80pct")),
    Family("down_sampling", "picture", True, False, {"3": 3.0, "6": 6.0, "10": 10.0}, ("6",)),
    Family("dropped_frames", "picture", True, True, _QUARTERS, ("50pct",), moving=True),
    Family("camera_shake", "picture", True, True, {"10": 10.0, "20": 20.0, "40": 40.0}, ("20",), only="flow"),
    Family("lower_part", "picture", False, True, {"30pct": 0.3, "50pct": 0.5, "70pct": 0.7}, ("30pct", "70pct")),
    Family("patch", "picture", False, True, {"40pct": 0.4, "60pct": 0.6, "80pct": 0.8}, ("40pct", "80pct")),
    Family("tilt", "picture", False, True, {"15deg": 15.0, "30deg": 30.0, "60deg": 60.0}, ("30deg",)),
    Family("low_bitrate", "picture", False, False, {"32": 32.0, "38": 38.0, "44": 44.0}, ("32", "44")),
    Family("frozen_frames", "picture", False, True, _QUARTERS, ("75pct",), moving=True),
    Family("sensor_noise", "series", True, True, _SNR_DB, ("10db", "0db", "-10db")),
    Family("dead_channels", "series", True, True, _QUARTERS, ("50pct",)),
    Family("lost_samples", "series", True, True, {"20pct": 0.2, "30pct": 0.3, "40pct": 0.4}, ("40pct",)),
    Family("drift", "series", True, True, {"1": 1.0, "2": 2.0, "4": 4.0}, ("2",)),
    Family("jitter", "series", False, True, {"0.05s": 0.05, "0.1s": 0.1, "0.2s": 0.2}, ("0.1s",)),
    Family("saturation", "series", False, False, {"50pct": 0.5, "30pct": 0.3, "10pct": 0.1}, ("30pct", "10pct")),
    Family("stuck", "series", False, True, _QUARTERS, ("50pct",)),
    Family("spikes", "series", False, True, {"2pct": 0.02, "5pct": 0.05, "10pct": 0.1}, ("5pct",)),
)  # fmt: skip

SILENCE = Corruption("silence", "", 0.0, "sound", True, 1)
BLACK = Corruption("black", "", 0.0, "picture", True, 1)
FLAT = Corruption("flat", "", 0.0, "series", True, 1)


@dataclass(frozen=True)
class Damages:
    """How a kind of modality can be corrupted; ``nothing`` is the corruption that leaves no signal at all."""

    sense: Sense
    nothing: Corruption
    #: Whether one condition damages all modalities of the sense: what one microphone hears, all do.
    together: bool


DAMAGES: Final[Mapping[Kind, Damages]] = {
    "waveform": Damages("sound", SILENCE, together=True),
    "frames": Damages("picture", BLACK, together=False),
    "flow": Damages("picture", BLACK, together=False),
    "series": Damages("series", FLAT, together=False),
}

#: Conditions that corrupt every modality at once: the corruption for those of each sense.
BOTH: Final[tuple[Mapping[Sense, tuple[str, str]], ...]] = (
    {"sound": ("white", "0db"), "picture": ("blur", "2pct"), "series": ("sensor_noise", "0db")},
    {"sound": ("gaps", "60pct"), "picture": ("grey_box", "40pct"), "series": ("lost_samples", "40pct")},
    {"sound": ("voices", "10db"), "picture": ("low_bitrate", "32"), "series": ("jitter", "0.1s")},
    {"sound": ("reverberation", "0.8s"), "picture": ("lower_part", "70pct"), "series": ("saturation", "30pct")},
)


def conditions(modalities: Sequence[Modality], which: Which, *, detail: bool = False) -> list[Condition]:
    """List the conditions for these modalities, clean first; ``detail`` takes every severity, not the standard ones.

    A condition of sound damages every waveform; one of pictures or of a series damages a single modality, named before
    the colon.
    A condition is seen if all corruptions in it are. Conditions without signal, with an absent modality or with
    conflicting modalities are not in the means.
    """
    found = [Condition("clean", "clean", True, {}, False, 1)]
    together: dict[Sense, list[Modality]] = {}
    alone: list[list[Modality]] = []
    for m in modalities:
        damages = DAMAGES[m.kind]
        if damages.together:
            together.setdefault(damages.sense, []).append(m)
        else:
            alone.append([m])
    for target in [*together.values(), *alone]:
        for family in FAMILIES:
            if all(family.suits(m) for m in target):
                for severity in family.severities if detail else family.standard:
                    corruption = family.at(severity)
                    found.append(_condition(family.kind, target, [corruption] * len(target)))
    if len(modalities) > 1:
        for both in BOTH:
            pairs = [_family(*both[DAMAGES[m.kind].sense]) for m in modalities]
            found.append(_condition("both", modalities, pairs))
        for m in modalities:
            found.append(Condition(f"{m.name}:absent", "absent", True, {m.name: ABSENT}, False, 1))
        for m in modalities:
            nothing = DAMAGES[m.kind].nothing
            found.append(Condition(f"{m.name}:{nothing.name}", "nosignal", True, {m.name: nothing}, False, 1))
        for m in modalities:
            found.append(Condition(f"{m.name}:other_clip", "conflict", False, {m.name: OTHER_CLIP}, False, DRAWS))
    return [c for c in found if which == "all" or c.group == "clean" or c.seen == (which == "seen")]


def families_of(condition: str) -> frozenset[str]:
    """Names of the families in a condition, parsed from the condition's name."""
    return frozenset(kind.rpartition("_")[0] for kind in condition.rpartition(":")[2].split("+"))


def outside_means(suite: Sequence[Condition], families: Collection[str]) -> list[Condition]:
    """The same conditions, with those of ``families`` taken out of the means.

    A family that the training clips already contain cannot count as development.
    """
    return [replace(c, in_means=False) if c.families.intersection(families) else c for c in suite]


def _condition(group: Group, target: Sequence[Modality], corruptions: Sequence[Corruption]) -> Condition:
    by_modality = {m.name: corruption for m, corruption in zip(target, corruptions, strict=True)}
    kinds = list(dict.fromkeys(corruption.name for corruption in corruptions))
    return Condition(
        name=f"{'+'.join(by_modality)}:{'+'.join(kinds)}",
        group=group,
        seen=all(c.seen for c in corruptions),
        by_modality=by_modality,
        in_means=True,
        draws=max(c.draws for c in corruptions),
    )


def _family(name: str, severity: str) -> Corruption:
    return next(family for family in FAMILIES if family.name == name).at(severity)
