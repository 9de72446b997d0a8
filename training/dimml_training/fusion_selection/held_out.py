"""Answers to validation clips by fusions that were fitted without them, for every pattern of modalities present."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from dimml.bundle import FUSED_HEAD
from dimml.fusion import BoolArray, FloatArray, FusionParameters, FusionSpec, heads_present
from dimml_training.evaluation.heads import HeadLogits, fused_answer
from dimml_training.fusion_selection.condition_rows import IntArray

#: Parts of the clips that chose the fusion; each is answered by a fusion fitted on the other parts.
FOLDS: Final = 5

Fusion = tuple[FusionSpec, FusionParameters]


@dataclass(frozen=True)
class HeldOutFusions:
    """The fusion that answers each clip: ``folds[k]`` in fold k, ``final`` in fold -1, whose clips fitted nothing."""

    fold_N: IntArray
    folds: Sequence[Fusion]
    final: Fusion


@dataclass(frozen=True)
class PatternAnswers:
    """Answers to K clips from the modalities of one pattern: probabilities ``[K, C]`` and true classes ``[K]``."""

    modalities: tuple[str, ...]
    probabilities_KC: FloatArray
    labels_K: IntArray


def held_out_folds(clips: int, fitted: IntArray, folds: int, seed: int) -> IntArray:
    """Fold of each of ``clips`` clips, ``[N]``; -1 for those that are not among the ``fitted`` ones."""
    fold_N = np.full(clips, -1, np.int64)
    fold_N[fitted] = np.random.default_rng(seed).permutation(len(fitted)) % folds
    return fold_N


def pattern_answers(
    votes: HeadLogits, modalities: Sequence[str], pattern: Sequence[str], fusions: HeldOutFusions
) -> PatternAnswers:
    """Answer the clips of ``votes`` that have all of a pattern's modalities, as if they had no other."""
    present_NM = votes.present_NH[:, : len(modalities)]
    wanted_M = np.array([name in pattern for name in modalities])
    usable_N = present_NM[:, wanted_M].all(axis=1)
    masked = replace(votes, present_NH=_without_others(votes, wanted_M))
    probabilities_NC = np.zeros((len(votes.labels_N), votes.logits_NHC.shape[2]), np.float32)
    for fold, (spec, parameters) in {-1: fusions.final, **dict(enumerate(fusions.folds))}.items():
        chosen_N = usable_N & (fusions.fold_N == fold)
        if chosen_N.any():
            fused = fused_answer(_of_clips(masked, chosen_N), spec, parameters)
            probabilities_NC[chosen_N] = fused.probabilities_BC
    return PatternAnswers(tuple(pattern), probabilities_NC[usable_N], votes.labels_N[usable_N])


def _without_others(votes: HeadLogits, wanted_M: BoolArray) -> BoolArray:
    """Presence of the heads, ``[N, H]``, where only the wanted modalities can be there."""
    present_NM = votes.present_NH[:, : len(wanted_M)] & wanted_M
    return heads_present(present_NM, votes.heads[-1] == FUSED_HEAD)


def _of_clips(votes: HeadLogits, which_N: BoolArray) -> HeadLogits:
    return replace(
        votes,
        logits_NHC=votes.logits_NHC[which_N],
        present_NH=votes.present_NH[which_N],
        labels_N=votes.labels_N[which_N],
        features=tuple(own[which_N] for own in votes.features),
        has_NH=None,
    )
