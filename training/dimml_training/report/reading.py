"""Reading the files of a run directory for a report, without building an encoder or reading the data."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from dimml.errors import SetupError
from dimml_training.config import TrainConfig
from dimml_training.run.directory import CONFIG_FILE, METRICS_CSV, METRICS_JSON, RUN_FILE, read_config
from dimml_training.run.votes import Votes, read_votes

#: Written by ``dimml evaluate --corruptions``.
CORRUPTIONS_FILE = "corruptions.json"
#: Written by ``dimml report --results``.
COMPARISON_FILE = "comparison.json"
#: Written when the fusion is chosen on validation clips.
FUSION_FILE = "fusion.json"


class Comparison(BaseModel):
    """Content of ``comparison.json``: a table as text, and a note on it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str

    @model_validator(mode="after")
    def _rectangular(self) -> Comparison:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError("a row is not as long as the head of the table")
        return self


@dataclass(frozen=True)
class RunFiles:
    """Files of a run, finished or not. ``record`` is ``run.json``, None until the training has ended."""

    folder: Path
    config: TrainConfig
    config_text: str
    record: dict[str, Any] | None
    metrics: dict[str, Any]
    #: Rows of ``metrics.csv``, each without its empty columns.
    epochs: list[dict[str, float]]
    votes: dict[str, Votes]
    corruptions: dict[str, Any] | None
    fusion: dict[str, Any] | None
    comparison: Comparison | None

    @property
    def labels(self) -> tuple[str, ...]:
        """Classes in output order; empty until the training has ended."""
        return tuple(self.record["labels"]) if self.record else ()

    @property
    def training(self) -> dict[str, Any]:
        """Record of the training in ``run.json``; empty until the training has ended."""
        found: dict[str, Any] = self.record["training"] if self.record else {}
        return found


def read_run_files(folder: Path, *, comparison: bool = True) -> RunFiles:
    """Read all files, or all but the comparison. Raises SetupError if ``folder`` is not a run or a file is damaged."""
    if not (folder / CONFIG_FILE).is_file():
        raise SetupError(f"{folder} is no training run: {CONFIG_FILE} is missing")
    return RunFiles(
        folder=folder,
        config=read_config(folder),
        config_text=(folder / CONFIG_FILE).read_text(encoding="utf-8"),
        record=_json(folder / RUN_FILE),
        metrics=_json(folder / METRICS_JSON) or {},
        epochs=_epochs(folder / METRICS_CSV),
        votes=read_votes(folder),
        corruptions=_json(folder / CORRUPTIONS_FILE),
        fusion=_json(folder / FUSION_FILE),
        comparison=_comparison(folder / COMPARISON_FILE) if comparison else None,
    )


def _json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise SetupError(f"{path} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise SetupError(f"{path} is damaged: it holds no mapping")
    return content


def _comparison(path: Path) -> Comparison | None:
    content = _json(path)
    try:
        return None if content is None else Comparison.model_validate(content)
    except ValidationError as error:
        raise SetupError(f"{path} is damaged: `dimml report --results` writes it anew") from error


def _epochs(path: Path) -> list[dict[str, float]]:
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
    except (OSError, ValueError, TypeError) as error:
        raise SetupError(f"{path} is damaged: {error}") from error
