"""Applying a corruption to the rows of clips.

The damage depends only on the seed, the modality, the corruption, the draw and the clip's number, so that every method
gets the same damaged clips.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dimml.errors import DataError
from dimml.modality import Flow, Frames, Kind, Modality, Series, Waveform
from dimml_training.config.corruption_suite import Corruption
from dimml_training.corruptions.picture import PICTURE, PictureSource
from dimml_training.corruptions.series import SERIES, SeriesSource
from dimml_training.corruptions.sound import SOUND, SoundSource, within_full_scale
from dimml_training.corruptions.voices import other_voices

#: Families that need a second clip.
WITH_ANOTHER = frozenset({"another_clip", "patch"})
NOBODY = np.zeros((0, 1), np.float32)


def corrupt(
    rows: npt.NDArray[Any],
    modality: Modality,
    corruption: Corruption,
    *,
    clip_ids: Sequence[int] | npt.NDArray[np.int64],
    draw: int,
    seed: int,
    others: npt.NDArray[Any] | None = None,
    voices: npt.NDArray[np.float32] | None = None,
) -> npt.NDArray[Any]:
    """Damaged copies of ``rows`` ``[N, *modality.shape]``, in the modality's dtype.

    ``others`` ``[N, *modality.shape]`` are the clips that stand in for "another clip", one per row (by default, and for
    the second damage of a chain, drawn from the rows); ``voices`` FP32 ``[V, samples]`` at the modality's rate speak in
    babble (by default synthesised).
    Raises DataError where another clip is needed and there is none.
    """
    if others is None and corruption.family in WITH_ANOTHER:
        steps = another(len(rows), modality, corruption, clip_ids=clip_ids, draw=draw, seed=seed)
        others = rows[(np.arange(len(rows)) + steps) % len(rows)]
    out = np.empty_like(rows)
    for i, clip_id in enumerate(clip_ids):
        rng = clip_rng(modality, corruption, int(clip_id), draw=draw, seed=seed)
        other = rows[i] if others is None else others[i]
        out[i] = DAMAGED[modality.kind](rows[i], modality, corruption, Given(rng, other, voices))
    if corruption.then is None:
        return out
    return corrupt(out, modality, corruption.then, clip_ids=clip_ids, draw=draw, seed=seed, voices=voices)


@dataclass(frozen=True)
class Given:
    """What a corruption of one clip may draw on."""

    rng: np.random.Generator
    other: npt.NDArray[Any]
    voices: npt.NDArray[np.float32] | None


def _sound(row: npt.NDArray[Any], modality: Waveform, corruption: Corruption, given: Given) -> npt.NDArray[Any]:
    voices = NOBODY if given.voices is None else given.voices
    if given.voices is None and corruption.family == "voices":
        voices = other_voices(modality.sample_rate_hz)
    source = SoundSource(given.rng, modality.sample_rate_hz, given.other, voices)
    return within_full_scale(SOUND[corruption.family](row, corruption.amount, source))


def _pictures(row: npt.NDArray[Any], modality: Frames | Flow, corruption: Corruption, given: Given) -> npt.NDArray[Any]:
    source = PictureSource(given.rng, flow=not modality.rgb, other=given.other)
    return PICTURE[corruption.family](row, corruption.amount, source)


def _series(row: npt.NDArray[Any], modality: Series, corruption: Corruption, given: Given) -> npt.NDArray[Any]:
    return SERIES[corruption.family](row, corruption.amount, SeriesSource(given.rng, modality.sample_rate_hz))


#: A damaged copy of one clip's row of a modality of each kind.
DAMAGED: Final[Mapping[Kind, Callable[[npt.NDArray[Any], Any, Corruption, Given], npt.NDArray[Any]]]] = {
    "waveform": _sound,
    "frames": _pictures,
    "flow": _pictures,
    "series": _series,
}


def another(
    clips: int,
    modality: Modality,
    corruption: Corruption,
    *,
    clip_ids: Sequence[int] | npt.NDArray[np.int64],
    draw: int,
    seed: int,
) -> npt.NDArray[np.int64]:
    """Choose another clip for each clip, at random: its distance in the set of ``clips``, 1 to ``clips`` - 1.

    Raises DataError for a set of one clip.
    """
    if clips < 2:
        raise DataError(f"{corruption.name} mixes in another clip: the split needs at least two")
    # A separate random stream, so that the choice does not depend on what else the family draws.
    steps = [
        int(clip_rng(modality, corruption, int(i), draw=draw, seed=seed, what="another").integers(1, clips))
        for i in clip_ids
    ]
    return np.array(steps, dtype=np.int64)


def conflicting(labels_N: npt.NDArray[np.int64], *, draw: int, seed: int) -> npt.NDArray[np.int64]:
    """Choose for each clip a clip with another label, all equally likely. Raises DataError for a single label."""
    order = np.argsort(labels_N, kind="stable")
    starts = np.searchsorted(labels_N[order], labels_N, side="left")
    ends = np.searchsorted(labels_N[order], labels_N, side="right")
    elsewhere = len(labels_N) - (ends - starts)
    if len(labels_N) and not elsewhere.all():
        raise DataError("conflict needs clips of at least two classes")
    place = np.random.default_rng([seed, draw]).integers(0, elsewhere)
    return np.asarray(order[np.where(place < starts, place, place + ends - starts)], dtype=np.int64)


def clip_rng(
    modality: Modality, corruption: Corruption, clip_id: int, *, draw: int, seed: int, what: str = ""
) -> np.random.Generator:
    """Random generator of one clip: Philox, whose streams differ whenever the key does."""
    words = f"{seed}/{modality.name}/{corruption.name}/{draw}/{what}"
    key = int.from_bytes(hashlib.blake2b(words.encode(), digest_size=8).digest(), "little")
    return np.random.Generator(np.random.Philox(key=key + (clip_id << 64)))
