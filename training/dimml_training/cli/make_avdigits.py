"""``dimml make-avdigits``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def make_avdigits(
    out: Annotated[Path, typer.Option("--out", help="Folder for the clips and manifest.csv; created if missing.")],
    clips: Annotated[int, typer.Option("--clips", min=20, help="Number of clips; 7 of 10 are for training.")] = 3000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Same seed, same clips.")] = 1,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Worker processes.")] = 2,
) -> None:
    """Make the AVDIGITS data set: ten digits, spoken by eSpeak NG and handwritten, as small MP4 clips.

    Works offline. After an interruption, another call continues where it stopped.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from dimml_training.avdigits.make import make_avdigits as make

    columns = (TextColumn("clips"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as bar:
        task = bar.add_task("clips", total=clips)
        table = make(out, clips=clips, seed=seed, jobs=jobs, progress=lambda done: bar.advance(task, done))
    typer.echo(str(table))
