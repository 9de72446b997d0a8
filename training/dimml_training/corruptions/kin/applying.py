"""Applying kin damage, beside that of the suite, to the rows of clips."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dimml.errors import DataError
from dimml.modality import Flow, Frames, Kind, Modality, Series, Waveform
from dimml_training.config.corruption_suite import Corruption
from dimml_training.corruptions.applying import clip_rng, corrupt
from dimml_training.corruptions.kin.families import NAMES
from dimml_training.corruptions.kin.picture import PICTURE_KIN, PictureKin
from dimml_training.corruptions.kin.series import SERIES_KIN, SeriesKin
from dimml_training.corruptions.kin.sound import SOUND_KIN, SoundKin
from dimml_training.corruptions.sound import within_full_scale
from dimml_training.data.loader import ClipRows

#: Row, modality, family, random numbers and training clips, to a damaged row.
KinDamage = Callable[[npt.NDArray[Any], Any, str, np.random.Generator, npt.NDArray[Any]], npt.NDArray[Any]]

#: Most training clips that voices, pieces of pictures and stray values come from, spread evenly over the split.
MOST_CLIPS: Final = 64


@dataclass(frozen=True)
class WithKin:
    """Damages rows as ``corruptions.applying.corrupt`` does, and by kin families too, with the help of training clips.

    The damage of a kin family depends on these clips, the seed, the modality, the family, the draw and the clip's
    number.
    """

    train: ClipRows
    _kept: dict[str, npt.NDArray[Any]] = field(default_factory=dict, repr=False)

    def __call__(
        self,
        rows: npt.NDArray[Any],
        modality: Modality,
        corruption: Corruption,
        *,
        clip_ids: Sequence[int] | npt.NDArray[np.int64],
        draw: int,
        seed: int,
        others: npt.NDArray[Any] | None = None,
    ) -> npt.NDArray[Any]:
        """Damaged copies of ``rows`` ``[N, *modality.shape]``.

        Raises DataError without a training clip to take from.
        """
        if corruption.family not in NAMES:
            return corrupt(rows, modality, corruption, clip_ids=clip_ids, draw=draw, seed=seed, others=others)
        clips = self._clips(modality)
        out = np.empty_like(rows)
        for i, clip_id in enumerate(clip_ids):
            rng = clip_rng(modality, corruption, int(clip_id), draw=draw, seed=seed, what="kin")
            out[i] = KIN_OF[modality.kind](rows[i], modality, corruption.family, rng, clips)
        return out

    def _clips(self, modality: Modality) -> npt.NDArray[Any]:
        """Rows of some training clips that have the modality, ``[K, *modality.shape]``."""
        if modality.name not in self._kept:
            having = np.flatnonzero(self.train.has(modality.name))
            if len(having) == 0:
                raise DataError(f"no training clip has {modality.name}: kin of damage needs one (certainty.kin)")
            wanted = np.unique(np.linspace(0, len(having) - 1, min(MOST_CLIPS, len(having))).round().astype(np.int64))
            self._kept[modality.name] = self.train.rows(modality.name, having[wanted].tolist())
        return self._kept[modality.name]


def _sound(
    row: npt.NDArray[Any], modality: Waveform, family: str, rng: np.random.Generator, clips: npt.NDArray[Any]
) -> npt.NDArray[Any]:
    return within_full_scale(SOUND_KIN[family](row, SoundKin(rng, modality.sample_rate_hz, clips)))


def _pictures(
    row: npt.NDArray[Any], modality: Frames | Flow, family: str, rng: np.random.Generator, clips: npt.NDArray[Any]
) -> npt.NDArray[Any]:
    return PICTURE_KIN[family](row, PictureKin(rng, flow=not modality.rgb, clips=clips))


def _series(
    row: npt.NDArray[Any], modality: Series, family: str, rng: np.random.Generator, clips: npt.NDArray[Any]
) -> npt.NDArray[Any]:
    return SERIES_KIN[family](row, SeriesKin(rng, clips))


#: A copy of one clip's row, damaged by a kin family, of a modality of each kind.
KIN_OF: Final[Mapping[Kind, KinDamage]] = {
    "waveform": _sound,
    "frames": _pictures,
    "flow": _pictures,
    "series": _series,
}
