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
    coverage: Annotated[
        str | None,
        typer.Option(
            help="Keep the fusion, and compute thresholds of prediction sets that hold the true label in this share of "
            "answers, such as 0.9.",
        ),
    ] = None,
    false_alarms: Annotated[
        str | None,
        typer.Option(
            help="With --coverage: also recognise answers to classes that training never saw, and take at most this "
            "share of answers to known ones for such, for example 0.05.",
        ),
    ] = None,
    cache_dir: CacheDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report of the choice as JSON.")] = False,
) -> None:
    """Choose a finished run's fusion again on validation clips, without training; or, with --coverage, calibrate sets.

    Thresholds of prediction sets are written into the run, and `dimml export` puts them into the bundle.
    """
    if coverage is not None:
        _calibrate_sets(run, coverage, false_alarms, cache_dir, as_json=as_json)
        return
    if false_alarms is not None:
        raise typer.BadParameter("goes with --coverage", param_hint="--false-alarms")
    from dimml_training.fusion_selection.search import one_line
    from dimml_training.loop.calibrate import calibrate as choose_again
    from dimml_training.report.page import write_report
    from dimml_training.report.reading import CORRUPTIONS_FILE
    from dimml_training.run.prediction_sets import SETS_FILE, fusion_sha256, read_sets

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
    sets, chosen = read_sets(run), calibrated.chosen
    if sets is not None and sets.fusion_sha256 != fusion_sha256(chosen.spec, chosen.parameters):
        typer.echo(
            f"{SETS_FILE} is of the previous fusion: `dimml calibrate --coverage` computes thresholds for the new one",
            err=True,
        )
    write_report(run)
    metrics = calibrated.metrics
    if as_json:
        typer.echo(json.dumps({"run": str(run), "metrics": metrics, **chosen.report}, indent=2))
        return
    for split, found in metrics.items():
        show_metrics(f"{split}, {found['clips']} clips", found, calibrated.labels)
    typer.echo(f"chosen: {one_line(chosen)}")


def _calibrate_sets(
    run: Path, coverage: str, false_alarms: str | None, cache_dir: Path | None, *, as_json: bool
) -> None:
    """Compute thresholds of prediction sets, and show them."""
    from dimml.prediction_sets.thresholds import parse_share

    wanted = parse_share(coverage, "coverage", "0.9")
    alarms = None if false_alarms is None else parse_share(false_alarms, "false_alarms", "0.05")
    from dimml_training.loop.prediction_sets import calibrate_sets

    with progress_bar("decoding clips") as decoding, progress_bar("corrupting validation clips") as corrupting:
        record = calibrate_sets(
            run,
            wanted,
            false_alarms=alarms,
            cache_dir=cache_dir,
            decoding=decoding,
            corrupting=corrupting,
            tell=lambda line: typer.echo(line, err=True),
        )
    if as_json:
        typer.echo(json.dumps({"run": str(run), **record.model_dump(mode="json")}, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("modalities", "clips", "accuracy", "threshold", "labels in a set", "of one label", box=None)
    for pattern, found in zip(record.sets.patterns, record.report["patterns"], strict=True):
        table.add_row(
            " and ".join(pattern.modalities),
            str(pattern.clips),
            f"{found['accuracy']:.1%}",
            f"p >= {1 - pattern.threshold:.4f}",
            f"{found['mean_size']:.2f}",
            f"{found['single']:.1%}",
        )
    Console(highlight=False).print(table)
    percent = (record.sets.coverage * 100).normalize()
    typer.echo(
        f"Sets hold the true label of at least {percent:f} % of answers, on average over recordings like these clips; "
        "not under drift. `dimml export` puts them into the bundle."
    )
