"""``dimml compare``: one table of methods from one config; heavy imports are inside the functions."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Annotated

import typer

from dimml.errors import SetupError
from dimml_training.cli.console import CacheDir

if TYPE_CHECKING:
    from dimml_training.compare.methods import Method
    from dimml_training.compare.plan import TrainingJob


def compare(
    config: Annotated[Path, typer.Argument(help="YAML config, see docs/training.md.")],
    *,
    methods: Annotated[
        str, typer.Option(help="Comma-separated names, or the shortcuts main and all; --list shows them.")
    ] = "main",
    seeds: Annotated[
        int | None,
        typer.Option(min=1, help="Number of repeats: seeds 0, 1…, or the config's first ones; by default 3, or all."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Where cells, tables and plots are written.")] = Path("docs/results"),
    work: Annotated[Path, typer.Option(help="Where runs are kept.")] = Path("runs/compare"),
    override: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a field, for every method.")
    ] = None,
    cache_dir: CacheDir = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes that train in parallel.")] = 1,
    rescore: Annotated[bool, typer.Option("--rescore", help="Score finished trainings again.")] = False,
    list_only: Annotated[bool, typer.Option("--list", help="Show methods and trainings, and which are done.")] = False,
    table_only: Annotated[
        bool, typer.Option("--table-only", help="Make the table from existing cells, without training.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the metrics as JSON.")] = False,
) -> None:
    """Train and score many methods on one data set, and write one table of all of them."""
    from dimml_training.config import load_config

    settings = load_config(config, override or ())  # before torch is imported: a misspelt field is answered at once

    from dimml_training.compare.cells import TIME_FORMAT
    from dimml_training.compare.methods import chosen_methods
    from dimml_training.compare.packed_cells import read_cells
    from dimml_training.compare.plots import write_plots
    from dimml_training.compare.tables import metrics_of, summaries, write_tables
    from dimml_training.compare.work import Comparison, planned, side_by_side
    from dimml_training.data.cache import default_cache_dir

    chosen = chosen_methods(settings, [name.strip() for name in methods.split(",") if name.strip()] or [methods])
    since = datetime.now(UTC).strftime(TIME_FORMAT) if rescore else None
    comparison = Comparison(
        settings, tuple(m.name for m in chosen), seeds, out, work, cache_dir or default_cache_dir(), since
    )
    if list_only:
        _show_plan(chosen, planned(comparison, tell=_tell), out)
        return
    failed = []
    if not table_only:
        _writable(out)
        failed = side_by_side(comparison, jobs, tell=_tell)
    carried = {settings.name: settings.compare.contained}
    of_data = [s for s in summaries(read_cells(out), carried) if s.data == settings.name]
    if failed and not of_data:
        raise SetupError(_failures(failed))
    if not of_data:
        raise SetupError(f"{out} holds no cell of {settings.name}; run `dimml compare` without --table-only")
    written = [*write_tables(of_data[0], out), *write_plots(of_data[0], out)]
    if as_json:
        typer.echo(json.dumps(metrics_of(of_data[0]), indent=2))
    else:
        typer.echo(written[0].read_text(encoding="utf-8"))
        for path in written:
            typer.echo(f"written: {path}", err=True)
    if failed:
        raise SetupError(_failures(failed))


def _writable(out: Path) -> None:
    """Check that ``out`` can be written to before hours of training, not after them."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise SetupError(f"cannot write to {out}: {error.strerror}; choose another place with --out") from error


def _failures(failed: list[str]) -> str:
    return "not all trainings went through: " + "; ".join(failed)


def _tell(line: str) -> None:
    typer.echo(line, err=True)


def _show_plan(methods: list[Method], jobs: list[TrainingJob], out: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from dimml_training.compare.work import finished

    table = Table(title="methods", title_justify="left")
    for column in ("method", "what"):
        table.add_column(column)
    for method in methods:
        table.add_row(method.name, method.description)
    trainings = Table(title="trainings", title_justify="left")
    for column in ("key", "repeat", "methods", "done"):
        trainings.add_column(column)
    for job in jobs:
        names = ", ".join(method.name for method in job.methods)
        trainings.add_row(job.key, str(job.repeat.index), names, "yes" if finished(job, out) else "no")
    console = Console()
    console.print(table)
    console.print(trainings)
