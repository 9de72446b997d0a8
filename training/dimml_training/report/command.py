"""``dimml report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(run: Annotated[Path, typer.Argument(help="Run directory, finished or not.")]) -> None:
    """Write report.html into a run directory, anew: after an evaluation or another choice of the fusion."""
    from dimml_training.report.page import write_report

    typer.echo(write_report(run))
