"""The table of the final families, and the conditions in which they are scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from dimml.modality import Modality
from dimml_training.config.corruption_suite import Condition, Corruption, Sense

#: Random draws of a corruption that has a random part.
DRAWS: Final = 2
#: What a final family can damage, by the kind of modality. A kind without a row stays whole (``skipped``).
SENSES: Final[Mapping[str, Sense]] = {"waveform": "sound", "frames": "picture", "flow": "picture"}


@dataclass(frozen=True)
class FinalFamily:
    """One row: severities as amounts, mildest first, in the unit that the family's function names."""

    name: str
    severities: Mapping[str, float]
    random: bool = True
    #: Needs a row that covers time in every picture that it damages.
    moving: bool = False

    def at(self, severity: str, sense: Sense) -> Corruption:
        """This family at a severity, for a modality of a sense."""
        draws = DRAWS if self.random else 1
        return Corruption(self.name, severity, self.severities[severity], sense, seen=False, draws=draws)


SOUND_FAMILIES: Final = (
    FinalFamily("music", {"0db": 0.0, "-10db": -10.0}),
    FinalFamily("packet_loss", {"20pct": 0.2, "50pct": 0.5}),
    FinalFamily("low_rate_codec", {"once": 1.0, "4times": 4.0}, random=False),
    FinalFamily("wind", {"-5db": -5.0, "-15db": -15.0}),
    FinalFamily("echo", {"0.5": 0.5, "0.8": 0.8}),
    FinalFamily("speed", {"1.2": 1.2, "1.5": 1.5}),
)
PICTURE_FAMILIES: Final = (
    FinalFamily("rain", {"light": 0.5, "heavy": 2.0}),
    FinalFamily("fog", {"thin": 0.5, "thick": 0.8}),
    FinalFamily("motion_blur", {"10pct": 0.1, "25pct": 0.25}),
    FinalFamily("zoom", {"1.3": 1.3, "1.8": 1.8}),
    FinalFamily("moving_bar", {"30pct": 0.3, "60pct": 0.6}),
    FinalFamily("rolling_band", {"0.7": 0.7, "0.95": 0.95}),
)
#: One cause for sound and pictures (``together``).
PAIR_FAMILIES: Final = (
    FinalFamily("out_of_step", {"25pct": 0.25, "50pct": 0.5}, moving=True),
    FinalFamily("rainstorm", {"shower": 0.7, "cloudburst": 2.0}),
    FinalFamily("gale", {"fresh": 1.0, "strong": 2.0}),
    FinalFamily("concert", {"near": 0.7, "loud": 1.5}),
    FinalFamily("bad_link", {"30pct": 0.3, "60pct": 0.6}),
)
#: Two causes at once, one of sound and one of every picture: family and severity of each.
TWO_CAUSES: Final = (
    (("music", "0db"), ("moving_bar", "30pct")),
    (("packet_loss", "20pct"), ("zoom", "1.3")),
    (("echo", "0.5"), ("rolling_band", "0.7")),
    (("wind", "-5db"), ("fog", "thin")),
)
#: Of several pictures and no sound: what a common cause does to all of them alike.
ALL_PICTURES: Final = (("rain", "heavy"), ("fog", "thick"), ("moving_bar", "60pct"), ("rolling_band", "0.95"))


def final_conditions(modalities: Sequence[Modality]) -> list[Condition]:
    """List the conditions for these modalities, clean first.

    A condition of sound damages every waveform, one of pictures a single modality, one of both every modality that has
    final families. Modalities of other kinds stay whole.
    """
    sounds = [m for m in modalities if SENSES.get(m.kind) == "sound"]
    pictures = [m for m in modalities if SENSES.get(m.kind) == "picture"]
    found = [Condition("clean", "clean", True, {}, False, 1)]
    if sounds:
        for family in SOUND_FAMILIES:
            found += [_condition("sound", {m: family.at(s, "sound") for m in sounds}) for s in family.severities]
    for picture in pictures:
        for family in PICTURE_FAMILIES:
            found += [_condition("picture", {picture: family.at(s, "picture")}) for s in family.severities]
    if sounds and pictures:
        for family in PAIR_FAMILIES:
            if not family.moving or all(m.covers_time for m in pictures):
                for severity in family.severities:
                    both = {m: family.at(severity, SENSES[m.kind]) for m in (*sounds, *pictures)}
                    found.append(_condition("both", both))
        for (heard, loud), (seen, strong) in TWO_CAUSES:
            of_sound, of_picture = _named(SOUND_FAMILIES, heard), _named(PICTURE_FAMILIES, seen)
            found.append(
                _condition(
                    "both",
                    {m: of_sound.at(loud, "sound") for m in sounds}
                    | {m: of_picture.at(strong, "picture") for m in pictures},
                )
            )
    elif len(pictures) > 1:
        for name, severity in ALL_PICTURES:
            found.append(
                _condition("both", {m: _named(PICTURE_FAMILIES, name).at(severity, "picture") for m in pictures})
            )
    return found


def skipped(modalities: Sequence[Modality]) -> list[str]:
    """Say which modalities no final family can damage, one line each."""
    return [
        f"{m.name}: no final family damages a {m.kind}; it stays whole in every final condition"
        for m in modalities
        if m.kind not in SENSES
    ]


def _condition(group: str, damage: Mapping[Modality, Corruption]) -> Condition:
    kinds = "+".join(dict.fromkeys(corruption.name for corruption in damage.values()))
    by_modality = {m.name: corruption for m, corruption in damage.items()}
    return Condition(
        name=f"{'+'.join(by_modality)}:{kinds}",
        group="sound" if group == "sound" else "picture" if group == "picture" else "both",
        seen=False,
        by_modality=by_modality,
        in_means=True,
        draws=max(c.draws for c in by_modality.values()),
    )


def _named(families: Sequence[FinalFamily], name: str) -> FinalFamily:
    return next(family for family in families if family.name == name)
