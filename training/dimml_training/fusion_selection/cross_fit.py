"""Cross-fitting: reliability of every row, learned without the row's clip and without its corruption family.

*Leave pairs of families out*: pictures and sounds in deployment are damaged in ways that no list has, so reliability is
scored on damage that neither it nor a close kin of it was fitted on (``family_pairs``). Families of different
modalities are left out together, so that damage to both is scored likewise. Shape suffixes: F fits, R rows, H heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from dimml.fusion import BoolArray, FloatArray, HeadReliability
from dimml_training.fusion_selection.condition_rows import ConditionRows, IntArray
from dimml_training.fusion_selection.family_pairs import left_out_together, turns_of
from dimml_training.fusion_selection.reliability_fit import (
    Geometry,
    ReliabilityFits,
    feature_geometry,
    stored_neighbours,
)

#: Share of the clean condition in the weight of all conditions: most clips that are served are clean.
CLEAN_SHARE = 0.2
#: How much more a row counts in regret-weighted fitting where a right modality can be overruled.
REGRET_PRICE = 2.0
WeightArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class CrossFit:
    """Result of cross-fitting.

    ``held_out_RH`` is the reliability by fits that saw neither the row's clip nor its family; ``final`` has one
    reliability per head, fitted on all rows. ``fits`` has those of every fit, ``fit_R`` says which one is each row's.
    """

    held_out_RH: FloatArray
    final: tuple[HeadReliability, ...]
    fits: tuple[tuple[HeadReliability, ...], ...]
    fit_R: IntArray


def row_weights(rows: ConditionRows) -> WeightArray:
    """Weights of rows, ``[R]``, mean 1: corrupted conditions equal, clean ``CLEAN_SHARE`` of all, no signal 0."""
    share = np.array([0.0 if c.group == "nosignal" else 1.0 for c in rows.conditions])
    clean = np.array([c.group == "clean" for c in rows.conditions])
    if share[~clean].any():
        share[~clean] *= (1 - CLEAN_SHARE) / share[~clean].sum()
        share[clean] = CLEAN_SHARE / clean.sum()
    counts = np.bincount(rows.condition_R, minlength=len(share))
    weights_R = share[rows.condition_R] / counts[rows.condition_R]
    return np.asarray(weights_R / weights_R.mean())


def regret_prices(rows: ConditionRows) -> WeightArray:
    """Factors of the rows' weights, ``[R]``: ``1 + REGRET_PRICE`` where an answer can be worse than a modality.

    That is where one modality is right and another that is there is wrong; 1 elsewhere.
    """
    own = slice(rows.modalities)
    right_RM, there_RM = rows.heads_right()[:, own], rows.present_RH[:, own]
    at_stake_R = right_RM.any(axis=1) & (there_RM & ~right_RM).any(axis=1)
    return np.asarray(1 + REGRET_PRICE * at_stake_R, np.float64)


def clip_folds(rows: ConditionRows, folds: int, seed: int) -> IntArray:
    """Fold of each row's clip, ``[R]``."""
    clips, place_R = np.unique(rows.clip_R, return_inverse=True)
    return np.asarray((np.random.default_rng(seed).permutation(len(clips)) % folds)[place_R], np.int64)


def fit_plan(rows: ConditionRows, folds: int, seed: int) -> tuple[BoolArray, IntArray]:
    """Which rows each fit sees, ``[F, R]``, and by which fit each row is judged, ``[R]``; the last fit sees all.

    One fit for each set of families left out together and each fold of clips.
    """
    fold_R, counted = clip_folds(rows, folds, seed), []
    for families in left_out_together(rows.conditions):
        hit = np.array([bool(c.families & families) for c in rows.conditions])
        counted += [(fold_R != fold) & ~hit[rows.condition_R] for fold in range(folds)]
    counted.append(np.ones(len(fold_R), np.bool_))
    turn_R = np.array(turns_of(rows.conditions), np.int64)[rows.condition_R]
    return np.stack(counted), np.asarray(turn_R * folds + fold_R, np.int64)


def head_geometry(known: ConditionRows) -> list[Geometry]:
    """Class means, whitening and neighbours of each head's features, from clean training rows.

    Heads without a row are left out.
    """
    classes = known.logits_RHC.shape[2]
    return [
        replace(
            feature_geometry(own[has_R], known.labels_R[has_R], classes),
            neighbours_ND=stored_neighbours(own[has_R], known.labels_R[has_R]),
        )
        for own, has_R in zip(known.features, known.present_RH.T, strict=True)
        if has_R.any()
    ]


def cross_fit(
    rows: ConditionRows,
    geometry: Sequence[Geometry],
    head_temperatures: Sequence[float],
    *,
    folds: int,
    seed: int,
    cross: bool = False,
    regret_weighted: bool = False,
) -> CrossFit:
    """Fit once per fold and set of families, side by side, and once on all rows.

    ``cross``: with the other heads in view; ``regret_weighted``: with ``regret_prices`` on the rows.
    """
    counted_FR, fit_R = fit_plan(rows, folds, seed)
    weights_FR = row_weights(rows) * counted_FR
    prices_R = regret_prices(rows) if regret_weighted else None
    fits = ReliabilityFits(rows, geometry, weights_FR, head_temperatures, seed=seed, cross=cross, prices_R=prices_R)
    fits.fit_own()
    fits.fit_pooled()
    held_out_RH = fits.reliability()[fit_R, np.arange(len(fit_R))]
    each = tuple(fits.parameters(fit) for fit in range(len(weights_FR)))
    return CrossFit(held_out_RH, each[-1], each[:-1], fit_R)
