"""Fit the estimate of how often answers are right (``dimml.monitoring.accuracy_estimate``) to damaged validation clips.

The rows are those that a fusion is chosen by, without conditions that leave no answer. Absence is simulated on them, so
that every pattern of modalities present has the damage to its own modalities; certainty that is learned comes from the
fit that saw neither the clip nor the family. Half of the weight is the clean condition's, and the mean estimate on it
is drawn to its accuracy: the estimate must not be off where most recordings are, whatever it gains under damage.

Whether a pattern is better estimated so than by its answers' own probability is decided on clips and families that took
no part in the fit. Shape suffixes: R rows, H heads, C classes, K inputs of the regression.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dimml.bundle import FUSED_HEAD
from dimml.fusion import BoolArray, FusionParameters, FusionSpec, HeadReliability, fuse, heads_present, softmax
from dimml.modality import patterns_of
from dimml.monitoring.accuracy import pattern_of
from dimml.monitoring.accuracy_estimate import (
    LEAST_PROBABILITY,
    AccuracyEstimate,
    CertaintyWeight,
    PatternEstimate,
)
from dimml_training.fusion_selection.condition_rows import ConditionRows, IntArray
from dimml_training.fusion_selection.cross_fit import clip_folds
from dimml_training.fusion_selection.family_pairs import has_answer, left_out_together, turns_of

#: Share of the clean condition in the weight of all.
CLEAN_SHARE: Final = 0.5
#: Price of the squared difference of mean estimate and accuracy on clean clips, in nats.
ANCHOR: Final = 50.0
#: Ridge on the weights of standardised inputs.
RIDGE: Final = 1e-3
#: With fewer clips of a pattern nothing is learned.
FEWEST_CLIPS: Final = 30
#: With more modalities there are no estimates: the number of patterns doubles with each.
MOST_MODALITIES: Final = 4
_STEPS: Final = 100
#: Largest logit; the estimate stays within (0, 1).
_LARGEST: Final = 30.0

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class HeldOutFits:
    """Learned certainties by fits that left something out: ``of_row_R`` is each row's, without its clip and family."""

    fits: Sequence[tuple[HeadReliability, ...]]
    of_row_R: IntArray


@dataclass(frozen=True)
class PatternRows:
    """Answers from one pattern's modalities: inputs of the regression, whether they are right, and their own sureness.

    ``condition_R`` are indices of conditions, ``fold_R`` the folds of the clips.
    """

    inputs_RK: Array
    right_R: BoolArray
    probability_R: Array
    condition_R: IntArray
    fold_R: IntArray
    clips: int

    def take(self, which_R: BoolArray) -> PatternRows:
        """Select rows."""
        return PatternRows(
            self.inputs_RK[which_R],
            self.right_R[which_R],
            self.probability_R[which_R],
            self.condition_R[which_R],
            self.fold_R[which_R],
            self.clips,
        )


@dataclass(frozen=True)
class Logistic:
    """Bias and weights of inputs as they are, not standardised."""

    bias: float
    weights_K: Array

    def chance(self, inputs_RK: Array) -> Array:
        """Estimated chance of being right, ``[R]``."""
        return _sigmoid(inputs_RK @ self.weights_K + self.bias)


def fit_accuracy(
    rows: ConditionRows, spec: FusionSpec, held_out: HeldOutFits | None, *, folds: int, seed: int
) -> tuple[AccuracyEstimate | None, dict[str, Any]]:
    """Fit the estimate of a fusion's answers; return it with a report by pattern, in points.

    ``rows`` are of validation clips under the seen conditions, clean first, without composed ones; ``held_out`` is
    needed for a learned certainty. None where no pattern is better estimated than by its answers' probability.
    """
    own = rows if spec.fused_head else rows.without_fused_head()
    modalities = own.heads[: own.modalities]
    estimates, report = [], {}
    if len(modalities) > MOST_MODALITIES:
        return None, {}
    fold_R = clip_folds(own, folds, seed)
    for pattern in patterns_of(modalities):
        answers = pattern_rows(own, spec, held_out, pattern, fold_R)
        if answers is None:
            continue
        clean, errors = judged(answers, own)
        report[pattern_of(pattern)] = errors
        if errors["used"]:
            estimates.append(_estimate(pattern, own, fit_logistic(answers), clean, answers.clips))
    return (AccuracyEstimate(patterns=tuple(estimates)) if estimates else None), report


