"""``dimml score``; heavy imports stand inside the functions."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from dimml.cli import EXIT_INTERRUPTED
from dimml_client.cli.options import AudioTrack, CredentialFiles, VideoTrack, with_credentials

if TYPE_CHECKING:
    from dimml_client.scoring.engines.decode_request import WindowOptions
    from dimml_client.scoring.engines.protocol import Engine
    from dimml_client.scoring.run.aggregate import Aggregation

_ENGINES = ("local", "server", "ray")


def register(app: typer.Typer) -> None:
    """Add this component's subcommands."""
    app.command("score")(score)
    app.command("plot")(plot)
    # Its commands need what these need, and read what these write.
    from dimml_client.labelling.cli import register as register_labelling

    register_labelling(app)


@with_credentials
def score(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT...", help="Files, folders, globs, URLs, or manifests (.csv, .parquet, .jsonl)."),
    ],
    *,
    out: Annotated[
        str, typer.Option("--out", metavar="PATH", help="The table, on this machine: .parquet, .jsonl or .csv.")
    ],
    repository: Annotated[
        Path, typer.Option("--repository", help="Model repository, for --engine local and ray.")
    ] = Path("model_repository"),
    model: Annotated[
        str | None, typer.Option("--model", help="The bundle; may be left out if there is only one.")
    ] = None,
    version: Annotated[int | None, typer.Option("--version", min=1, help="Its version; by default the newest.")] = None,
    column: Annotated[
        list[str] | None,
        typer.Option("--column", metavar="NAME=COLUMN", help="A manifest's own name of a column, repeatable."),
    ] = None,
    audio_track: AudioTrack = None,
    video_track: VideoTrack = None,
    root: Annotated[
        str | None, typer.Option("--root", help="Folder or URL of a manifest's relative paths; by default its own.")
    ] = None,
    window: Annotated[
        float | None, typer.Option("--window", help="Score as a timeline: one row per window of this many seconds.")
    ] = None,
    stride: Annotated[
        float | None, typer.Option("--stride", help="Seconds from window to window; by default --window.")
    ] = None,
    aggregate: Annotated[
        str | None, typer.Option("--aggregate", help="One more row per recording over its windows: mean, max or vote.")
    ] = None,
    engine: Annotated[
        str | None, typer.Option("--engine", help="local, server or ray; by default server with --url, else local.")
    ] = None,
    url: Annotated[str | None, typer.Option("--url", help="The server: http://host:port or grpc://host:port.")] = None,
    credentials: CredentialFiles,
    in_flight: Annotated[int, typer.Option("--in-flight", min=1, help="Concurrent requests to the server.")] = 8,
    ray_address: Annotated[
        str | None, typer.Option("--ray-address", help="A Ray cluster, or auto; by default one is started here.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, help="Ray actors of one core each; by default as many as there are cores."),
    ] = None,
    cores: Annotated[
        int | None, typer.Option("--cores", min=1, help="Cores to use; by default as many as the cgroup allows.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option("--report", help="Compare the answers with the manifest's labels, as an HTML page.")
    ] = None,
    fail_on: Annotated[
        str, typer.Option("--fail-on", help="Rows that make the exit code 3: error, degraded (or error), never.")
    ] = "error",
    as_json: Annotated[bool, typer.Option("--json", help="The summary as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no summary.")] = False,
) -> None:
    """Score recordings into a table with one row for each, whatever happens on the way.

    Killed or stopped, the same command goes on. Exit code 0: all have an answer; 3: some rows are errors; 1: the run
    could not go on; 2: wrong usage; 130: stopped by Ctrl-C or SIGTERM.
    """
    from dimml.system.cores import usable_cores
    from dimml_client.scoring.engines.local import LocalEngine
    from dimml_client.scoring.inputs.listing import list_inputs
    from dimml_client.scoring.inputs.manifest import column_names
    from dimml_client.scoring.run.aggregate import AGGREGATIONS
    from dimml_client.scoring.run.console_summary import print_summary, result_json
    from dimml_client.scoring.run.score_table import score_table
    from dimml_client.scoring.run.summary import FAIL_ON
    from dimml_client.scoring.table.formats import checked_out

    if fail_on not in FAIL_ON:
        raise typer.BadParameter(f"choose one of {', '.join(FAIL_ON)}", param_hint="--fail-on")
    table = checked_out(out)
    options = _windows(window, stride)
    if aggregate is not None and (options is None or aggregate not in AGGREGATIONS):
        raise typer.BadParameter("mean, max or vote, and with --window", param_hint="--aggregate")
    listing = list_inputs(inputs, column_names(column or []), root, audio_track, video_track)
    if report is not None and not listing.labelled:
        raise typer.BadParameter("needs a manifest with a column 'label'", param_hint="--report")
    if listing.repeated and not quiet:
        typer.echo(f"note: {listing.repeated} recordings are named more than once; each has its own rows", err=True)
    kind = engine or ("local" if url is None else "server")
    if kind not in _ENGINES:
        raise typer.BadParameter(f"choose one of {', '.join(_ENGINES)}", param_hint="--engine")
    if (kind == "server") != (url is not None):
        raise typer.BadParameter("goes with --engine server, and that with it", param_hint="--url")
    if kind == "server" and options is not None:
        raise typer.BadParameter(
            "a server is sent whole recordings; score windows with --engine local or ray", param_hint="--window"
        )
    scorer: Engine
    if kind == "server":
        from dimml_client.scoring.engines.remote import ServerEngine

        scorer = ServerEngine(url or "", model, version, in_flight=in_flight, credentials=credentials.read())
    elif kind == "ray":
        from dimml_client.scoring.engines.ray import RayEngine

        scorer = RayEngine(
            repository,
            model,
            version,
            address=ray_address,
            workers=workers,
            machine_cores=cores or usable_cores(),
            window=options,
        )
    else:
        scorer = LocalEngine(repository, model, version, cores=cores or usable_cores(), window=options)
    aggregation = cast("Aggregation | None", aggregate)
    result = score_table(scorer, listing, table, aggregation=aggregation, quiet=quiet)
    if report is not None and result.complete:
        from dimml_client.scoring.report.html import write_report
        from dimml_client.scoring.report.metrics import judge_table

        write_report(judge_table(table), table, report)
    code = result.summary.exit_code(fail_on) if result.complete else EXIT_INTERRUPTED
    if as_json:
        typer.echo(result_json(result, table, listing.repeated, code))
    elif not quiet:
        from rich.console import Console

        print_summary(result, table, Console(stderr=True))
    raise typer.Exit(code)


def _windows(window: float | None, stride: float | None) -> WindowOptions | None:
    from dimml_client.scoring.engines.decode_request import WindowOptions

    for name, value in (("--window", window), ("--stride", stride)):
        if value is not None and not 0.0 < value < math.inf:
            raise typer.BadParameter(f"must be above 0 seconds, got {value:g}", param_hint=name)
    if window is None:
        if stride is not None:
            raise typer.BadParameter("goes with --window", param_hint="--stride")
        return None
    return WindowOptions(window, stride or window)


def plot(
    timeline: Annotated[Path, typer.Argument(metavar="TIMELINE", help="A table that `dimml score --window` wrote.")],
    *,
    out: Annotated[
        Path | None, typer.Option("--out", help="The picture, .png, .svg or .pdf; by default the table's name.svg.")
    ] = None,
    recording: Annotated[
        str | None, typer.Option("--id", help="Which recording; may be left out where there is only one.")
    ] = None,
) -> None:
    """Draw label, certainty and weight of each modality over time."""
    from dimml_client.scoring.report.timeline_plot import draw, read_timeline

    picture = out or timeline.with_suffix(".svg")
    draw(read_timeline(timeline, recording), picture)
    typer.echo(f"written: {picture}", err=True)
