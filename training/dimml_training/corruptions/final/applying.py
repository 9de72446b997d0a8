"""Applying a final family to the rows of clips.

The damage depends on the seed, the corruption, the draw and the clip's number, never on the modality: what damages
several of them has one course in all.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dimml.modality import Modality
from dimml_training.config.corruption_suite import Corruption
from dimml_training.corruptions.final.families import SENSES
from dimml_training.corruptions.final.picture import PICTURE
from dimml_training.corruptions.final.sound import SOUND
from dimml_training.corruptions.final.together import TOGETHER


def corrupt_finally(
    rows: npt.NDArray[Any],
    modality: Modality,
    corruption: Corruption,
    *,
    clip_ids: Sequence[int] | npt.NDArray[np.int64],
    draw: int,
    seed: int,
    others: npt.NDArray[Any] | None = None,
) -> npt.NDArray[Any]:
    """Damaged copies of ``rows`` ``[N, *modality.shape]``, in the modality's dtype; ``others`` is not looked at.

    Sound that would pass full scale is turned down as a whole, pictures are rounded and cut to bytes.
    """
    out = np.empty_like(rows)
    key = zlib.crc32(f"final/{corruption.name}".encode())
    for index, clip_id in enumerate(clip_ids):
        rng = np.random.default_rng([key, seed, draw, int(clip_id)])
        row = rows[index]
        if SENSES[modality.kind] == "sound":
            family = SOUND[corruption.family] if corruption.family in SOUND else TOGETHER[corruption.family][0]
            rate_hz = modality.sampling[1] if modality.sampling else 0
            sound = family(row, corruption.amount, rng, rate_hz)
            out[index] = sound / max(1.0, float(np.abs(sound).max(initial=0.0)))
        else:
            shown = PICTURE[corruption.family] if corruption.family in PICTURE else TOGETHER[corruption.family][1]
            pictures = shown(row, corruption.amount, rng, modality.kind == "flow")
            out[index] = np.clip(np.round(pictures), 0, 255)
    return out