def pattern_rows(
    rows: ConditionRows, spec: FusionSpec, held_out: HeldOutFits | None, pattern: Sequence[str], fold_R: IntArray
) -> PatternRows | None:
    """Answer the rows that have all of a pattern's modalities from these alone; None of too few clips, or undamaged.

    Damage to other modalities than the pattern's would repeat what is there. Where no answer is left, nothing
    shows that answers are wrong: such rows would only lower the estimate of right answers that look the same.
    """
    own = rows.modalities
    wanted_M = np.array([name in pattern for name in rows.heads[:own]])
    within = np.array([set(c.by_modality) <= set(pattern) and has_answer(c) for c in rows.conditions])
    which_R = rows.present_RH[:, :own][:, wanted_M].all(axis=1) & within[rows.condition_R]
    kept = rows.take(which_R)
    clean_R = kept.condition_R == 0
    if len(np.unique(kept.clip_R[clean_R])) < FEWEST_CLIPS or clean_R.all():
        return None
    present_RH = heads_present(kept.present_RH[:, :own] & wanted_M, rows.heads[-1] == FUSED_HEAD)
    logits_RHC = np.where(present_RH[..., None], kept.logits_RHC, np.float32(0))
    probabilities_RC = np.zeros((len(kept.labels_R), logits_RHC.shape[2]), np.float32)
    certainty_RH = np.zeros(present_RH.shape, np.float32)
    fit_R = np.zeros(len(kept.labels_R), np.int64) if held_out is None else held_out.of_row_R[which_R]
    for fit in np.unique(fit_R).tolist():
        of_R = fit_R == fit
        learned = FusionParameters(None if held_out is None else held_out.fits[fit])
        features = [of_head[of_R] for of_head in kept.features]
        fused = fuse(logits_RHC[of_R], present_RH[of_R], spec, learned, features)
        probabilities_RC[of_R], certainty_RH[of_R] = fused.probabilities_BC, fused.certainty_BH
    answer_R = probabilities_RC.argmax(axis=1)
    probability_R = probabilities_RC.max(axis=1).astype(np.float64)
    voting = np.flatnonzero(present_RH[0]).tolist()
    inputs = [_log_odds(probability_R)]
    for head in voting:
        sure_R = certainty_RH[:, head].astype(np.float64)
        if head >= own:
            inputs.append(sure_R)
        else:
            agrees_R = logits_RHC[:, head].argmax(axis=1) == answer_R
            inputs += [np.where(agrees_R, sure_R, 0.0), np.where(agrees_R, 0.0, sure_R)]
    if wanted_M.sum() > 1:
        p_RHC = softmax(logits_RHC[:, :own])
        same = [(p_RHC[:, one] * p_RHC[:, other]).sum(axis=1) for one, other in combinations(voting, 2) if other < own]
        inputs.append(np.clip(1.0 - np.mean(same, axis=0, dtype=np.float64), 0.0, 1.0))
    return PatternRows(
        np.stack(inputs, axis=1),
        answer_R == kept.labels_R,
        probability_R,
        kept.condition_R,
        fold_R[which_R],
        len(np.unique(kept.clip_R)),
    )


def judged(answers: PatternRows, rows: ConditionRows) -> tuple[float, dict[str, Any]]:
    """Hold fits without a row's clip and family against the answers' own probability.

    Return the mean estimate on clean rows, and absolute errors in points: on clean rows, and the mean over conditions.
    The estimate is used where the mean of the two is smaller.
    """
    turn_R = np.array(turns_of(rows.conditions))[answers.condition_R]
    held_out_R = np.full(len(answers.right_R), np.nan)
    for turn, families in enumerate(left_out_together(rows.conditions)):
        hit_R = np.array([bool(c.families & families) for c in rows.conditions])[answers.condition_R]
        for fold in np.unique(answers.fold_R[turn_R == turn]).tolist():
            of_R = (turn_R == turn) & (answers.fold_R == fold)
            # No start from a fit to all rows: it would have seen what is judged.
            found = fit_logistic(answers.take(~hit_R & (answers.fold_R != fold)))
            held_out_R[of_R] = found.chance(answers.inputs_RK[of_R])
    errors = {
        "estimate": _errors(answers, held_out_R),
        "probability": _errors(answers, answers.probability_R),
    }
    mean = {name: (clean + families) / 2 for name, (clean, families) in errors.items()}
    report = {
        "clips": answers.clips,
        "conditions": len(np.unique(answers.condition_R)) - 1,
        **{
            f"{name}_error": {"clean": round(clean, 2), "families_left_out": round(families, 2)}
            for name, (clean, families) in errors.items()
        },
        "used": mean["estimate"] < mean["probability"],
    }
    return float(held_out_R[answers.condition_R == 0].mean()), report


