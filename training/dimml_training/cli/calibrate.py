"""``dimml calibrate``: choose a finished run's fusion again; heavy imports are inside the function."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from dimml.errors import SetupError
from dimml_training.cli.console import CacheDir, progress_bar, show_metrics

if TYPE_CHECKING:
    from dimml_training.fusion_selection.search import ChosenFusion
    from dimml_training.run.directory import TrainedRun


#: Largest difference of parameters that were fitted to the same clips: threads add in another order.
_SAME: Final = 1e-6


def calibrate(
    run: Annotated[Path, typer.Argument(help="Run directory of a finished training.")],
    *,
    cache_dir: CacheDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report of the choice as JSON.")] = False,
) -> None:
    """Choose a finished run's fusion again on validation clips, without training."""
    from dimml_training.data.cache import default_cache_dir
    from dimml_training.data.prepare import prepare
    from dimml_training.evaluation.heads import figures, fused_answer, head_logits
    from dimml_training.fusion_selection.choose import choose_on
    from dimml_training.fusion_selection.search import one_line
    from dimml_training.report.page import write_report
    from dimml_training.report.reading import CORRUPTIONS_FILE
    from dimml_training.run.directory import METRICS_JSON, load_run, write_metrics
    from dimml_training.run.fusion import keep_previous, write_fusion
    from dimml_training.run.votes import write_votes

    trained = load_run(run)
    if trained.joint_head is not None:
        raise SetupError(f"{run} is a joint training: its one head answers, there are no votes to fuse")
    with progress_bar("decoding clips") as progress:
        data = prepare(trained.config, cache_dir or default_cache_dir(), labels=trained.labels, progress=progress)
    rows = {split: of_split.rows for split, of_split in data.splits.items()}
    with progress_bar("corrupting validation clips") as progress:
        chosen = choose_on(
            trained.config,
            trained.encoders,
            trained.fused_head,
            train=rows["train"],
            validation=rows["validation"],
            progress=progress,
        )
    metrics, answers = {}, {}
    for split in ("validation", "test"):
        votes = head_logits(trained.encoders, trained.fused_head, trained.modalities, rows[split], trained.quality)
        answers[split] = votes, fused_answer(votes, chosen.spec, chosen.parameters)
        metrics[split] = figures(*answers[split], trained.labels)
    if trained.config.fusion is not None:
        typer.echo(
            "warning: the run's config fixes its fusion; the one chosen now replaces it as long as fusion.json exists",
            err=True,
        )
    keep_previous(run, METRICS_JSON)
    write_fusion(run, chosen.spec, chosen.parameters, chosen.report)
    write_votes(run, answers, chosen.spec)
    write_metrics(run, metrics)
    corrupted = run / CORRUPTIONS_FILE
    if corrupted.is_file() and not _same_choice(trained, chosen):
        kept = corrupted.replace(corrupted.with_name("corruptions.previous.json"))
        typer.echo(
            f"{kept.name} holds the metrics of the previous fusion; `dimml evaluate --corruptions` scores the new one",
            err=True,
        )
    write_report(run)
    if as_json:
        typer.echo(json.dumps({"run": str(run), "metrics": metrics, **chosen.report}, indent=2))
        return
    for split, found in metrics.items():
        show_metrics(f"{split}, {found['clips']} clips", found)
    typer.echo(f"chosen: {one_line(chosen)}")


def _same_choice(trained: TrainedRun, chosen: ChosenFusion) -> bool:
    """Whether the run's fusion is the one chosen: what was measured with it then still holds."""
    before, now = trained.fusion_parameters.arrays(), chosen.parameters.arrays()
    return _same(trained.fusion.model_dump(), chosen.spec.model_dump()) and _same(
        {name: value.tolist() for name, value in before.items()}, {name: value.tolist() for name, value in now.items()}
    )


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(value, other[name]) for name, value in one.items())
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=_SAME, abs_tol=_SAME)
    return bool(one == other)
