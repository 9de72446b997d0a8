"""Coverage of a comparison: cells that are missing, or made by another state of its config.

Needs neither data nor runs: a cell has the digest of its data, and of the weights that its training started from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dimml_training.compare.cells import Cell
from dimml_training.compare.methods import Method
from dimml_training.compare.plan import repeated_fields
from dimml_training.compare.rivals.trials import possible_trainings
from dimml_training.compare.scoring import answer_key
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
    """Compare cells, by method and repeat, with those that ``config`` asks for."""
    missing: dict[str, list[int]] = {}
    outdated: dict[str, list[int]] = {}
    for index, fields in enumerate(repeated_fields(config)):
        of_repeat = with_fields(config, fields, f"compare.repeats.{index}")
        for method in methods:
            cell = cells.get(method.name, {}).get(index)
            if cell is None:
                missing.setdefault(method.name, []).append(index)
                continue
            trainings = possible_trainings(of_repeat, method, cell)
            if cell.answer not in {answer_key(training, of_repeat, method) for training in trainings}:
                outdated.setdefault(method.name, []).append(index)
    return Coverage(missing, outdated)
