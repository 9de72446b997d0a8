"""``dimml score``; heavy imports stand inside the functions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

#: As a shell gives it for Ctrl-C.
EXIT_STOPPED = 130


def register(app: typer.Typer) -> None:
    """Add this component's subcommands."""
    app.command("score")(score)


def score(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT...", help="Files, folders, globs, URLs, or manifests (.csv, .parquet, .jsonl)."),
    ],
    *,
    out: Annotated[Path, typer.Option("--out", help="The table: .parquet, .jsonl or .csv.")],
    repository: Annotated[Path, typer.Option("--repository", help="The model repository.")] = Path("model_repository"),
    model: Annotated[
        str | None, typer.Option("--model", help="The bundle; may be left out where there is only one.")
    ] = None,
    version: Annotated[int | None, typer.Option("--version", min=1, help="Its version; by default the newest.")] = None,
    column: Annotated[
        list[str] | None,
        typer.Option("--column", metavar="NAME=COLUMN", help="A manifest's own name of a column, repeatable."),
    ] = None,
    root: Annotated[
        str | None, typer.Option("--root", help="Folder or URL of a manifest's relative paths; by default its own.")
    ] = None,
    cores: Annotated[
        int | None, typer.Option("--cores", min=1, help="Cores to use; by default what the cgroup leaves us.")
    ] = None,
    fail_on: Annotated[
        str, typer.Option("--fail-on", help="Rows that make the exit code 3: error, degraded (or error), never.")
    ] = "error",
    as_json: Annotated[bool, typer.Option("--json", help="The summary as one JSON object.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress, and no summary but that of --json.")
    ] = False,
) -> None:
    """Score recordings into a table with one row for each, whatever happens on the way.

    Killed or stopped, the same command goes on. Exit code 0: all have an answer; 3: some rows are errors; 1: the run
    could not go on; 2: wrong usage; 130: stopped by Ctrl-C or SIGTERM.
    """
    import json

    from rich.console import Console

    from dimml.cores import usable_cores
    from dimml_client.scoring.inputs import list_inputs
    from dimml_client.scoring.local import LocalScorer
    from dimml_client.scoring.manifest import column_names
    from dimml_client.scoring.output import check_suffix
    from dimml_client.scoring.report import as_document, show
    from dimml_client.scoring.run import score_table
    from dimml_client.scoring.summary import FAIL_ON

    wanted = next((known for known in FAIL_ON if known == fail_on), None)
    if wanted is None:
        raise typer.BadParameter(f"choose one of {', '.join(FAIL_ON)}", param_hint="--fail-on")
    check_suffix(out)
    listing = list_inputs(inputs, column_names(column or []), root)
    scorer = LocalScorer(repository, model, version, cores=cores or usable_cores())
    outcome = score_table(scorer, listing, out, quiet=quiet)
    if as_json:
        typer.echo(json.dumps(as_document(outcome, out, listing.repeated)))
    elif not quiet:
        show(outcome, out, listing.repeated, Console())
    if not outcome.complete:
        raise typer.Exit(EXIT_STOPPED)
    raise typer.Exit(outcome.summary.exit_code(wanted))
