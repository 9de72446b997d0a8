"""``dimml report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    run: Annotated[Path, typer.Argument(help="Run directory, finished or not.")],
    *,
    results: Annotated[
        Path | None, typer.Option(help="Output folder of dimml compare: adds its table of methods on the same data.")
    ] = None,
) -> None:
    """Write report.html into a run directory, for example again after an evaluation or a comparison."""
    from dimml_training.report.page import write_report

    typer.echo(write_report(run, results))
