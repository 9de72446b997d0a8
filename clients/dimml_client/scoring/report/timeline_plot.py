"""Plot of a timeline: label, certainty and weight of each voter over time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from dimml.errors import ConfigurationError, DataError
from dimml.palette import HEAD_COLOURS
from dimml.system.files import write_atomically
from dimml_client.scoring.table import formats
from dimml_client.scoring.table.schema import WINDOW, schema_of_table

_ENDINGS: Final = (".svg", ".png", ".pdf")
_FUSED: Final = "fused"
#: Maximum number of points of a line; with many more windows, each point is the mean of several.
_POINTS: Final = 600


@dataclass(frozen=True, slots=True)
class Timeline:
    """One recording's windows in order, the bundle's labels, and its heads."""

    name: str
    rows: list[dict[str, Any]]
    labels: list[str]
    modalities: list[str]
    fused_head: bool


def read_timeline(path: Path, recording: str | None) -> Timeline:
    """Read the windows of one recording. Raises DataError, or ConfigurationError if the recording must be named."""
    metadata = formats.read_metadata(path)
    if metadata is None:
        raise DataError(f"{path} is not a table that dimml score wrote", field=str(path))
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in formats.read_rows(path, schema_of_table(metadata)):
        if row["kind"] == WINDOW and recording in (None, row["id"]):
            rows.setdefault(row["id"], []).append(row)
    if not rows:
        which = f" of {recording!r}" if recording else ""
        raise DataError(f"{path} holds no windows{which}; `dimml score --window` writes them", field=str(path))
    if len(rows) > 1:
        some = ", ".join(list(rows)[:5])
        raise ConfigurationError(f"{path} holds {len(rows)} recordings; choose one with --id: {some}", field="--id")
    bundle = metadata["bundle"]
    (name,) = rows
    return Timeline(name, rows[name], bundle["labels"], bundle["modalities"], bundle["fused_head"])


def draw(timeline: Timeline, out: Path) -> None:
    """Draw three panels over one time axis. Raises ConfigurationError for an unknown ending, OSError on writing."""
    if out.suffix.lower() not in _ENDINGS:
        raise ConfigurationError(f"--out {out}: the ending must be one of {', '.join(_ENDINGS)}", field="--out")
    from matplotlib.figure import Figure

    rows = timeline.rows
    middles_s = [(row["start_s"] + row["end_s"]) / 2.0 for row in rows]
    heads = [*timeline.modalities, *([_FUSED] if timeline.fused_head else [])]
    colours = {head: HEAD_COLOURS[index % len(HEAD_COLOURS)] for index, head in enumerate(heads)}
    figure = Figure(figsize=(11.0, 2.4 + 0.25 * min(len(timeline.labels), 16) + 3.6), layout="constrained")
    votes, certainty, weight = figure.subplots(
        3, 1, sharex=True, height_ratios=[max(2.0, len(timeline.labels) / 4), 2, 2]
    )
    dot = 9.0 if len(rows) <= _POINTS else 1.0
    places = {label: place for place, label in enumerate(timeline.labels)}
    for offset, name in enumerate(timeline.modalities):
        said = [
            (at, places[row[f"{name}_label"]]) for at, row in zip(middles_s, rows, strict=True) if row[f"{name}_label"]
        ]
        shift = 0.12 * (offset + 1)
        votes.scatter([at for at, _ in said], [y + shift for _, y in said], s=dot, color=colours[name], label=name)
    answered = [(at, places[row["label"]]) for at, row in zip(middles_s, rows, strict=True) if row["label"]]
    votes.scatter(
        [at for at, _ in answered], [y for _, y in answered], s=2.5 * dot, marker="|", color="black", label="answer"
    )
    for row in rows:
        if row["error"]:
            votes.axvspan(row["start_s"], row["end_s"], color="red", alpha=0.12, linewidth=0)
    if len(timeline.labels) <= 40:
        votes.set_yticks(range(len(timeline.labels)), timeline.labels)
    votes.set_ylim(-0.6, len(timeline.labels) - 0.2)
    votes.set_ylabel("label")
    votes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=4, fontsize="small", frameon=False)
    together = max(1, len(rows) // _POINTS)
    for axis, what in ((certainty, "certainty"), (weight, "weight")):
        for head in heads:
            values = [row[f"{head}_{what}"] for row in rows]
            axis.plot(*_means(middles_s, values, together), color=colours[head], marker=".", markersize=3, label=head)
        axis.set_ylim(-0.03, 1.03)
        axis.set_ylabel(what if together == 1 else f"{what}, mean of {together}")
        axis.grid(alpha=0.25)
    weight.legend(loc="upper right", ncols=4, fontsize="small")
    weight.set_xlabel("seconds")
    # A file's name must not be parsed as a formula.
    figure.suptitle(timeline.name, fontsize="medium", parse_math=False)
    ending = out.suffix.lower().removeprefix(".")
    try:
        write_atomically(out, lambda temporary: figure.savefig(temporary, format=ending, dpi=130))
    except OSError as error:
        raise DataError(f"cannot write {out}: {error.strerror}", field="--out") from error


def _means(times_s: Sequence[float], values: Sequence[float | None], together: int) -> tuple[list[float], list[float]]:
    """Average every ``together`` values that exist, at the mean of all their times; NaN if none exists."""
    points: tuple[list[float], list[float]] = ([], [])
    for begin in range(0, len(values), together):
        known = [value for value in values[begin : begin + together] if value is not None]
        points[0].append(fmean(times_s[begin : begin + together]))
        points[1].append(fmean(known) if known else math.nan)
    return points
