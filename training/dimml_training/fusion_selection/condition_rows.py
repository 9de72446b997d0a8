"""Outputs of all heads for a set of clips under many conditions, one row per clip, draw and condition."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
from torch import nn

from dimml.bundle import FUSED_HEAD
from dimml.fusion import BoolArray, FloatArray, heads_present
from dimml_training.config.corruption_suite import Condition, Group
from dimml_training.corruptions.encoding import EncodedModality

IntArray = npt.NDArray[np.int64]

#: Conditions that are learned from and never scored. They come last, kin before composed ones.
LEARNED_ONLY: Final[frozenset[Group]] = frozenset({"kin", "composed"})


class EncodedClips(Protocol):
    """Encodings of clips under some conditions: ``corruptions.encoding.Encoded``, or the same read from a file."""

    @property
    def labels_N(self) -> IntArray:  # noqa: N802  # as the dataclasses that have it name it
        """Class indices."""

    def get(self, condition: Condition, draw: int) -> dict[str, EncodedModality]:
        """Encodings of every modality, in order, under one draw of a condition."""


@dataclass(frozen=True)
class ConditionRows:
    """R rows. ``clip_R`` is the index of the row's clip in the split, ``condition_R`` that of its condition.

    ``present_RH`` says which heads vote under the condition, ``has_RH`` which heads the clip has anything for at all:
    the others are not scored on it, while a head that a condition silences is wrong there.
    """

    heads: tuple[str, ...]
    conditions: tuple[Condition, ...]
    logits_RHC: FloatArray
    present_RH: BoolArray
    #: Input features of each head, ``[R, D]``.
    features: tuple[FloatArray, ...]
    labels_R: IntArray
    clip_R: IntArray
    condition_R: IntArray
    has_RH: BoolArray

    @property
    def modalities(self) -> int:
        """Number of heads that are a modality's own; they come first."""
        return len(self.heads) - (self.heads[-1] == FUSED_HEAD)

    def heads_right(self) -> BoolArray:
        """Which heads vote for the true class, ``[R, H]``."""
        return np.asarray(self.present_RH & (self.logits_RHC.argmax(axis=2) == self.labels_R[:, None]))

    def take(self, which: IntArray | BoolArray) -> ConditionRows:
        """Select rows by index or mask."""
        return ConditionRows(
            self.heads,
            self.conditions,
            self.logits_RHC[which],
            self.present_RH[which],
            tuple(own[which] for own in self.features),
            self.labels_R[which],
            self.clip_R[which],
            self.condition_R[which],
            self.has_RH[which],
        )

    def of_groups(self, groups: Collection[Group]) -> BoolArray:
        """Which rows are of conditions of these groups, ``[R]``."""
        return np.array([c.group in groups for c in self.conditions])[self.condition_R]

    def learned_only(self) -> BoolArray:
        """Which rows are learned from, but never scored, ``[R]``."""
        return self.of_groups(LEARNED_ONLY)

    def judged(self) -> ConditionRows:
        """The rows that are scored, and their conditions."""
        return self._without(LEARNED_ONLY)

    def without_composed(self) -> ConditionRows:
        """The same rows without those of composed conditions, and without these conditions."""
        return self._without({"composed"})

    def _without(self, groups: Collection[Group]) -> ConditionRows:
        # They come last, so that the indices of the others stay.
        kept = tuple(c for c in self.conditions if c.group not in groups)
        return replace(self.take(~self.of_groups(groups)), conditions=kept)

    def without_fused_head(self) -> ConditionRows:
        """The same rows with the modalities' own heads only."""
        own = self.modalities
        return ConditionRows(
            self.heads[:own],
            self.conditions,
            self.logits_RHC[:, :own],
            self.present_RH[:, :own],
            self.features[:own],
            self.labels_R,
            self.clip_R,
            self.condition_R,
            self.has_RH[:, :own],
        )


def rows_of(
    encoded: EncodedClips,
    fused_head: nn.Linear | None,
    conditions: Sequence[Condition],
    *,
    draws: int,
    clips: int | None = None,
) -> ConditionRows:
    """Collect all clips, or ``clips`` of them spread evenly, under every condition, at most ``draws`` draws of it.

    The first condition is clean: what a clip has there is what it has at all. Where a condition takes away all that a
    clip has, there is nothing to answer from, and no row.
    """
    total = len(encoded.labels_N)
    wanted = total if clips is None else min(clips, total)
    kept = np.unique(np.linspace(0, total - 1, wanted).round().astype(np.int64))
    of_draws = [
        (index, list(encoded.get(condition, draw).items()))
        for index, condition in enumerate(conditions)
        for draw in range(min(draws, condition.draws))
    ]
    names = [name for name, _ in of_draws[0][1]]
    features = [np.concatenate([own[m][1].features_ND[kept] for _, own in of_draws]) for m in range(len(names))]
    logits = [np.concatenate([own[m][1].logits_NC[kept] for _, own in of_draws]) for m in range(len(names))]
    present_RM = np.stack(
        [np.concatenate([own[m][1].present_N[kept] for _, own in of_draws]) for m in range(len(names))], axis=1
    )
    if fused_head is not None:
        together_RD = np.concatenate(features, axis=1)
        weight_CD, bias_C = (value.detach().numpy() for value in (fused_head.weight, fused_head.bias))
        names.append(FUSED_HEAD)
        features.append(together_RD)
        logits.append((together_RD @ weight_CD.T + bias_C).astype(np.float32))
    clean = list(encoded.get(conditions[0], 0).values())
    has_RM = np.tile(np.stack([own.present_N[kept] for own in clean], axis=1), (len(of_draws), 1))
    found = ConditionRows(
        heads=tuple(names),
        conditions=tuple(conditions),
        logits_RHC=np.stack(logits, axis=1),
        present_RH=heads_present(present_RM, fused_head is not None),
        features=tuple(features),
        labels_R=np.tile(encoded.labels_N[kept], len(of_draws)),
        clip_R=np.tile(kept, len(of_draws)),
        condition_R=np.repeat([index for index, _ in of_draws], len(kept)),
        has_RH=heads_present(has_RM, fused_head is not None),
    )
    nothing_R = np.asarray(~present_RM.any(axis=1) & ~has_RM.all(axis=1))
    return found.take(~nothing_R) if nothing_R.any() else found
