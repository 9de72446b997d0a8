"""Damage that a request asks for, to see what the answer owes to a clean signal: noise, or a covered picture.

It comes after decoding and the signal check, and is the same whenever the same row is damaged again.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dimml.errors import InvalidParameterError
from dimml.modality import Kind, Modality
from dimml.request_parameters import DAMAGE

#: Grey of a covered picture, and flow at rest.
GREY: Final = 128
#: Longest text that is read, and longest part of it that a message repeats.
_MAX_TEXT: Final = 1024
_SHOWN: Final = 60

Row = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Damage:
    """One damage of one modality, as ``audio:noise:-10``; ``str()`` leaves out the modality."""

    modality: Modality
    kind: str
    amount: float

    def __str__(self) -> str:
        return f"{self.kind}:{self.amount:g}"


@dataclass(frozen=True, slots=True)
class _DamageKind:
    """A kind of damage: its amount's name, least and largest, and what does it to a row ``[*shape]``."""

    amount: str
    least: float
    largest: float
    apply: Callable[[Row, float], Row]


def parse_damage(text: str | None, modalities: Sequence[Modality]) -> tuple[Damage, ...]:
    """Parse a comma-separated list of ``MODALITY:KIND:AMOUNT``; None and an empty text are no damage.

    Raises InvalidParameterError for another form, an unknown modality, a kind or amount that it does not take, and a
    kind that is asked for twice.
    """
    if not text:
        return ()
    if len(text) > _MAX_TEXT:
        raise InvalidParameterError(f"{DAMAGE} must be at most {_MAX_TEXT} characters long", field=DAMAGE)
    damages = tuple(_parse_one(part.strip(), modalities) for part in text.split(",") if part.strip())
    for asked, count in Counter(f"{damage.modality.name}:{damage.kind}" for damage in damages).items():
        if count > 1:
            raise InvalidParameterError(f"{DAMAGE}: {asked} stands there more than once", field=DAMAGE)
    return damages


def damaged(tensors: Mapping[str, Row], damages: Sequence[Damage]) -> dict[str, Row]:
    """Copy tensors ``[B, *shape]`` by modality, with ``damages`` done to every row, in their order.

    A damage of a modality that has no tensor is left out.
    """
    out = dict(tensors)
    for damage in damages:
        name = damage.modality.name
        if name in out:
            kind = DAMAGES[damage.modality.kind][damage.kind]
            out[name] = np.stack([kind.apply(row, damage.amount) for row in out[name]])
    return out


def described(damages: Sequence[Damage], present: Mapping[str, Any]) -> dict[str, str]:
    """Say which damage was done, by modality, of those in ``present``; several of one modality with commas between."""
    texts: dict[str, list[str]] = {}
    for damage in damages:
        if damage.modality.name in present:
            texts.setdefault(damage.modality.name, []).append(str(damage))
    return {name: ",".join(done) for name, done in texts.items()}


def _parse_one(text: str, modalities: Sequence[Modality]) -> Damage:
    shown = repr(text[:_SHOWN])
    name, colon, rest = text.partition(":")
    kind, second_colon, amount_text = rest.partition(":")
    if not (colon and second_colon):
        raise InvalidParameterError(
            f"{DAMAGE}: write it as MODALITY:KIND:AMOUNT, such as audio:noise:-10; got {shown}", field=DAMAGE
        )
    modality = next((one for one in modalities if one.name == name), None)
    if modality is None:
        known = [one.name for one in modalities]
        raise InvalidParameterError(f"{DAMAGE}: {shown} names none of the modalities {known}", field=DAMAGE)
    kinds = DAMAGES[modality.kind]
    if kind not in kinds:
        raise InvalidParameterError(f"{DAMAGE}: {name!r} takes {' or '.join(kinds)}; got {shown}", field=DAMAGE)
    wanted = kinds[kind]
    try:
        amount = float(amount_text)
    except ValueError:
        amount = math.nan
    if not wanted.least <= amount <= wanted.largest:
        raise InvalidParameterError(
            f"{DAMAGE}: {wanted.amount} of {name}:{kind} must be from {wanted.least:g} to {wanted.largest:g}; "
            f"got {shown}",
            field=DAMAGE,
        )
    return Damage(modality, kind, amount)


def _white_noise(waveform_S: Row, snr_db: float) -> Row:
    """Add white noise at a ratio of mean powers over the whole row; past full scale, all is made quieter alike."""
    noise_S = _normal(waveform_S.shape)
    scale = math.sqrt(float(np.mean(np.square(waveform_S, dtype=np.float64))) / float(np.mean(np.square(noise_S))))
    mix_S = waveform_S + noise_S * scale * 10.0 ** (-snr_db / 20.0)
    return np.asarray(mix_S / max(1.0, float(np.abs(mix_S).max(initial=0.0))), np.float32)


def _sensor_noise(series_SC: Row, snr_db: float) -> Row:
    """Add white noise to each channel, at a ratio to its own variance over the row; what is missing stays so."""
    there_SC = np.isfinite(series_SC)
    count_C = np.maximum(there_SC.sum(axis=0), 1)
    known_SC = np.where(there_SC, series_SC, 0.0).astype(np.float64)
    centred_SC = np.where(there_SC, known_SC - known_SC.sum(axis=0) / count_C, 0.0)
    deviation_C = np.sqrt(np.square(centred_SC).sum(axis=0) / count_C)
    return np.asarray(series_SC + _normal(series_SC.shape) * deviation_C * 10.0 ** (-snr_db / 20.0), np.float32)


def _lose(series_SC: Row, share: float) -> Row:
    """Take away the middle of the row, over ``share`` of its time."""
    out = series_SC.copy()
    length = round(share * len(out))
    first = (len(out) - length) // 2
    out[first : first + length] = np.nan
    return out


def _pixel_noise(clip_THWC: Row, deviation: float) -> Row:
    noise_THWC = _normal(clip_THWC.shape)
    return np.asarray(np.clip(np.rint(clip_THWC + deviation * noise_THWC), 0, 255), np.uint8)


def _cover(clip_THWC: Row, share: float) -> Row:
    """Put a grey rectangle of the picture's own proportions in its middle, over ``share`` of its area."""
    height, width = clip_THWC.shape[1:3]
    rows, columns = (round(side * math.sqrt(share)) for side in (height, width))
    top, left = (height - rows) // 2, (width - columns) // 2
    out = clip_THWC.copy()
    out[:, top : top + rows, left : left + columns] = GREY
    return out


def _normal(shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Draw standard normal numbers, always the same ones for a shape."""
    return np.random.default_rng(shape).standard_normal(shape, dtype=np.float32)


_OF_PICTURES: Final = {
    "cover": _DamageKind("the covered share", 0.0, 1.0, _cover),
    "noise": _DamageKind("the standard deviation (of 255)", 0.0, 255.0, _pixel_noise),
}
#: What may be done to rows of a kind, by its name in a request.
DAMAGES: Final[Mapping[Kind, Mapping[str, _DamageKind]]] = {
    "waveform": {"noise": _DamageKind("the signal-to-noise ratio (dB)", -30.0, 60.0, _white_noise)},
    "frames": _OF_PICTURES,
    "flow": _OF_PICTURES,
    "series": {
        "noise": _DamageKind("the signal-to-noise ratio (dB)", -30.0, 60.0, _sensor_noise),
        "lose": _DamageKind("the lost share of the time", 0.0, 0.99, _lose),
    },
}
