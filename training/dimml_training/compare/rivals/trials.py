"""Trials: trainings of one method that differ in a setting, on the first repeat, of which validation clips choose one.

A trial is a method of its own, named ``<method>@<number>``, with a cell that tables leave out. When every trial has its
cell, the method is trained with the best setting on all repeats; on the first, that is the run of the trial.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from dimml_training.compare.cells import Cell
from dimml_training.compare.methods import Method
from dimml_training.compare.packed_cells import find_cell
from dimml_training.compare.plan import Repeat, TrainingJob, training_config, training_jobs, training_key
from dimml_training.compare.scoring import answer_key
from dimml_training.compare.summary import TRIAL
from dimml_training.config import TrainConfig
from dimml_training.fusion_selection.family_pairs import name_has_answer


def trial_methods(method: Method) -> list[Method]:
    """The method once with each of its settings, scored on validation clips; none without trials."""
    return [
        replace(
            method,
            name=f"{method.name}{TRIAL}{number}",
            training={**method.training, **fields},
            scored_on_validation=True,
            trials=(),
        )
        for number, fields in enumerate(method.trials)
    ]


def validation_score(cell: Cell) -> float:
    """Mean accuracy on validation clips over the seen conditions in the means that leave an answer; else on clean ones.

    Raises ValueError for a cell without validation clips.
    """
    if cell.validation is None:
        raise ValueError(f"{cell.method}, repeat {cell.repeat}, was not scored on validation clips")
    counted = [
        name for name, record in cell.conditions.items() if record.seen and record.in_means and name_has_answer(name)
    ]
    return float(np.mean([cell.validation[name] for name in counted or list(cell.conditions)[:1]]))


def settled(method: Method, first: Repeat, out: Path) -> Method | None:
    """The method with the setting that its trials on the first repeat chose; None while any of them has no valid cell.

    The first of equals is taken.
    """
    trials = trial_methods(method)
    if not trials:
        return method
    scores = []
    for trial in trials:
        cell = find_cell(out, first.config.name, trial.name, first.index)
        key = training_key(training_config(first.config, trial), first.data.digest)
        if cell is None or cell.answer != answer_key(key, first.config, trial):
            return None
        scores.append(validation_score(cell))
    best = max(range(len(trials)), key=scores.__getitem__)
    return replace(trials[best], name=method.name, scored_on_validation=method.scored_on_validation)


def jobs_with_trials(methods: Sequence[Method], repeats: Sequence[Repeat], out: Path) -> list[TrainingJob]:
    """List the trainings of methods, repeat by repeat: trials, and what they have settled so far."""
    trials = [trial for method in methods for trial in trial_methods(method)]
    known = [found for method in methods if (found := settled(method, repeats[0], out)) is not None]
    return training_jobs([*trials, *known], repeats[:1]) + training_jobs(known, repeats[1:])


def possible_trainings(config: TrainConfig, method: Method, cell: Cell) -> dict[str, Method]:
    """By key, the trainings that a method's cell may rest on, on the cell's data and from the weights it started from.

    They are its own, or that of any of its trials.
    """
    found = trial_methods(method) or [method]
    return {
        training_key(training_config(config, trial), cell.data_digest, started_from=cell.started_from): trial
        for trial in found
    }
