"""``dimml build-plans``: a separate component, since a serving host has neither torch nor the training code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from dimml_export.tensorrt.plans import BuiltPlan


def register(app: typer.Typer) -> None:
    """Add this component's subcommands."""
    app.command("build-plans")(build_plans)


def build_plans(
    repository: Annotated[Path, typer.Argument(help="Model repository that will be served.", metavar="REPOSITORY")],
    *,
    bundle: Annotated[
        str | None, typer.Option(help="Only this bundle; by default all that were exported with --tensorrt plan.")
    ] = None,
    version: Annotated[int | None, typer.Option(help="By default the newest.", min=1)] = None,
    fp16: Annotated[
        bool,
        typer.Option(
            "--fp16/--fp32",
            help="FP16 with spectrogram, normalisation and the logits' layer in FP32; or all in FP32.",
        ),
    ] = True,
    timing_cache: Annotated[
        Path | None,
        typer.Option(help="File in which TensorRT keeps measurements between builds; by default in the repository."),
    ] = None,
    workspace: Annotated[
        int, typer.Option(help="GPU memory that TensorRT may use to try kernels, in MiB.", min=1, metavar="MIB")
    ] = 1024,
    force: Annotated[bool, typer.Option("--force", help="Rebuild existing plans, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was built as JSON.")] = False,
) -> None:
    """Build TensorRT plans of a bundle's encoders, on the host that serves them.

    A plan fits one GPU and one version of TensorRT: run this where Triton will
    run, with its TensorRT. Each plan is compared with ONNX Runtime on real
    clips that lie beside the model; one that differs is not written. What is
    built already is kept, so a build that was stopped can be started again.
    """
    from rich.console import Console

    from dimml_export.tensorrt.builder import TensorRTBuilder
    from dimml_export.tensorrt.plans import PlanOptions
    from dimml_export.tensorrt.plans import build_plans as build

    options = PlanOptions("fp16" if fp16 else "fp32", workspace * 2**20, timing_cache, force)
    with Console(stderr=True).status("checking TensorRT and the GPU") as status:
        done = build(repository, TensorRTBuilder(), options, name=bundle, version=version, say=status.update)
    if as_json:
        typer.echo(json.dumps([plan.as_dict() for plan in done], indent=2))
    else:
        _show(done)


def _show(done: list[BuiltPlan]) -> None:
    from rich.console import Console
    from rich.table import Table

    from dimml.contract import LOGITS

    console = Console(highlight=False)
    table = Table("plan", "", "MB", "precision", "largest logit difference", box=None, pad_edge=False)
    for plan in done:
        record = plan.record
        difference = f"{record.parity[LOGITS]:.1e}"
        table.add_row(plan.model, plan.outcome, f"{plan.megabytes:.2f}", record.precision, difference)
    first = done[0].record
    console.print(f"TensorRT {first.tensorrt}, {first.gpu} ({first.compute_capability})", soft_wrap=True)
    console.print(table)
