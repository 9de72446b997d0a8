"""``dimml select`` and ``dimml read-labels``; heavy imports stand inside the functions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dimml.errors import ConfigurationError

if TYPE_CHECKING:
    pass


def register(app: typer.Typer) -> None:
    """Add these subcommands."""
    app.command("select")(select)
    app.command("read-labels")(read_labels)


def select(
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="A table that `dimml score` wrote.")],
    *,
    budget: Annotated[int, typer.Option("--budget", min=1, help="How many recordings can be labelled.")],
    out: Annotated[
        Path, typer.Option("--out", metavar="FOLDER", help="Gets tasks.json, interface.xml and selection.json.")
    ],
    random_share: Annotated[
        float,
        typer.Option("--random-share", min=0.0, max=1.0, help="Share of the budget drawn by lot, to measure by."),
    ] = 0.2,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the lot.")] = 0,
    without: Annotated[
        list[Path] | None,
        typer.Option(
            "--without", help="selection.json of an earlier round, whose recordings are left out; repeatable."
        ),
    ] = None,
    media_url: Annotated[
        str | None,
        typer.Option(
            "--media-url", help="What Label Studio finds recordings below, such as /data/local-files/?d= or a URL."
        ),
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option("--root", help="The folder that --media-url stands for; by default none."),
    ] = None,
    player: Annotated[
        str | None, typer.Option("--player", help="video, audio or image; by default what the files' names say.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The counts as JSON.")] = False,
) -> None:
    """Pick the recordings of a score table that are worth a label, as tasks for Label Studio.

    Abstained, disputed among the modalities, or unsure; unlike each other, over all labels; and a share by lot, which
    alone says how accurate the bundle is.
    """
    from dimml_client.labelling.candidates import read_candidates
    from dimml_client.labelling.choosing import choose
    from dimml_client.labelling.selection import SELECTION_FILE, read_selection, selection_of, write_selection
    from dimml_client.labelling.tasks import PLAYERS, Locations, write_tasks

    if player is not None and player not in PLAYERS:
        raise typer.BadParameter(f"choose one of {', '.join(PLAYERS)}", param_hint="--player")
    locations = Locations(media_url, root)
    before = {one.key for path in without or () for one in read_selection(path).chosen}
    candidates = read_candidates(table, before)
    choices = choose(candidates, budget, random_share=random_share, seed=seed)
    selection = selection_of(candidates, choices, random_share=random_share, seed=seed)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"cannot write {out}: {error.strerror}", field="--out") from error
    if (out / SELECTION_FILE).exists():
        raise ConfigurationError(
            f"{out / SELECTION_FILE} is there: labels that come back are checked against it; choose another --out",
            field="--out",
        )
    write_tasks(out, selection, locations, player)
    write_selection(out / SELECTION_FILE, selection)
    counts = {
        "candidates": len(candidates.rows),
        "left_out": dict(candidates.left_out),
        "chosen": len(selection.chosen),
        "reasons": dict(selection.reasons),
    }
    if as_json:
        typer.echo(json.dumps(counts, indent=1))
        return
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(selection.reasons.items()))
    left_out = "".join(f"; left out: {count} {reason}" for reason, count in candidates.left_out.items())
    typer.echo(f"{len(selection.chosen)} of {len(candidates.rows)} chosen: {reasons}{left_out}", err=True)
    typer.echo(f"written: {out}", err=True)


def read_labels(
    export: Annotated[
        Path, typer.Argument(metavar="EXPORT", help="What Label Studio exported of the tasks, in its format JSON.")
    ],
    *,
    selection: Annotated[Path, typer.Option("--selection", help="selection.json that `dimml select` wrote with them.")],
    out: Annotated[Path, typer.Option("--out", help="The clip table, .csv.")],
    split: Annotated[str, typer.Option("--split", help="Split of what was picked.")] = "train",
    random_split: Annotated[str, typer.Option("--random-split", help="Split of what was drawn by lot.")] = "validation",
    ranges: Annotated[
        bool, typer.Option("--ranges/--no-ranges", help="Whether to write the columns start_s and end_s.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="The counts as JSON.")] = False,
) -> None:
    """Read Label Studio's export as a clip table, checked against what was selected.

    Prints how often the bundle was right about the share drawn by lot.
    """
    from dimml_client.labelling.annotations import read_export
    from dimml_client.labelling.clip_table import accuracy_by_lot, write_clip_table
    from dimml_client.labelling.selection import read_selection

    if out.suffix.lower() != ".csv":
        raise ConfigurationError(f"--out {out}: a clip table is written as .csv", field="--out")
    found = read_export(export, read_selection(selection))
    write_clip_table(out, found.labels, split=split, random_split=random_split, ranges=ranges)
    accuracy = accuracy_by_lot(found.labels)
    if as_json:
        lot = None
        if accuracy is not None:
            lot = {
                "right": accuracy.right,
                "count": accuracy.count,
                "estimated": accuracy.estimated,
                "interval_95": [accuracy.low, accuracy.high],
            }
        counts = {"labelled": len(found.labels), "unlabelled": len(found.unlabelled), "disputed": found.disputed}
        typer.echo(json.dumps({**counts, "by_lot": lot}, indent=1))
        return
    missing = f"{len(found.unlabelled)} without a label, {len(found.disputed)} disputed"
    typer.echo(f"{len(found.labels)} labelled, {missing}", err=True)
    for key in found.disputed[:5]:
        typer.echo(f"disputed: {key}; mark one annotation as ground truth in Label Studio", err=True)
    if accuracy is not None:
        typer.echo(
            f"drawn by lot: {accuracy.right} of {accuracy.count} answers right, {accuracy.share:.1%} (95 % interval "
            f"{accuracy.low:.1%} to {accuracy.high:.1%}); their probabilities had estimated {accuracy.estimated:.1%}",
            err=True,
        )
    typer.echo(f"written: {out}", err=True)
