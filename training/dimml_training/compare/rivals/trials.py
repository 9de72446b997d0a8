"""Trials: trainings of one method that differ in a setting, on the first repeat, of which validation clips choose one.

A trial is a method of its own, named ``<method>@<number>``, with a cell that tables leave out. When every trial has its
cell, the method is trained with the best setting on all repeats; on the first, that is the run of the trial. So are the
methods that follow it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dimml_training.compare.cells import Cell
from dimml_training.compare.methods import ChosenFusion, Method
from dimml_training.compare.packed_cells import find_cell
from dimml_training.compare.plan import Repeat, TrainingJob, training_config, training_jobs, training_key
from dimml_training.compare.scoring import answer_key
from dimml_training.compare.summary import TRIAL
from dimml_training.config import TrainConfig
from dimml_training.fusion_selection.candidate_scores import is_tie
from dimml_training.fusion_selection.family_pairs import name_has_answer


def trial_methods(method: Method) -> list[Method]:
    """The trials that settle a method, its own or those of the one it follows, if any; scored on validation clips."""
    leader = _leader(method)
    return [
        replace(_with(leader, fields), name=f"{leader.name}{TRIAL}{number}", scored_on_validation=True)
        for number, fields in enumerate(leader.trials)
    ]


def validation_score(cell: Cell) -> float:
    """Mean accuracy on validation clips over the seen conditions in the means that leave an answer; else on clean ones.

    Of a fusion that was chosen, the mean accuracy that its choice found, on clips and families that its learned part
    had not seen: these very clips chose and fitted it. Not its objective, whose regrets are measured against the heads
    of the same training, so that weaker heads would count for it.

    Raises ValueError for a cell without validation clips.
    """
    chosen = (cell.fusion or {}).get("chosen")
    if chosen is not None:
        return float(chosen["mean_accuracy"])
    if cell.validation is None:
        raise ValueError(f"{cell.method}, repeat {cell.repeat}, was not scored on validation clips")
    counted = [
        name for name, record in cell.conditions.items() if record.seen and record.in_means and name_has_answer(name)
    ]
    return float(np.mean([cell.validation[name] for name in counted or list(cell.conditions)[:1]]))


def settled_by(method: Method, cells: Sequence[Cell]) -> Method:
    """The method with the setting that the cells of all its trials, in their order, choose.

    Trials of ours are compared as the candidates of a fusion are: the first, the simplest, whose error ties with the
    least. A rival gets its best, the first of equals.
    """
    leader = _leader(method)
    errors = [1.0 - validation_score(cell) for cell in cells]
    least = min(errors)
    ours = isinstance(leader.answer, ChosenFusion)
    best = next(i for i, error in enumerate(errors) if error == least or (ours and is_tie(error, least)))
    return _with(method, leader.trials[best])


def settled(method: Method, first: Repeat, out: Path) -> Method | None:
    """The method as its trials on the first repeat settle it; None while any of them has no valid cell."""
    cells = []
    for trial in trial_methods(method):
        cell = find_cell(out, first.config.name, trial.name, first.index)
        if cell is None or cell.answer != wanted_answer(trial, first.config, first.data.digest):
            return None
        cells.append(cell)
    return settled_by(method, cells) if cells else method


def wanted_answer(method: Method, config: TrainConfig, data_digest: str, started_from: str | None = None) -> str:
    """Key that the cell of a method must have, with the config of the repeat and the digest of its data.

    ``started_from`` is as for ``training_key``.
    """
    key = training_key(training_config(config, method), data_digest, started_from=started_from)
    return answer_key(key, config, method)


def jobs_with_trials(methods: Sequence[Method], repeats: Sequence[Repeat], out: Path) -> list[TrainingJob]:
    """List the trainings of methods, repeat by repeat: trials, and what they have settled so far."""
    known = [found for method in methods if (found := settled(method, repeats[0], out)) is not None]
    return training_jobs([*all_trials(methods), *known], repeats[:1]) + training_jobs(known, repeats[1:])


def all_trials(methods: Sequence[Method]) -> list[Method]:
    """The trials that settle these methods, each once."""
    return list({trial.name: trial for method in methods for trial in trial_methods(method)}.values())


def possible_methods(method: Method) -> list[Method]:
    """The method with each setting that its trials may settle; as it is without trials."""
    return [_with(method, fields) for fields in _leader(method).trials] or [method]


def _leader(method: Method) -> Method:
    return method.follows or method


def _with(method: Method, fields: dict[str, Any]) -> Method:
    """The method trained with these fields, and nothing left to settle."""
    return replace(method, training={**method.training, **fields}, trials=(), follows=None)
