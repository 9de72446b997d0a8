"""Subcommands of ``dimml`` that this component brings; heavy imports stand inside the functions."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dimml.errors import ConfigurationError, InvalidParameterError

if TYPE_CHECKING:
    from dimml.request_parameters import Abstention


def register(app: typer.Typer) -> None:
    """Add this component's subcommands."""
    app.command("export")(export)


def export(
    run: Annotated[Path, typer.Argument(help="Directory of a finished training run.", metavar="RUN")],
    repository: Annotated[
        Path, typer.Option("--repository", "-r", help="Model repository to add the bundle to; made if missing.")
    ],
    *,
    name: Annotated[str | None, typer.Option(help="Name of the bundle; by default the run's.")] = None,
    description: Annotated[
        str, typer.Option(help="What the bundle is for, in its manifest and in GET /v1/models.")
    ] = "",
    deadline_ms: Annotated[
        list[str] | None,
        typer.Option(
            help="Time limit of an encoder's call, such as audio=500; once per modality. By default 2000.",
            metavar="MODALITY=MS",
        ),
    ] = None,
    abstain_below: Annotated[
        float | None,
        typer.Option(help="Answers less probable than this abstain, unless a request gives its own limit; 0 to 1."),
    ] = None,
    max_set_size: Annotated[
        int | None,
        typer.Option(help="Answers with more labels in their set abstain, unless a request gives its own limit."),
    ] = None,
    tensorrt: Annotated[
        Literal["accelerator", "plan"] | None,
        typer.Option(
            help="How encoders use TensorRT: by ONNX Runtime's provider, or as plans that `dimml build-plans` builds "
            "on the host that serves.",
        ),
    ] = None,
    precision: Annotated[
        Literal["fp32", "fp16", "int8"],
        typer.Option(
            help="Arithmetic of the encoders: int8 for processors with VNNI or AMX, fp16 for GPUs. Below fp32 the "
            "version in fp32 is written too, unless it is there, and the run's clips are read, to calibrate and judge."
        ),
    ] = "fp32",
    calibration_clips: Annotated[
        int,
        typer.Option(
            help="With --precision int8: training clips that give the ranges of activations, and validation clips on "
            "which the fusion is fitted again.",
            metavar="N",
        ),
    ] = 200,
    cache_dir: Annotated[
        Path | None,
        typer.Option(
            help="With --precision: where decoded clips are kept; by default $XDG_CACHE_HOME/dimml or ~/.cache/dimml."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was written as JSON.")] = False,
) -> None:
    """Export a training run as a bundle that `dimml serve` and Triton load.

    Every encoder and the fusion become ONNX models. On the run's sample clips
    at batch 1, 3 and 8 each encoder, and all encoders with the fusion, are
    compared with torch; the fusion also with its statement in numpy, for every
    set of lost modalities. Unless all labels are equal and all logits within
    0.001, nothing is written. An existing bundle of the same name gets a new
    version beside the old ones.

    With `--precision` int8 or fp16 nothing is written either if, on validation
    clips, any head or the answer loses more than half a point of accuracy, or
    the answer's calibration error rises by more than 0.01.
    """
    from rich.console import Console

    from dimml_export.export import export_run
    from dimml_export.summary import show_exported

    deadlines = dict(_deadline(given) for given in deadline_ms or ())
    with Console(stderr=True).status("loading the run") as status:
        exported = export_run(
            run,
            repository,
            name=name,
            description=description,
            deadlines_ms=deadlines,
            tensorrt=tensorrt,
            precision=precision,
            calibration_clips=calibration_clips,
            cache_dir=cache_dir,
            abstain=_abstention(abstain_below, max_set_size),
            say=status.update,
        )
    if as_json:
        typer.echo(json.dumps(exported.as_dict(), indent=2))
    else:
        show_exported(exported)
        if tensorrt == "plan":
            typer.echo(f"on the host that serves: dimml build-plans {exported.repository}")


def _deadline(given: str) -> tuple[str, float]:
    modality, _, limit = given.partition("=")
    try:
        limit_ms = float(limit)
    except ValueError:
        limit_ms = math.nan
    if not modality or not 0 < limit_ms < math.inf:
        raise ConfigurationError(
            f"--deadline-ms {given}: give a modality and milliseconds above 0, such as audio=500", field="deadline_ms"
        )
    return modality, limit_ms


def _abstention(below: float | None, largest: int | None) -> Abstention:
    from dimml.request_parameters import Abstention

    try:
        return Abstention(below, largest)
    except InvalidParameterError as error:
        raise ConfigurationError(f"--{error.message.replace('_', '-', 2)}", field=error.field) from error
