"""Scores of a candidate fusion on validation clips, clean and under seen corruptions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from dimml.fusion import Certainty, FloatArray, Fused, FusionSpec, certainty_of, fuse_weighted
from dimml.metrics.classification import ece, nll_of_logits, perfect_ece
from dimml_training.fusion_selection.condition_rows import ConditionRows
from dimml_training.fusion_selection.cross_fit import row_weights
from dimml_training.fusion_selection.family_pairs import has_answer
from dimml_training.fusion_selection.temperature_scaling import calibration_temperature

#: Penalties in the objective, beyond the accuracy lost: for the mean negative regret over conditions, and for the mean
#: regret of the worst fifth of them (CVaR20).
REGRET_PRICE, TAIL_PRICE = 0.5, 0.05
#: The worst share of conditions whose mean regret is the tail.
TAIL: Final = 0.2
#: Errors at most this share above the least one are ties, of which the simplest is taken.
TIE: Final = 0.01
#: Weight of corrupted clips when the answer is calibrated; on clean clips alone, which may all be answered right, the
#: best temperature could be arbitrarily low.
CORRUPTED_SHARE: Final = 0.1

#: What is learned: a certainty, with or without the fused head.
Learned = tuple[Certainty, bool]


@dataclass(frozen=True)
class CandidateScores:
    """Scores of one candidate.

    ``clean`` is the accuracy on clean clips. Over the conditions in the means that leave an answer: ``accuracy``, mean
    ``regret`` (accuracy minus that of the modality that is better under the condition, on the clips that have it),
    ``below`` (mean of the regrets with positive ones taken as 0), ``tail_regret`` (mean of the worst fifth, CVaR20) and
    ``regrets``, each of them by condition. ``nll`` is the negative log-likelihood over all
    conditions, weighted by ``row_weights``.
    """

    spec: FusionSpec
    clean: float
    accuracy: float
    regret: float
    below: float
    tail_regret: float
    regrets: Mapping[str, float]
    nll: float

    @property
    def objective(self) -> float:
        """Objective that the search maximises."""
        return self.accuracy + REGRET_PRICE * self.below + TAIL_PRICE * min(0.0, self.tail_regret)

    @property
    def error(self) -> float:
        """What the objective lacks to 1, by which ties are measured."""
        return 1.0 - self.objective

    @property
    def worst_condition(self) -> str:
        """The condition with the lowest regret."""
        return min(self.regrets, key=lambda condition: self.regrets[condition])


def is_tie(error: float, least: float) -> bool:
    """Whether an error is as good as the least one: at most ``TIE``, as a share, above it."""
    return error <= least * (1 + TIE) + 1e-9


def tail_mean(regrets_K: Any) -> float:
    """Mean of the worst fifth of the regrets, at least one (CVaR20 of Rockafellar & Uryasev 2000, J. Risk 2(3))."""
    worst = max(1, round(TAIL * len(regrets_K)))
    return float(np.sort(regrets_K)[:worst].mean())


class CandidateScorer:
    """Scores candidates on the same rows.

    ``held_out`` is the reliability of every row, ``[R, H]``, learned without the row's clip and family; by certainty
    and whether the fused head takes part. Without it, candidates with learned reliability cannot be scored.
    """

    def __init__(self, rows: ConditionRows, held_out: Mapping[Learned, FloatArray]) -> None:
        own = rows.without_fused_head()
        self._rows = {False: own, True: rows}
        self._held_out = held_out
        self._weights_R = row_weights(rows)
        self._clean_R = np.array([c.group == "clean" for c in rows.conditions])[rows.condition_R]
        # Of clips that lack a modality, a condition may leave none to answer.
        there = np.bincount(rows.condition_R, minlength=len(rows.conditions)) > 0
        counted = [index for index, c in enumerate(rows.conditions) if c.in_means and has_answer(c) and there[index]]
        # If no corruption applies to these modalities, only the clean condition is left.
        self._counted = counted or [index for index, c in enumerate(rows.conditions) if c.group == "clean"]
        self.heads_by_condition = np.stack(
            [
                self._by_condition(right_R, has_R)
                for right_R, has_R in zip(rows.heads_right().T, rows.has_RH.T, strict=True)
            ],
            axis=1,
        )
        self._modalities = own.modalities

    def score(self, spec: FusionSpec) -> CandidateScores:
        """Score one candidate."""
        rows, fused = self._rows[spec.fused_head], self.answers(spec)
        right_R = fused.logits_BC.argmax(axis=1) == rows.labels_R
        by_condition = self._by_condition(right_R)
        regrets = self._regrets(right_R)[self._counted]
        return CandidateScores(
            spec,
            clean=float(right_R[self._clean_R].mean()),
            accuracy=float(by_condition[self._counted].mean()),
            regret=float(regrets.mean()),
            below=float(np.minimum(regrets, 0).mean()),
            tail_regret=tail_mean(regrets),
            regrets={
                rows.conditions[index].name: float(regret) for index, regret in zip(self._counted, regrets, strict=True)
            },
            nll=nll_of_logits(fused.logits_BC, rows.labels_R, self._weights_R),
        )

    def calibrated(self, spec: FusionSpec) -> FusionSpec:
        """Set the answer's temperature to the one with the least negative log-likelihood, mostly on clean clips."""
        logits_RC = self.answers(spec.model_copy(update={"answer_temperature": 1.0})).logits_BC
        clean, corrupted = self._weights_R * self._clean_R, self._weights_R * ~self._clean_R
        if corrupted.sum() > 0:
            corrupted = corrupted * (CORRUPTED_SHARE / (1 - CORRUPTED_SHARE) * clean.sum() / corrupted.sum())
        temperature = calibration_temperature(logits_RC, self._rows[True].labels_R, clean + corrupted)
        return spec.model_copy(update={"answer_temperature": round(temperature, 4)})

    def metrics(self, scores: CandidateScores) -> dict[str, Any]:
        """Metrics of a candidate for the report, including calibration on clean clips."""
        fused, labels_R = self.answers(scores.spec), self._rows[True].labels_R
        confidence_N = fused.probabilities_BC.max(axis=1)[self._clean_R]
        right_N = (fused.logits_BC.argmax(axis=1) == labels_R)[self._clean_R]
        return {
            "spec": scores.spec.model_dump(mode="json"),
            "objective": round(scores.objective, 4),
            "clean_accuracy": round(scores.clean, 4),
            "mean_accuracy": round(scores.accuracy, 4),
            "mean_regret": round(scores.regret, 4),
            "cvar20_regret": round(scores.tail_regret, 4),
            "worst_regret": round(scores.regrets[scores.worst_condition], 4),
            "worst_condition": scores.worst_condition,
            "nll": round(scores.nll, 4),
            "clean_ece": round(ece(confidence_N, right_N), 4),
            "clean_ece_of_perfect_calibrator": round(perfect_ece(confidence_N), 4),
        }

    def heads_alone(self) -> dict[str, dict[str, float | None]]:
        """Accuracy of every head on its clips, clean and mean over conditions; a silenced head counts as wrong."""
        clean = [index for index, c in enumerate(self._rows[True].conditions) if c.group == "clean"]
        return {
            head: {
                "clean_accuracy": _mean(self.heads_by_condition[clean, index]),
                "mean_accuracy": _mean(self.heads_by_condition[self._counted, index]),
            }
            for index, head in enumerate(self._rows[True].heads)
        }

    def better_modality(self) -> float:
        """Mean accuracy of the better modality of each condition, the reference of regret."""
        better = np.fmax.reduce(self.heads_by_condition[:, : self._modalities], axis=1)
        return float(better[self._counted].mean())

    def answers(self, spec: FusionSpec) -> Fused:
        """Fuse the heads of all R rows as the candidate says."""
        rows = self._rows[spec.fused_head]
        if spec.learned:
            certainty_RH = self._held_out[spec.certainty, spec.fused_head]
        else:
            temperatures_H = np.asarray(spec.head_temperatures or [1.0] * len(rows.heads), np.float32)
            certainty_RH = certainty_of(rows.logits_RHC / temperatures_H[:, None], spec.static_certainty)
        return fuse_weighted(rows.logits_RHC, rows.present_RH, certainty_RH, spec)

    def _regrets(self, right_R: Any) -> Any:
        """By condition: accuracy minus that of the modality, on its clips, that is furthest ahead or least behind."""
        against = [
            self._by_condition(right_R, self._rows[True].has_RH[:, index]) - self.heads_by_condition[:, index]
            for index in range(self._modalities)
        ]
        return np.fmin.reduce(np.stack(against), axis=0)

    def _by_condition(self, right_R: Any, which_R: Any = slice(None)) -> Any:
        """Share of right answers by condition; NaN where none of these rows is of it."""
        rows = self._rows[True]
        condition_R = rows.condition_R[which_R]
        counts = np.bincount(condition_R, minlength=len(rows.conditions))
        of_each = np.bincount(condition_R, weights=right_R[which_R], minlength=len(rows.conditions))
        return np.where(counts > 0, of_each / np.maximum(counts, 1), np.nan)


def _mean(accuracy_K: Any) -> float | None:
    """Mean over the conditions in which the head has clips, None if there are none."""
    known = accuracy_K[~np.isnan(accuracy_K)]
    return round(float(known.mean()), 4) if len(known) else None
