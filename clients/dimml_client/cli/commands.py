"""Subcommands of ``dimml`` that this component brings; heavy imports stand inside the functions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dimml.request_parameters import Explain
from dimml_client.cli.options import DEFAULT_URL, AudioTrack, CredentialFiles, VideoTrack, with_credentials


def register(app: typer.Typer) -> None:
    """Add this component's subcommands."""
    app.command("predict")(predict)
    app.command("demo")(demo)
    from dimml_client.cli.models import build

    app.add_typer(build(), name="models")


def demo(
    *,
    http_port: Annotated[
        int,
        typer.Option("--http-port", min=1, max=65535, envvar="DEMO_HTTP_PORT", help="HTTP port of the server."),
    ] = 8000,
    grpc_port: Annotated[
        int, typer.Option("--grpc-port", min=1, max=65535, envvar="DEMO_GRPC_PORT", help="Its gRPC port.")
    ] = 8001,
    keep: Annotated[bool, typer.Option("--keep", help="Keep serving until Ctrl-C, to try it.")] = False,
    repository: Annotated[
        Path | None, typer.Option("--repository", help="Model repository to serve; by default the demo's.")
    ] = None,
    samples: Annotated[
        Path | None, typer.Option("--samples", help="Folder of clips with samples.csv; by default the demo's.")
    ] = None,
) -> None:
    """Serve the demo bundle, predict sample clips over HTTP and gRPC, and show the answers.

    Exits with 0 when every answer came over both transports with the label and the statuses that samples.csv expects.
    """
    from dimml_client.demo import files
    from dimml_client.demo.show import run_demo

    repository = repository or files.demo_folder(files.REPOSITORY)
    samples = samples or files.demo_folder(files.SAMPLES)
    if not run_demo(repository, samples, http_port, grpc_port, keep=keep):
        raise typer.Exit(1)


@with_credentials
def predict(
    files: Annotated[list[Path] | None, typer.Argument(metavar="FILE...", help="Recordings to predict.")] = None,
    *,
    url: Annotated[
        str | None,
        typer.Option(
            "--url", help=f"A running server: http(s)://host:port or grpc(s)://host:port. [default: {DEFAULT_URL}]"
        ),
    ] = None,
    repository: Annotated[
        Path | None, typer.Option("--repository", help="Predict in this process with this model repository instead.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="The bundle; may be left out if there is only one.")
    ] = None,
    version: Annotated[
        int | None,
        typer.Option("--version", min=1, help="Version of the bundle; by default the server's choice, or the newest."),
    ] = None,
    route_key: Annotated[
        str | None,
        typer.Option("--route-key", help="If several versions answer, the same key always gets the same one."),
    ] = None,
    start: Annotated[
        float | None, typer.Option("--start", min=0.0, help="Start of the time range to predict, in seconds.")
    ] = None,
    end: Annotated[float | None, typer.Option("--end", min=0.0, help="Its end, in seconds.")] = None,
    audio_track: AudioTrack = None,
    video_track: VideoTrack = None,
    explain: Annotated[
        Explain | None,
        typer.Option("--explain", help="Why: what each modality contributed; with occlusion, which stretches of time."),
    ] = None,
    damage: Annotated[
        list[str] | None,
        typer.Option(
            "--damage",
            metavar="MODALITY:KIND:AMOUNT",
            help="What if: damage before the encoders, such as audio:noise:-10 or visual:cover:0.5; repeatable.",
        ),
    ] = None,
    abstain_below: Annotated[
        float | None,
        typer.Option("--abstain-below", min=0.0, max=1.0, help="Abstain where the answer is less probable than this."),
    ] = None,
    max_set_size: Annotated[
        int | None,
        typer.Option("--max-set-size", min=1, help="Abstain where the prediction set has more labels than this."),
    ] = None,
    top_k: Annotated[int | None, typer.Option("--top-k", min=1, help="How many classes to list in --json.")] = None,
    modality: Annotated[
        list[str] | None,
        typer.Option("--modality", metavar="NAME=FILE", help="A modality's own file; FILE serves the others."),
    ] = None,
    credentials: CredentialFiles,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line instead of a table.")] = False,
) -> None:
    """Predict recordings, on a server or in this process.

    Exit code 0: all answered; 1: some file got an error instead, shown in its row; 2: wrong usage.
    """
    own_files = _own_files(modality or [])
    if not files and not own_files:
        raise typer.BadParameter("give at least one recording", param_hint="FILE...")
    if own_files and len(files or []) > 1:
        raise typer.BadParameter("goes with at most one FILE", param_hint="--modality")
    if url is not None and repository is not None:
        raise typer.BadParameter("give --url or --repository, not both", param_hint="--repository")

    if route_key is not None and repository is not None:
        raise typer.BadParameter("goes with a server; here --version chooses", param_hint="--route-key")

    from rich.console import Console
    from rich.progress import track

    from dimml_client.cli.predict import PredictOptions, answers, inputs_of, local, remote
    from dimml_client.cli.table import PIPE_WIDTH, print_predictions

    inputs = inputs_of(files or [], own_files)
    options = PredictOptions(
        model=model,
        version=version,
        route_key=route_key,
        start_s=start,
        end_s=end,
        top_k=top_k,
        audio_track=audio_track,
        video_track=video_track,
        explain=explain,
        damage=",".join(damage) if damage else None,
        abstain_below=abstain_below,
        max_set_size=max_set_size,
    )
    if repository is None:
        source = remote(url or DEFAULT_URL, credentials.read(), options)
    else:
        source = local(repository, options)
    done = []
    with source as predict_job:
        progress = Console(stderr=True)
        hidden = as_json or len(inputs) == 1 or not progress.is_terminal
        for answered in track(
            answers(predict_job, inputs),
            "predicting",
            len(inputs),
            console=progress,
            transient=True,
            disable=hidden,
        ):
            done.append(answered)
            if as_json:
                typer.echo(answered.as_json())
    if not as_json:
        console = Console()
        if not console.is_terminal:
            console = Console(width=PIPE_WIDTH)
        print_predictions(done, console)
    if any(answered.error is not None for answered in done):
        raise typer.Exit(1)


def _own_files(options: list[str]) -> dict[str, Path]:
    own_files = {}
    for option in options:
        name, equals, path = option.partition("=")
        if not (name and equals and path):
            raise typer.BadParameter(f"{option!r}: write it as NAME=FILE", param_hint="--modality")
        if name in own_files:
            raise typer.BadParameter(f"{name!r} is given twice", param_hint="--modality")
        own_files[name] = Path(path)
    return own_files
