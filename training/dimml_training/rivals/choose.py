"""Choosing a rival's setting as ours is chosen: on clips and families that its fit has not seen."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch

from dimml.fusion import FloatArray
from dimml.metrics.classification import nll_of_logits
from dimml_training.config.rivals import RivalKind, RivalSetting
from dimml_training.fusion_selection.candidate_scores import CORRUPTED_SHARE
from dimml_training.fusion_selection.condition_rows import ConditionRows, IntArray
from dimml_training.fusion_selection.cross_fit import WeightArray, fit_plan, row_weights
from dimml_training.fusion_selection.family_pairs import has_answer
from dimml_training.fusion_selection.temperature_scaling import calibration_temperature
from dimml_training.rivals.fitting import Rows, fit
from dimml_training.rivals.heads import HeadRows, Rival, head_rows

#: Rows answered at once.
ANSWERED_ROWS: Final = 1024


@dataclass(frozen=True)
class ChosenRival:
    """A rival fitted to all rows in its best setting, and a report of what it was chosen among (JSON-able).

    ``answer_temperature`` calibrates the answer, and ``fused_head`` says whether that head is one of its heads.
    """

    rival: Rival
    fused_head: bool
    answer_temperature: float
    report: dict[str, Any]

    @torch.no_grad()
    def log_probabilities(self, rows: HeadRows) -> FloatArray:
        """Logarithms of the answers' distributions, before ``answer_temperature``, ``[R, C]``."""
        return np.asarray(self.rival.log_probabilities(rows)[-1].numpy(), np.float32)


@dataclass(frozen=True)
class _Trial:
    setting: RivalSetting
    fused_head: bool
    accuracy: float
    clean: float
    nll: float
    temperature: float


def choose_rival(
    kind: RivalKind,
    settings: Sequence[RivalSetting],
    fused_head: Sequence[bool],
    rows: ConditionRows,
    *,
    folds: int,
    steps: int,
    seed: int,
) -> ChosenRival:
    """Try every setting with the fused head and without, as ``fused_head`` says, and fit the best to all rows.

    The best has the highest mean accuracy over the conditions in the means that leave an answer, on rows whose clip and
    families the fit has not seen; the first of equals. Rows that are only learned from, if any, are never scored. The
    answer is calibrated on the same held-out rows, mostly on the clean ones, as ours is.
    """
    began = time.monotonic()
    plan_FR, fit_R = fit_plan(rows, folds, seed)
    counted_FR = torch.from_numpy(plan_FR)
    weights_R = row_weights(rows)
    trials: list[_Trial] = []
    for with_fused in dict.fromkeys(fused_head):
        given = rows_to_fit(rows if with_fused else rows.without_fused_head())
        for setting in settings:
            rival = fit(kind, setting, given, counted_FR[:-1], steps=steps, seed=seed)
            held_out_RC = held_out(rival, given.rows, fit_R)
            trials.append(_scored(setting, with_fused, rows, held_out_RC, weights_R))
    best = max(trials, key=lambda trial: trial.accuracy)
    given = rows_to_fit(rows if best.fused_head else rows.without_fused_head())
    final = fit(kind, best.setting, given, counted_FR[-1:], steps=steps, seed=seed)
    report = {
        "rival": kind,
        "chosen": _line(best),
        "tried": [_line(trial) for trial in trials],
        "heads": list((rows if best.fused_head else rows.without_fused_head()).heads),
        "rows": len(fit_R),
        "fits": len(counted_FR),
        "seconds": round(time.monotonic() - began, 1),
    }
    return ChosenRival(final, best.fused_head, best.temperature, report)


def rows_to_fit(rows: ConditionRows) -> Rows:
    """Tensors of these rows, drawn by the weights of ``row_weights``."""
    found = head_rows(rows.logits_RHC, rows.present_RH, rows.features, rows.labels_R)
    return Rows(found, torch.from_numpy(row_weights(rows)))


@torch.no_grad()
def held_out(rival: Rival, rows: HeadRows, fit_R: IntArray) -> FloatArray:
    """Logarithms of the distributions by which each row is scored, ``[R, C]``: those of its own fit."""
    found = []
    for first in range(0, len(fit_R), ANSWERED_ROWS):
        place = torch.arange(first, min(first + ANSWERED_ROWS, len(fit_R)))
        answers_FBC = rival.log_probabilities(rows.take(place))
        found.append(answers_FBC[torch.from_numpy(fit_R[place.numpy()]), torch.arange(len(place))].numpy())
    return np.concatenate(found).astype(np.float32)


def _scored(
    setting: RivalSetting, with_fused: bool, rows: ConditionRows, logits_RC: FloatArray, weights_R: WeightArray
) -> _Trial:
    judged_R = ~rows.learned_only()
    right_R = logits_RC.argmax(axis=1) == rows.labels_R
    clean_R = np.array([c.group == "clean" for c in rows.conditions])[rows.condition_R]
    there = np.bincount(rows.condition_R, minlength=len(rows.conditions)) > 0
    counted = [index for index, c in enumerate(rows.conditions) if c.in_means and has_answer(c) and there[index]]
    means = [float(right_R[rows.condition_R == index].mean()) for index in counted]
    corrupted = weights_R * ~clean_R * judged_R
    clean = weights_R * clean_R
    if corrupted.sum() > 0:
        corrupted = corrupted * (CORRUPTED_SHARE / (1 - CORRUPTED_SHARE) * clean.sum() / corrupted.sum())
    return _Trial(
        setting,
        with_fused,
        accuracy=float(np.mean(means)) if means else float(right_R[clean_R].mean()),
        clean=float(right_R[clean_R].mean()),
        nll=nll_of_logits(logits_RC, rows.labels_R, weights_R * judged_R),
        temperature=round(calibration_temperature(logits_RC, rows.labels_R, clean + corrupted), 4),
    )


def _line(trial: _Trial) -> dict[str, Any]:
    return {
        "setting": trial.setting.model_dump(mode="json"),
        "fused_head": trial.fused_head,
        "mean_accuracy": round(trial.accuracy, 4),
        "clean_accuracy": round(trial.clean, 4),
        "nll": round(trial.nll, 4),
        "answer_temperature": trial.temperature,
    }