def fit_logistic(answers: PatternRows) -> Logistic:
    """Fit chance of being right to inputs by Newton's method: likelihood, ridge, and the price of a miss on clean rows.

    The loss is not quite convex, since the price is not; each step is halved until it gains.
    """
    weights_R = _weights(answers.condition_R)
    right_R, clean_R = answers.right_R.astype(np.float64), answers.condition_R == 0
    mean_K = weights_R @ answers.inputs_RK
    spread_K = np.maximum(np.sqrt(weights_R @ np.square(answers.inputs_RK - mean_K)), 1e-3)
    standard_RK = np.column_stack([np.ones(len(right_R)), (answers.inputs_RK - mean_K) / spread_K])
    ridge_K = np.full(standard_RK.shape[1], RIDGE)
    ridge_K[0] = 1e-6
    clean_inputs, clean_accuracy = standard_RK[clean_R], right_R[clean_R].mean()

    def loss(b_K: Array) -> tuple[float, Array, float]:
        chance_R = np.clip(_sigmoid(standard_RK @ b_K), 1e-12, 1 - 1e-12)
        likelihood = weights_R @ (right_R * np.log(chance_R) + (1 - right_R) * np.log(1 - chance_R))
        miss = float(chance_R[clean_R].mean() - clean_accuracy)
        return float(-likelihood + 0.5 * ridge_K @ np.square(b_K) + ANCHOR * miss**2), chance_R, miss

    b_K = np.zeros(standard_RK.shape[1])
    now, chance_R, miss = loss(b_K)
    for _ in range(_STEPS):
        slope_R = chance_R * (1 - chance_R)
        pull_K = slope_R[clean_R] @ clean_inputs / clean_R.sum()
        gradient_K = standard_RK.T @ (weights_R * (chance_R - right_R)) + ridge_K * b_K + 2 * ANCHOR * miss * pull_K
        curvature_KK = (standard_RK * (weights_R * slope_R)[:, None]).T @ standard_RK + np.diag(ridge_K)
        curvature_KK += 2 * ANCHOR * np.outer(pull_K, pull_K)
        # What the price adds where the mean estimate misses. Without it steps near the least become many and short;
        # with it the curvature may fail to be positive, far from the least.
        bend_R = (slope_R * (1 - 2 * chance_R))[clean_R] / clean_R.sum()
        bent_KK = curvature_KK + 2 * ANCHOR * miss * (clean_inputs * bend_R[:, None]).T @ clean_inputs
        positive = float(np.linalg.eigvalsh(bent_KK)[0]) > 0
        step_K = np.linalg.solve(bent_KK if positive else curvature_KK, gradient_K)
        share = 1.0
        while (after := loss(b_K - share * step_K))[0] > now and share > 1e-6:
            share /= 2
        gained = now - after[0]
        if gained <= 0:
            break
        b_K, (now, chance_R, miss) = b_K - share * step_K, after
        if gained < 1e-12:
            break
    weights_K = b_K[1:] / spread_K
    return Logistic(float(b_K[0] - weights_K @ mean_K), weights_K)


def _estimate(
    pattern: tuple[str, ...], rows: ConditionRows, found: Logistic, clean: float, clips: int
) -> PatternEstimate:
    """Write a fit as the manifest has it; the order of its weights is that of ``pattern_rows``."""
    log_odds, *rest = found.weights_K.tolist()
    certainty = {}
    for name in pattern:
        agrees, differs, *rest = rest
        certainty[name] = CertaintyWeight(agrees=agrees, differs=differs)
    if rows.heads[-1] == FUSED_HEAD and len(pattern) == rows.modalities:
        fused, *rest = rest
        certainty[FUSED_HEAD] = CertaintyWeight(agrees=fused, differs=fused)
    return PatternEstimate(
        modalities=pattern,
        clips=clips,
        clean=clean,
        bias=found.bias,
        log_odds=log_odds,
        certainty=certainty,
        disagreement=rest[0] if rest else 0.0,
    )


def _errors(answers: PatternRows, estimate_R: Array) -> tuple[float, float]:
    """Absolute error of a mean estimate in points: on clean rows, and the mean over the other conditions."""
    by_condition = {
        condition: 100.0 * abs(float(estimate_R[of_R].mean() - answers.right_R[of_R].mean()))
        for condition in np.unique(answers.condition_R).tolist()
        if (of_R := answers.condition_R == condition).any()
    }
    clean = by_condition.pop(0)
    return clean, float(np.mean(list(by_condition.values())))


def _weights(condition_R: IntArray) -> Array:
    """Weights of rows, sum 1: ``CLEAN_SHARE`` for clean ones, the rest in equal parts for the other conditions."""
    counts = np.bincount(condition_R)
    others = int(np.count_nonzero(counts[1:]))
    of_condition = np.where(counts > 0, (1 - CLEAN_SHARE) / max(others, 1), 0.0)
    of_condition[0] = CLEAN_SHARE if others else 1.0
    return np.asarray(of_condition[condition_R] / counts[condition_R])


def _log_odds(probability_R: Array) -> Array:
    p_R = np.clip(probability_R, LEAST_PROBABILITY, 1.0 - LEAST_PROBABILITY)
    return np.asarray(np.log(p_R / (1.0 - p_R)))


def _sigmoid(logit_R: Array) -> Array:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(logit_R, -_LARGEST, _LARGEST))))
