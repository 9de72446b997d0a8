"""``dimml calibrate``: choose a finished run's fusion again; heavy imports are inside the function."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from dimml_training.cli.console import CacheDir, progress_bar, show_metrics


def calibrate(
    run: Annotated[Path, typer.Argument(help="Run directory of a finished training.")],
    *,
    cache_dir: CacheDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report of the choice as JSON.")] = False,
) -> None:
    """Choose a finished run's fusion again on validation clips, without training."""
    from dimml_training.fusion_selection.search import one_line
    from dimml_training.loop.calibrate import calibrate as choose_again
    from dimml_training.report.page import write_report
    from dimml_training.report.reading import CORRUPTIONS_FILE

    with progress_bar("decoding clips") as decoding, progress_bar("corrupting validation clips") as corrupting:
        calibrated = choose_again(
            run,
            cache_dir=cache_dir,
            decoding=decoding,
            corrupting=corrupting,
            tell=lambda line: typer.echo(line, err=True),
        )
    corrupted = run / CORRUPTIONS_FILE
    if corrupted.is_file() and not calibrated.same:
        kept = corrupted.replace(corrupted.with_name("corruptions.previous.json"))
        typer.echo(
            f"{kept.name} holds the metrics of the previous fusion; `dimml evaluate --corruptions` scores the new one",
            err=True,
        )
    write_report(run)
    chosen, metrics = calibrated.chosen, calibrated.metrics
    if as_json:
        typer.echo(json.dumps({"run": str(run), "metrics": metrics, **chosen.report}, indent=2))
        return
    for split, found in metrics.items():
        show_metrics(f"{split}, {found['clips']} clips", found, calibrated.labels)
    typer.echo(f"chosen: {one_line(chosen)}")
