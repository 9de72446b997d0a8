"""Subcommands of ``dimml`` that this component brings; heavy imports stand inside the functions."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dimml.errors import ConfigurationError
from dimml_training.avdigits.command import make_avdigits
from dimml_training.compare.command import compare
from dimml_training.recipes.command import make_manifest_app

if TYPE_CHECKING:
    from dimml_training.evaluation import HeadLogits
    from dimml_training.manifest import Clip

CacheDir = Annotated[
    Path | None,
    typer.Option(help="Where decoded clips are kept; by default $XDG_CACHE_HOME/dimml or ~/.cache/dimml."),
]


def register(app: typer.Typer) -> None:
    """Add this component's subcommands."""
    app.command("train", help="Train detached encoders and a fused head from a config; write a run directory.")(train)
    app.command("evaluate", help="Score a trained run on one of its splits, clean or with noise on the sound.")(
        evaluate
    )
    app.command("compare", help="Train and score many methods on one data set; write one table of all.")(compare)
    app.command("make-avdigits")(make_avdigits)
    app.add_typer(make_manifest_app(), name="make-manifest")


def train(
    config: Annotated[Path, typer.Argument(help="YAML config, see docs/training.md.")],
    *,
    out: Annotated[Path | None, typer.Option(help="Run directory; by default runs/<name>.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    override: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a field: stage1.epochs=10.")
    ] = None,
    cache_dir: CacheDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the metrics as JSON.")] = False,
) -> None:
    from dimml_training.cache import default_cache_dir
    from dimml_training.config import load_config
    from dimml_training.training import train as run_training

    settings = load_config(config, override or ())
    folder = Path("runs") / settings.name if out is None else out
    with _decoding_bar() as progress:
        metrics = run_training(
            settings,
            folder,
            cache_dir=cache_dir or default_cache_dir(),
            resume=resume,
            progress=progress,
            tell=lambda line: typer.echo(line, err=True),
            bar=sys.stderr.isatty(),
        )
    if as_json:
        typer.echo(json.dumps({"run": str(folder), **metrics}, indent=2))
        return
    for split, found in metrics.items():
        _show(f"{split}, {found['clips']} clips", found)
    typer.echo(f"run directory: {folder}")


def evaluate(
    run: Annotated[Path, typer.Argument(help="Run directory of a finished training.")],
    *,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    noise_db: Annotated[
        list[float] | None,
        typer.Option(help="Also score with white noise on the sound at this signal-to-noise ratio; repeatable."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the noise.")] = 0,
    cache_dir: CacheDir = None,
    predictions: Annotated[
        Path | None, typer.Option(help="Write one CSV row per clip, of the clean clips: what a server must answer.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    from dimml_training.cache import default_cache_dir
    from dimml_training.config import SPLITS
    from dimml_training.evaluation import figures, fused_answer, head_logits
    from dimml_training.prepare import prepare
    from dimml_training.run_directory import load_run

    chosen = next((known for known in SPLITS if known == split), None)
    if chosen is None:
        raise ConfigurationError(f"--split {split}: choose one of {', '.join(SPLITS)}", field="--split")
    trained = load_run(run)
    with _decoding_bar() as progress:
        data = prepare(
            trained.config, cache_dir or default_cache_dir(), splits=(chosen,), labels=trained.labels, progress=progress
        )
    clips = data.splits[chosen]
    # Only training sees all splits' files, so only its run knows of recordings that stand in several.
    warnings = list(dict.fromkeys([*trained.training.get("warnings", ()), *data.warnings]))
    answer: dict[str, Any] = {"run": str(run), "split": split, "warnings": warnings, "conditions": {}}
    for noise in (None, *(noise_db or ())):
        votes = head_logits(
            trained.encoders,
            trained.fused_head,
            trained.modalities,
            clips.rows,
            trained.quality,
            joint_head=trained.joint_head,
            own_heads=trained.own_heads,
            noise_db=noise,
            seed=seed,
        )
        found = figures(votes, fused_answer(votes, trained.fusion), trained.labels)
        answer["conditions"]["clean" if noise is None else f"white_{noise:g}db"] = found
        if noise is None and predictions is not None:
            _write_predictions(predictions, clips.clips, votes, fused_answer(votes, trained.fusion), trained.labels)
    if as_json:
        typer.echo(json.dumps(answer, indent=2))
        return
    for warning in warnings:
        typer.echo(f"warning: {warning}", err=True)
    for condition, found in answer["conditions"].items():
        _show(f"{split}, {condition}, {found['clips']} clips", found)


def _write_predictions(path: Path, clips: list[Clip], votes: HeadLogits, fused: Any, labels: tuple[str, ...]) -> None:
    from dimml_training.evaluation import head_probabilities

    own = head_probabilities(votes)
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            media = list(clips[0].media)
            writer.writerow(
                [
                    *(f"path_{name}" for name in media),
                    *("start_s", "end_s", "label", "predicted"),
                    *(f"probability_{label}" for label in labels),
                    *(f"{what}_{head}" for head in votes.heads for what in ("label", "probability", "weight")),
                ]
            )
            for row, clip in enumerate(clips):
                heads = []
                for index in range(len(votes.heads)):
                    vote = int(own[row, index].argmax())
                    heads += [labels[vote], f"{own[row, index, vote]:.6f}", f"{fused.weights_BH[row, index]:.6f}"]
                writer.writerow(
                    [
                        *(str(clip.media[name]) for name in media),
                        *("" if value is None else str(value) for value in (clip.start_s, clip.end_s)),
                        clip.label,
                        labels[int(fused.logits_BC[row].argmax())],
                        *(f"{p:.6f}" for p in fused.probabilities_BC[row]),
                        *heads,
                    ]
                )
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror}", field="--predictions") from error


def _show(title: str, found: dict[str, Any]) -> None:
    """One table of figures."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in ("head", "accuracy", "macro-F1", "mean weight"):
        table.add_column(column, justify="left" if column == "head" else "right")
    for head, own in found["heads"].items():
        table.add_row(head, f"{own['accuracy']:.1%}", f"{own['macro_f1']:.3f}", f"{own['mean_weight']:.2f}")
    table.add_section()
    table.add_row("answer", f"{found['accuracy']:.1%}", f"{found['macro_f1']:.3f}", "")
    Console().print(table)


@contextmanager
def _decoding_bar() -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr that appears when the first clip has been decoded, and goes when all have."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    bar = Progress(
        *Progress.get_default_columns()[:-1], MofNCompleteColumn(), TimeRemainingColumn(), console=Console(stderr=True)
    )
    task = None

    def progress(done: int, total: int) -> None:
        nonlocal task
        if task is None:
            bar.start()
            task = bar.add_task("decoding clips", total=total)
        bar.update(task, completed=done)
        if done == total:
            bar.stop()

    try:
        yield progress
    finally:
        bar.stop()
