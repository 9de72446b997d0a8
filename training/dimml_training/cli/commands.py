"""Subcommands of ``dimml`` from this package; heavy imports are inside the functions."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from dimml_training.cli.calibrate import calibrate
from dimml_training.cli.compare import compare
from dimml_training.cli.console import CacheDir, progress_bar, show_metrics
from dimml_training.cli.evaluate import evaluate
from dimml_training.cli.init import init
from dimml_training.cli.make_avdigits import make_avdigits
from dimml_training.cli.make_manifest import make_manifest_app
from dimml_training.cli.report import report


def register(app: typer.Typer) -> None:
    """Add the subcommands of this package to ``app``."""
    app.command("init")(init)
    app.command("train", help="Train detached encoders and a fused head from a config; write a run directory.")(train)
    app.command("evaluate", help="Score a trained run on one of its splits, clean and under corruptions.")(evaluate)
    app.command("calibrate", help="Choose a finished run's fusion again, without training.")(calibrate)
    app.command("report")(report)
    app.command("compare", help="Train and score many methods on one data set, and tabulate them.")(compare)
    app.command("make-avdigits")(make_avdigits)
    app.add_typer(make_manifest_app(), name="make-manifest")


def train(
    config: Annotated[Path, typer.Argument(help="YAML config, see docs/training.md.")],
    *,
    out: Annotated[Path | None, typer.Option(help="Run directory; by default runs/<name>.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    override: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a field: stage1.epochs=10.")
    ] = None,
    cache_dir: CacheDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the metrics as JSON.")] = False,
) -> None:
    """Train a model from a config and write its run directory and report."""
    from dimml_training.config import load_config

    settings = load_config(config, override or ())  # before torch is imported: a misspelt field is answered at once

    from dimml_training.data.cache import default_cache_dir
    from dimml_training.loop.train import train as run_training
    from dimml_training.report.page import write_report
    from dimml_training.report.reading import read_run_files

    folder = Path("runs") / settings.name if out is None else out
    with progress_bar("decoding clips") as progress:
        metrics = run_training(
            settings,
            folder,
            cache_dir=cache_dir or default_cache_dir(),
            resume=resume,
            progress=progress,
            tell=lambda line: typer.echo(line, err=True),
            bar=sys.stderr.isatty(),
        )
    if not metrics:  # under torchrun only the first process has metrics and prints them
        return
    write_report(folder)
    if as_json:
        typer.echo(json.dumps({"run": str(folder), **metrics}, indent=2))
        return
    labels = read_run_files(folder).labels
    for split, found in metrics.items():
        show_metrics(f"{split}, {found['clips']} clips", found, labels)
    typer.echo(f"run directory: {folder}")
