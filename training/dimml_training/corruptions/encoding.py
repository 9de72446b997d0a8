"""Encodings of clips under every condition; each distinct damage to a modality is encoded once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dimml.fusion import BoolArray, FloatArray
from dimml.modality import Modality
from dimml.signal_check import QualityThresholds
from dimml_training.config.corruption_suite import OTHER_CLIP, Condition, Corruption
from dimml_training.corruptions.applying import WITH_ANOTHER, another, conflicting, corrupt
from dimml_training.data.loader import ClipRows, prepared_no_signal
from dimml_training.data.prepare import Progress

BATCH = 64


@dataclass(frozen=True)
class EncodedModality:
    """One modality of N clips: ``features_ND``, ``logits_NC`` of its own head, and whether it carries a signal.

    Features and logits of a clip that lacks the modality are zeros.
    """

    features_ND: FloatArray
    logits_NC: FloatArray
    present_N: BoolArray


class Damage(Protocol):
    """Damages rows as ``corruptions.applying.corrupt`` does; every table of families has one."""

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
        """Damaged copies of the rows, in their dtype."""


#: Modality name, corruption (None: clean) and draw.
Key = tuple[str, Corruption | None, int]


@dataclass(frozen=True)
class Encoded:
    """Encodings of a set of clips under some conditions; ``labels_N`` are class indices."""

    labels_N: npt.NDArray[np.int64]
    modalities: tuple[str, ...]
    seed: int
    _by_key: dict[Key, EncodedModality] = field(repr=False)
    #: Modalities that some clips lack.
    lacking: frozenset[str] = frozenset()

    def get(self, condition: Condition, draw: int) -> dict[str, EncodedModality]:
        """Encodings of every modality, in order, under one draw of a condition that was encoded."""
        return {name: self._modality(name, condition, draw) for name in self.modalities}

    def has(self) -> BoolArray:
        """Which clips have which modality at all, ``[N, M]``."""
        every_N = np.ones(len(self.labels_N), np.bool_)
        return np.stack(
            [self._by_key[n, None, 0].present_N if n in self.lacking else every_N for n in self.modalities], axis=1
        )

    def _modality(self, name: str, condition: Condition, draw: int) -> EncodedModality:
        clean = self._by_key[name, None, 0]
        change = condition.by_modality.get(name)
        if change is None:
            return clean
        if isinstance(change, Corruption):
            return self._by_key[key_of(name, change, draw)]
        if change is OTHER_CLIP:
            order = np.arange(len(self.labels_N))
            # Clips without the modality stay without it, and no clip gets theirs.
            own = np.flatnonzero(clean.present_N) if name in self.lacking else order
            order[own] = own[conflicting(self.labels_N[own], draw=draw, seed=self.seed)]
            return EncodedModality(clean.features_ND[order], clean.logits_NC[order], clean.present_N[order])
        return EncodedModality(
            np.zeros_like(clean.features_ND), np.zeros_like(clean.logits_NC), np.zeros_like(clean.present_N)
        )


def key_of(name: str, corruption: Corruption, draw: int) -> Key:
    """Key of an encoding; a corruption without a random part has the same key for every draw."""
    return name, corruption, draw % corruption.draws


@torch.no_grad()
def encode_conditions(
    encoders: Mapping[str, nn.Module],
    modalities: Sequence[Modality],
    clips: ClipRows,
    conditions: Sequence[Condition],
    quality: QualityThresholds,
    *,
    seed: int,
    progress: Progress | None = None,
    damage: Damage = corrupt,
) -> Encoded:
    """Run the encoders (in evaluation mode) on the clips under all conditions and draws.

    The damage depends on a clip's index in ``clips``. ``progress`` is called with the number of encodings done and the
    total. A modality that carries no signal is marked as at serving (``prepared_no_signal``).
    Raises DataError if a condition needs another clip and there is none.
    """
    by_name = {m.name: m for m in modalities}
    wanted: dict[Key, None] = dict.fromkeys((name, None, 0) for name in by_name)
    for condition in conditions:
        for name, change in condition.by_modality.items():
            if isinstance(change, Corruption):
                wanted |= dict.fromkeys(key_of(name, change, draw) for draw in range(condition.draws))
    by_key: dict[Key, EncodedModality] = {}
    for key in wanted:
        by_key[key] = _encode(encoders[key[0]], by_name[key[0]], clips, key, quality=quality, seed=seed, damage=damage)
        if progress is not None:
            progress(len(by_key), len(wanted))
    return Encoded(clips.labels, tuple(by_name), seed, by_key, frozenset(clips.present))


def _encode(
    encoder: nn.Module,
    modality: Modality,
    clips: ClipRows,
    key: Key,
    *,
    quality: QualityThresholds,
    seed: int,
    damage: Damage,
) -> EncodedModality:
    name, corruption, draw = key
    features: list[Tensor] = []
    logits: list[Tensor] = []
    present: list[bool] = []
    # Positions among the clips that have the modality: another clip is one of these.
    having = np.flatnonzero(clips.has(name))
    for start in range(0, len(having), BATCH):
        places = np.arange(start, min(start + BATCH, len(having)))
        ids = having[places]
        rows = clips.rows(name, ids.tolist())
        if corruption is not None:
            others = None
            if corruption.family in WITH_ANOTHER:
                steps = another(len(having), modality, corruption, clip_ids=ids, draw=draw, seed=seed)
                others = clips.rows(name, having[(places + steps) % len(having)].tolist())
            rows = damage(rows, modality, corruption, clip_ids=ids, draw=draw, seed=seed, others=others)
        features_BD, logits_BC = encoder(torch.from_numpy(rows))
        features.append(features_BD)
        logits.append(logits_BC)
        present += [prepared_no_signal(modality, row, quality) is None for row in rows]
    if not features:
        # No clip has the modality: one row tells how wide the outputs are.
        blank = torch.from_numpy(np.zeros((1, *modality.shape), modality.dtype))
        features, logits = ([value[:0]] for value in encoder(blank))
    found = EncodedModality(
        torch.cat(features).float().numpy(), torch.cat(logits).float().numpy(), np.array(present, np.bool_)
    )
    return found if len(having) == len(clips) else _among(found, having, len(clips))


def _among(found: EncodedModality, having: npt.NDArray[np.int64], clips: int) -> EncodedModality:
    """Place the encodings of the clips that have a modality among all clips."""

    def placed(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        whole = np.zeros((clips, *values.shape[1:]), values.dtype)
        whole[having] = values
        return whole

    return EncodedModality(placed(found.features_ND), placed(found.logits_NC), placed(found.present_N))
