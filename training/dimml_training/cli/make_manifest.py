"""``dimml make-manifest NAME``: one subcommand per recipe; heavy imports are inside the functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dimml.errors import ConfigurationError

if TYPE_CHECKING:
    from dimml_training.recipes.table import Listing

Root = Annotated[Path, typer.Option("--root", help="Folder of the data set, in the layout of docs/data.md.")]
Out = Annotated[
    Path, typer.Option("--out", dir_okay=False, help="The clip table: a CSV file, or Parquet if it ends in .parquet.")
]
AllowMissing = Annotated[
    bool, typer.Option("--allow-missing", help="Leave out clips without a file; <out>.missing.csv lists them.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of the random choices, such as the validation split.")]
MediaOut = Annotated[Path, typer.Option("--media-out", help="Folder for the media that this recipe makes.")]


Lists = Annotated[Path | None, typer.Option("--lists", help="Folder of the official lists, if not in the root.")]


def make_manifest_app() -> typer.Typer:
    """Build the group of subcommands."""
    app = typer.Typer(
        help="List a public data set's clips in a table that `dimml train` reads (docs/data.md).",
        no_args_is_help=True,
    )
    app.command("grid")(grid)
    app.command("avmnist")(avmnist)
    app.command("modelnet")(modelnet)
    app.command("crema-d")(crema_d)
    app.command("ave")(ave)
    app.command("kinetics-sounds")(kinetics_sounds)
    app.command("ucf101")(ucf101)
    app.command("utd-mhad")(utd_mhad)
    return app


def grid(
    root: Root,
    out: Out,
    *,
    word: Annotated[
        Literal["digit", "letter", "colour", "command", "preposition", "adverb", "all"],
        typer.Option(help="The word that is the class; all: a row for each word of a sentence."),
    ] = "digit",
    folds: Annotated[
        Path | None,
        typer.Option(help="CSV of clip,fold, as in training/folds: adds fold_0 to fold_4 for cross-validation."),
    ] = None,
    seed: Seed = 0,
    allow_missing: AllowMissing = False,
) -> None:
    """GRID corpus, as published (.mpg and .align) or with a labels.csv: sound and face of a word."""
    from dimml_training.recipes.grid import list_grid

    _write(list_grid(root, word, folds, seed=seed), root, out, allow_missing)


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


def crema_d(
    root: Root,
    out: Out,
    *,
    paper_lists: Annotated[
        Path | None, typer.Option(help="Folder of the paper's train.csv and test.csv, in which actors overlap.")
    ] = None,
    seed: Seed = 0,
    allow_missing: AllowMissing = False,
) -> None:
    """CREMA-D: acted emotions, sound and face; split by actor."""
    from dimml_training.recipes.crema_d import list_crema_d

    _write(list_crema_d(root, seed=seed, paper_lists=paper_lists), root, out, allow_missing)


def utd_mhad(
    root: Root,
    out: Out,
    *,
    validation_subject: Annotated[
        int, typer.Option(help="The training subject, 1, 3, 5 or 7, whose recordings validate.")
    ] = 7,
    allow_missing: AllowMissing = False,
) -> None:
    """UTD-MHAD: actions, a depth camera and an inertial sensor; split by person."""
    from dimml_training.recipes.utd_mhad import list_utd_mhad

    _write(list_utd_mhad(root, validation_subject=validation_subject), root, out, allow_missing)


def ave(root: Root, out: Out, *, lists: Lists = None, allow_missing: AllowMissing = False) -> None:
    """AVE: audio-visual events."""
    from dimml_training.recipes.ave import list_ave

    _write(list_ave(root, lists=lists), root, out, allow_missing)


def kinetics_sounds(
    root: Root,
    out: Out,
    *,
    annotations: Annotated[
        Path | None, typer.Option(help="Folder of Kinetics-400's CSV files; by default the root.")
    ] = None,
    classes: Annotated[
        Path | None, typer.Option(help="File with a class per line; by default the usual 31 of Kinetics-400.")
    ] = None,
    seed: Seed = 0,
    allow_missing: AllowMissing = False,
) -> None:
    """Kinetics-Sounds: actions that can be seen and heard."""
    from dimml_training.recipes.kinetics_sounds import list_kinetics_sounds

    listing = list_kinetics_sounds(root, annotations=annotations, classes=classes, seed=seed)
    _write(listing, root, out, allow_missing)


def ucf101(
    root: Root,
    out: Out,
    *,
    lists: Lists = None,
    flow: Annotated[
        Path | None,
        typer.Option(help="Folder of u/ and v/ with precomputed flow; by default it is computed while decoding (DIS)."),
    ] = None,
    media_out: Annotated[Path | None, typer.Option(help="With --flow: folder for the packed flow.")] = None,
    flow_frames: Annotated[int, typer.Option(min=1, help="With --flow: pairs kept of each clip.")] = 10,
    flow_consecutive: Annotated[
        bool,
        typer.Option("--flow-consecutive", help="With --flow: keep consecutive pairs from the middle of the clip."),
    ] = False,
    flow_height: Annotated[int, typer.Option(min=8, help="With --flow: scale higher pictures down to this.")] = 112,
    seed: Seed = 0,
    allow_missing: AllowMissing = False,
) -> None:
    """UCF-101: picture and optical flow; all three official splits in one table."""
    from dimml_training.recipes.ucf101 import list_ucf101, pack_flow

    if flow_consecutive and flow is None:
        raise ConfigurationError("--flow-consecutive chooses among the pairs of --flow", field="--flow-consecutive")
    listing = list_ucf101(root, lists=lists, seed=seed)
    if flow is not None:
        if media_out is None:
            raise ConfigurationError(
                "--flow packs the pairs: name a folder for them by --media-out", field="--media-out"
            )
        with _bar("clips") as progress:
            listing = pack_flow(
                listing,
                flow,
                media_out,
                frames=flow_frames,
                height=flow_height,
                consecutive=flow_consecutive,
                progress=progress,
            )
    _write(listing, root, out, allow_missing)


def _write(listing: Listing, root: Path, out: Path, allow_missing: bool) -> None:
    from dimml_training.config import SPLITS
    from dimml_training.recipes.table import write_clip_table

    written = write_clip_table(listing, root, out, allow_missing=allow_missing)
    for warning in written.warnings:
        typer.echo(f"warning: {warning}", err=True)
    if written.missing:
        typer.echo(
            f"warning: {written.missing} clips have no file and are left out, see {out.with_suffix('.missing.csv')}",
            err=True,
        )
    typer.echo(f"{out}: {written.clips} clips of {written.classes} classes, media beneath {root}")
    for column, counts in written.splits.items():
        typer.echo(f"  {column}: " + ", ".join(f"{split} {counts.get(split, 0)}" for split in SPLITS))


@contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Progress bar on stderr."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (*Progress.get_default_columns()[:-1], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
