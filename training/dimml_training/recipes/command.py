"""``dimml make-manifest NAME``: one subcommand per recipe; heavy imports stand inside the functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from dimml_training.recipes.table import Listing

Root = Annotated[Path, typer.Option("--root", help="Folder of the data set, in the layout of docs/data.md.")]
Out = Annotated[Path, typer.Option("--out", help="The manifest, a CSV file.")]
AllowMissing = Annotated[
    bool, typer.Option("--allow-missing", help="Leave out clips without a file; <out>.missing.csv lists them.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of what is taken for validation.")]
MediaOut = Annotated[Path, typer.Option("--media-out", help="Folder for the media that this recipe makes.")]


def make_manifest_app() -> typer.Typer:
    """The group of subcommands."""
    app = typer.Typer(
        help="List a public data set's clips in a manifest that `dimml train` reads (docs/data.md).",
        no_args_is_help=True,
    )
    app.command("grid")(grid)
    app.command("avmnist")(avmnist)
    app.command("modelnet")(modelnet)
    return app


def grid(
    root: Root,
    out: Out,
    *,
    word: Annotated[
        Literal["digit", "letter", "colour", "command", "preposition", "adverb"],
        typer.Option(help="Which word is the class."),
    ] = "digit",
    folds: Annotated[
        Path | None, typer.Option(help="clip,fold: adds fold_0 to fold_4 for cross-validation; training/folds has it.")
    ] = None,
    allow_missing: AllowMissing = False,
) -> None:
    """GRID corpus, one talker: sound and face of a word."""
    from dimml_training.recipes.grid import list_grid

    _write(list_grid(root, word, folds), root, out, allow_missing)


def avmnist(
    root: Root,
    out: Out,
    media_out: MediaOut,
    *,
    hard: Annotated[bool, typer.Option("--hard", help="Vielzeuf et al. 2018: blurred pictures, noisy sound.")] = False,
    seed: Seed = 0,
) -> None:
    """AV-MNIST: written digits (MNIST) and spoken ones (FSDD), paired by label."""
    from dimml_training.recipes.avmnist import make_avmnist

    with _bar("pairs") as progress:
        listing = make_avmnist(root, media_out, hard=hard, seed=seed, progress=progress)
    _write(listing, media_out, out, False)


def modelnet(root: Root, out: Out, *, seed: Seed = 0, allow_missing: AllowMissing = False) -> None:
    """ModelNet10 or ModelNet40 as pictures: front and rear view."""
    from dimml_training.recipes.modelnet import list_modelnet

    _write(list_modelnet(root, seed=seed), root, out, allow_missing)


def _write(listing: Listing, root: Path, out: Path, allow_missing: bool) -> None:
    from dimml_training.recipes.table import write_manifest

    written = write_manifest(listing, root, out, allow_missing=allow_missing)
    for warning in written.warnings:
        typer.echo(f"warning: {warning}", err=True)
    if written.missing:
        typer.echo(
            f"warning: {written.missing} clips have no file and are left out, see {out.with_suffix('.missing.csv')}",
            err=True,
        )
    splits = ", ".join(f"{split} {count}" for split, count in written.by_split.items())
    typer.echo(f"{out}: {written.clips} clips of {written.classes} classes; {splits}; media root {root}")


@contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (*Progress.get_default_columns()[:-1], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
