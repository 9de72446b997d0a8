"""Fitting the rivals of a job, on the validation clips and conditions that a fusion is chosen on."""

from __future__ import annotations

from pathlib import Path

from dimml_training.compare.encodings import encodings
from dimml_training.compare.methods import FittedRival
from dimml_training.compare.plan import TrainingJob
from dimml_training.corruptions.kin.applying import WithKin
from dimml_training.fusion_selection.choose import choice_conditions
from dimml_training.fusion_selection.condition_rows import rows_of
from dimml_training.rivals.choose import ChosenRival, choose_rival
from dimml_training.run.directory import TrainedRun


def fitted_rivals(job: TrainingJob, folder: Path, run: TrainedRun) -> dict[str, ChosenRival]:
    """Fit the rivals among a job's methods, by name. Encodes validation clips only if there is any rival."""
    rules = {method.name: method.answer for method in job.methods if isinstance(method.answer, FittedRival)}
    if not rules:
        return {}
    config, splits = job.repeat.config, job.repeat.data.splits
    section, seen = config.certainty, choice_conditions(config)
    damage = WithKin(splits["train"].rows)
    validation = encodings(folder, "choice", run, splits["validation"].rows, seen, seed=config.seed, damage=damage)
    rows = rows_of(validation, run.fused_head, seen, draws=section.draws, clips=section.clips)
    return {
        name: choose_rival(
            rule.kind,
            rule.settings,
            rule.fused_head if run.fused_head is not None else (False,),
            rows,
            folds=section.folds,
            steps=rule.steps,
            seed=config.seed,
        )
        for name, rule in rules.items()
    }
