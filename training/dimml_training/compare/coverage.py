"""Coverage of a comparison: cells that are missing, or made by another state of its config.

Needs neither data nor runs: a cell has the digest of its data, and of the weights that its training started from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dimml_training.compare.cells import Cell
from dimml_training.compare.methods import Method
from dimml_training.compare.plan import repeated_fields
from dimml_training.compare.rivals.trials import (
    all_trials,
    possible_methods,
    settled_by,
    trial_methods,
    wanted_answer,
)
from dimml_training.config import TrainConfig, with_fields


@dataclass(frozen=True)
class Coverage:
    """Repeats left to run, by method: those without a cell, and those whose cell another state of the config made."""

    missing: dict[str, list[int]]
    outdated: dict[str, list[int]]

    @property
    def whole(self) -> bool:
        """Whether nothing is left to run."""
        return not self.missing and not self.outdated


def coverage(config: TrainConfig, methods: Sequence[Method], cells: Mapping[str, Mapping[int, Cell]]) -> Coverage:
    """Compare cells, those of trials among them, by method and repeat, with those that ``config`` asks for.

    Trials are wanted on the first repeat. While one is left to run, a method may rest on any setting that is tried.
    """
    missing: dict[str, list[int]] = {}
    outdated: dict[str, list[int]] = {}
    repeats = [
        with_fields(config, fields, f"compare.repeats.{index}") for index, fields in enumerate(repeated_fields(config))
    ]

    def left_in(name: str, possible: Sequence[Method], index: int) -> dict[str, list[int]] | None:
        """Where a repeat of a method that is left to run belongs; None if its cell is valid."""
        cell = cells.get(name, {}).get(index)
        if cell is None:
            return missing
        kept = cell.data_digest, cell.started_from
        answers = {wanted_answer(method, repeats[index], *kept) for method in possible}
        return None if cell.answer in answers else outdated

    trials = {trial.name: left_in(trial.name, [trial], 0) for trial in all_trials(methods)}

    def possible(method: Method) -> list[Method]:
        names = [trial.name for trial in trial_methods(method)]
        if not names or any(trials[name] is not None for name in names):
            return possible_methods(method)
        return [settled_by(method, [cells[name][0] for name in names])]

    wanted = {method.name: possible(method) for method in methods}
    found = [(name, index, left_in(name, wanted[name], index)) for index in range(len(repeats)) for name in wanted]
    for name, index, where in [*found, *((name, 0, where) for name, where in trials.items())]:
        if where is not None:
            where.setdefault(name, []).append(index)
    return Coverage(missing, outdated)
