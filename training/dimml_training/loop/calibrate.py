"""Choosing a finished run's fusion again, without training."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dimml.errors import SetupError
from dimml.system.files import StrPath
from dimml_training.data.cache import default_cache_dir
from dimml_training.data.prepare import Progress, prepare
from dimml_training.evaluation.heads import figures, fused_answer, head_logits
from dimml_training.fusion_selection.choose import choose_on
from dimml_training.fusion_selection.search import ChosenFusion
from dimml_training.run.directory import METRICS_JSON, TrainedRun, load_run, write_metrics
from dimml_training.run.fusion import keep_previous, write_fusion
from dimml_training.run.votes import write_votes

#: Largest difference of parameters that were fitted to the same clips: threads add in another order.
_SAME: Final = 1e-6


@dataclass(frozen=True)
class Calibrated:
    """The chosen fusion with its report, and the metrics of validation and test under it."""

    chosen: ChosenFusion
    metrics: dict[str, Any]
    labels: tuple[str, ...]
    #: Whether the run had that fusion already: what was measured with it then still holds.
    same: bool


def calibrate(
    run: StrPath,
    *,
    cache_dir: StrPath | None = None,
    decoding: Progress | None = None,
    corrupting: Progress | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Calibrated:
    """Choose a finished run's fusion on validation clips, and write it and the new metrics into the run directory.

    The files of the previous fusion are kept beside the new ones. Decoded clips are read from ``cache_dir``, by default
    ``dimml train``'s, or decoded again. ``decoding`` and ``corrupting`` are called with the number of clips done and
    the total, ``tell`` with what a caller may overlook. Raises SetupError for a run that does not load or is a joint
    training, DataError for problems of the data.
    """
    folder = Path(run)
    trained = load_run(folder)
    if trained.joint_head is not None:
        raise SetupError(f"{folder} is a joint training: its one head answers, there are no votes to fuse")
    data = prepare(trained.config, cache_dir or default_cache_dir(), labels=trained.labels, progress=decoding)
    rows = {split: of_split.rows for split, of_split in data.splits.items()}
    chosen = choose_on(
        trained.config,
        trained.encoders,
        trained.fused_head,
        train=rows["train"],
        validation=rows["validation"],
        progress=corrupting,
    )
    metrics, answers = {}, {}
    for split in ("validation", "test"):
        votes = head_logits(trained.encoders, trained.fused_head, trained.modalities, rows[split], trained.quality)
        answers[split] = votes, fused_answer(votes, chosen.spec, chosen.parameters)
        metrics[split] = figures(*answers[split], trained.labels)
    if trained.config.fusion is not None:
        tell("warning: the run's config fixes its fusion; the one chosen now replaces it as long as fusion.json exists")
    keep_previous(folder, METRICS_JSON)
    write_fusion(folder, chosen.spec, chosen.parameters, chosen.report, chosen.accuracy)
    write_votes(folder, answers, chosen.spec)
    write_metrics(folder, metrics)
    return Calibrated(chosen, metrics, trained.labels, _same_choice(trained, chosen))


def _same_choice(trained: TrainedRun, chosen: ChosenFusion) -> bool:
    before, now = trained.fusion_parameters.arrays(), chosen.parameters.arrays()
    estimates = [None if of is None else of.model_dump() for of in (trained.accuracy_estimate, chosen.accuracy)]
    return (
        _same(trained.fusion.model_dump(), chosen.spec.model_dump())
        and _same({k: value.tolist() for k, value in before.items()}, {k: value.tolist() for k, value in now.items()})
        and _same(*estimates)
    )


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(value, other[name]) for name, value in one.items())
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=_SAME, abs_tol=_SAME)
    return bool(one == other)
