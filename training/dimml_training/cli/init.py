"""``dimml init``: a first config for a table of clips; heavy imports are inside the function."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated

import typer

from dimml_training.cli.console import progress_bar

if TYPE_CHECKING:
    from dimml_training.first_config.start import FirstConfig

#: Most classes listed with their counts.
_NAMED = 12


def init(
    table: Annotated[Path, typer.Argument(help="CSV or Parquet with a line per clip: a file and its class.")],
    *,
    out: Annotated[Path | None, typer.Option(help="Where the config is written; by default <name>.yaml, here.")] = None,
    label: Annotated[str | None, typer.Option(help="Column of the class, if the table leaves doubt.")] = None,
    media_root: Annotated[
        Path | None, typer.Option(help="Folder that paths in the table start in; by default its own, or one in it.")
    ] = None,
    minutes: Annotated[
        float, typer.Option(min=1.0, help="A training that would take longer here gets fewer epochs.")
    ] = 30.0,
) -> None:
    """Look at a table of clips and write a first config for it, with an estimate of the training's time.

    Finds the columns of files, class, split, subject and time range, decodes a sample of the clips, chooses sizes that
    suit the data and this machine, and measures a few training steps. If rows cannot be used, or have no split, a table
    of those that can is written beside the config.
    """
    from dimml_training.first_config.start import write_first_config

    with progress_bar("decoding a sample") as progress:
        first = write_first_config(
            table,
            out,
            label=label,
            media_root=media_root,
            minutes=minutes,
            progress=progress,
            tell=lambda line: typer.echo(line, err=True),
        )
    for line in _lines(first):
        typer.echo(line)


def _lines(first: FirstConfig) -> list[str]:
    from dimml_training.config import SPLITS
    from dimml_training.first_config.start import reasons, unlisted_files

    table, columns, sizes = first.table, first.table.columns, first.sizes
    classes = Counter(row.label for row in first.rows)
    listed = ", ".join(f"{name} {count}" for name, count in classes.most_common(_NAMED))
    more = f" and {len(classes) - _NAMED} more" if len(classes) > _NAMED else ""
    splits = ", ".join(f"{split} {first.clips(split)}" for split in SPLITS)
    where = (
        "made here"
        if columns.split is None
        else f"column {columns.split}" + (", completed here" if first.splits_made else "")
    )
    lines = [
        f"{table.path}: {len(table.lines)} rows, media beneath {table.root}",
        f"  media    {', '.join(columns.media)}: {_media(first)}",
        f"  class    {columns.label}: {len(classes)} classes: {listed}{more}",
        f"  split    {where}: {splits}",
    ]
    if columns.subject is not None:
        subjects = len({row.subject for row in first.rows if row.subject})
        lines.append(f"  subject  {columns.subject}: {subjects}")
    if columns.start_s is not None:
        lines.append(f"  range    {columns.start_s} to {columns.end_s}, seconds")
    if first.left_out:
        counted = ", ".join(f"{count} {reason}" for reason, count in reasons(first.left_out).most_common(6))
        lines.append(f"  left out {len(first.left_out)} rows ({counted}): see {first.left_out_path}")
    unlisted = unlisted_files(table)
    if unlisted:
        lines.append(f"  beside   {unlisted} media files are in no row")
    lines += [f"warning: {warning}" for warning in first.warnings]
    if first.own_table is not None:
        lines.append(f"table:  {first.own_table}, the {len(first.rows)} rows to train on")
    sound = f"sound at {sizes.sound.rate_hz} Hz" if sizes.sound is not None else ""
    size = sizes.pictures
    pictures = f"{size.frames} pictures of {size.height}x{size.width}" if size is not None else ""
    clip = f"clips of {sizes.clip_s:g} s: " if sizes.clip_s is not None else ""
    lines += [
        f"config: {first.config_path}, {clip}{', '.join(filter(None, (sound, pictures)))}; {sizes.epochs} epochs",
        f"time:   {first.estimate.as_text()} on this machine",
        f"next:   dimml train {first.config_path}",
        f"then:   dimml export runs/{first.config.name} --repository models && dimml serve --repository models",
    ]
    return lines


def _media(first: FirstConfig) -> str:
    sizes = first.sizes
    lengths = [length for sample in first.media.columns.values() for length in sample.lengths_s]
    parts = [f"{name} {text}" for name, text in sizes.native.items()]
    if lengths:
        what = "ranges" if first.table.columns.start_s is not None else "recordings"
        parts.insert(0, f"{what} of {min(lengths):.3g} to {max(lengths):.3g} s, median {median(lengths):.3g}")
    return "; ".join(parts)
