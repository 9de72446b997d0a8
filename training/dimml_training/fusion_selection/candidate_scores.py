"""Figures of a candidate fusion on validation clips, clean and under seen corruptions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from dimml.fusion import FloatArray, Fused, FusionSpec, certainty_of, fuse_weighted
from dimml.metrics.classification import ece, nll_of_logits, perfect_ece
from dimml_training.fusion_selection.condition_rows import Rows
from dimml_training.fusion_selection.cross_fit import row_weights
from dimml_training.fusion_selection.temperature_scaling import calibration_temperature

#: What a fall below the better modality costs, on top of the accuracy lost: its mean over conditions, and the worst.
REGRET_PRICE, WORST_PRICE = 0.5, 0.05
#: Share of corrupted clips in what calibrates the answer; clean ones alone, all of them right, would have no bound.
CORRUPTED_SHARE: Final = 0.1


@dataclass(frozen=True)
class Judged:
    """A candidate's figures: accuracy on clean clips; over the conditions in the means, accuracy, regret against the
    modality that is better in that condition, its mean where it is negative, and the worst one; and the negative
    log-likelihood over all conditions, clean at its weight."""

    spec: FusionSpec
    clean: float
    accuracy: float
    regret: float
    below: float
    worst_regret: float
    worst_condition: str
    nll: float

    @property
    def objective(self) -> float:
        """What is maximised."""
        return self.accuracy + REGRET_PRICE * self.below + WORST_PRICE * min(0.0, self.worst_regret)


class Judge:
    """Judges candidates on the same rows. ``held_out`` gives, with and without the fused head, reliability that was
    learned without the row's clip and family; without it, candidates of that certainty cannot be judged."""

    def __init__(self, rows: Rows, held_out: Mapping[bool, FloatArray]) -> None:
        own = rows.without_fused_head()
        self._rows = {False: own, True: rows}
        self._held_out = held_out
        self._weights_R = row_weights(rows)
        self._clean_R = np.array([c.group == "clean" for c in rows.conditions])[rows.condition_R]
        counted = [index for index, c in enumerate(rows.conditions) if c.in_means]
        # Without a corruption that fits these modalities there is the clean condition alone.
        self._counted = counted or [index for index, c in enumerate(rows.conditions) if c.group == "clean"]
        self.heads_by_condition = np.stack([self._by_condition(right_R) for right_R in rows.heads_right().T], axis=1)
        self._better = self.heads_by_condition[:, : own.modalities].max(axis=1)

    def judge(self, spec: FusionSpec) -> Judged:
        """A candidate's figures."""
        rows, fused = self._rows[spec.fused_head], self.answers(spec)
        by_condition = self._by_condition(fused.logits_BC.argmax(axis=1) == rows.labels_R)
        regrets = (by_condition - self._better)[self._counted]
        worst = int(regrets.argmin())
        return Judged(
            spec,
            clean=float((fused.logits_BC.argmax(axis=1) == rows.labels_R)[self._clean_R].mean()),
            accuracy=float(by_condition[self._counted].mean()),
            regret=float(regrets.mean()),
            below=float(np.minimum(regrets, 0).mean()),
            worst_regret=float(regrets[worst]),
            worst_condition=rows.conditions[self._counted[worst]].name,
            nll=nll_of_logits(fused.logits_BC, rows.labels_R, self._weights_R),
        )

    def calibrated(self, spec: FusionSpec) -> FusionSpec:
        """With the answer's temperature of the least negative log-likelihood, on clean clips above all."""
        logits_RC = self.answers(spec.model_copy(update={"answer_temperature": 1.0})).logits_BC
        clean, corrupted = self._weights_R * self._clean_R, self._weights_R * ~self._clean_R
        if corrupted.sum() > 0:
            corrupted = corrupted * (CORRUPTED_SHARE / (1 - CORRUPTED_SHARE) * clean.sum() / corrupted.sum())
        temperature = calibration_temperature(logits_RC, self._rows[True].labels_R, clean + corrupted)
        return spec.model_copy(update={"answer_temperature": round(temperature, 4)})

    def figures(self, judged: Judged) -> dict[str, Any]:
        """For the report, calibration on clean clips included."""
        fused, labels_R = self.answers(judged.spec), self._rows[True].labels_R
        confidence_N = fused.probabilities_BC.max(axis=1)[self._clean_R]
        right_N = (fused.logits_BC.argmax(axis=1) == labels_R)[self._clean_R]
        return {
            "spec": judged.spec.model_dump(mode="json"),
            "objective": round(judged.objective, 4),
            "clean_accuracy": round(judged.clean, 4),
            "mean_accuracy": round(judged.accuracy, 4),
            "mean_regret": round(judged.regret, 4),
            "worst_regret": round(judged.worst_regret, 4),
            "worst_condition": judged.worst_condition,
            "nll": round(judged.nll, 4),
            "clean_ece": round(ece(confidence_N, right_N), 4),
            "clean_ece_of_perfect_calibrator": round(perfect_ece(confidence_N), 4),
        }

    def heads_alone(self) -> dict[str, dict[str, float]]:
        """Accuracy of every head, clean and mean; a missing head is wrong."""
        clean = [index for index, c in enumerate(self._rows[True].conditions) if c.group == "clean"]
        return {
            head: {
                "clean_accuracy": round(float(self.heads_by_condition[clean, index].mean()), 4),
                "mean_accuracy": round(float(self.heads_by_condition[self._counted, index].mean()), 4),
            }
            for index, head in enumerate(self._rows[True].heads)
        }

    def better_modality(self) -> float:
        """Mean accuracy of the modality that is better in each condition: what regret is measured against."""
        return float(self._better[self._counted].mean())

    def answers(self, spec: FusionSpec) -> Fused:
        """The candidate's answers, ``[R]``."""
        rows = self._rows[spec.fused_head]
        if spec.certainty == "reliability":
            certainty_RH = self._held_out[spec.fused_head]
        else:
            temperatures_H = np.asarray(spec.head_temperatures or [1.0] * len(rows.heads), np.float32)
            certainty_RH = certainty_of(rows.logits_RHC / temperatures_H[:, None], spec.certainty)
        return fuse_weighted(rows.logits_RHC, rows.present_RH, certainty_RH, spec)

    def _by_condition(self, right_R: Any) -> Any:
        condition_R = self._rows[True].condition_R
        counts = np.bincount(condition_R)
        return np.bincount(condition_R, weights=right_R) / counts
