"""Plot of a timeline: label, status, certainty and weight of each voter over time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from dimml.errors import ConfigurationError, DataError
from dimml.look import palette
from dimml.status import Status
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
    """Draw four panels over one time axis. Raises ConfigurationError for an unknown ending, OSError on writing."""
    if out.suffix.lower() not in _ENDINGS:
        raise ConfigurationError(f"--out {out}: the ending must be one of {', '.join(_ENDINGS)}", field="--out")
    from matplotlib.figure import Figure

    rows = timeline.rows
    middles_s = [(row["start_s"] + row["end_s"]) / 2.0 for row in rows]
    heads = [*timeline.modalities, *([_FUSED] if timeline.fused_head else [])]
    colours = palette.head_colours(heads)
    lanes = 0.35 * len(timeline.modalities)
    figure = Figure(figsize=(11.0, 2.6 + 0.25 * min(len(timeline.labels), 16) + lanes + 3.6), layout="constrained")
    votes, status, certainty, weight = figure.subplots(
        4, 1, sharex=True, height_ratios=[max(2.0, len(timeline.labels) / 4), lanes + 0.2, 2, 2]
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
        [at for at, _ in answered],
        [y for _, y in answered],
        s=2.5 * dot,
        marker="|",
        color=palette.ANSWER,
        label="answer",
    )
    for row in rows:
        if row["error"]:
            votes.axvspan(row["start_s"], row["end_s"], color="red", alpha=0.12, linewidth=0)
    if len(timeline.labels) <= 40:
        votes.set_yticks(range(len(timeline.labels)), timeline.labels)
    votes.set_ylim(-0.6, len(timeline.labels) - 0.2)
    votes.set_ylabel("label")
    _draw_statuses(status, timeline, colours)
    together = max(1, len(rows) // _POINTS)
    for axis, what in ((certainty, "certainty"), (weight, "weight")):
        for head in heads:
            values = [row[f"{head}_{what}"] for row in rows]
            axis.plot(*_means(middles_s, values, together), color=colours[head], marker=".", markersize=3, label=head)
        axis.set_ylim(-0.03, 1.03)
        axis.set_ylabel(what if together == 1 else f"{what}, mean of {together}")
        axis.grid(alpha=0.25)
    weight.set_xlabel("seconds")
    # One legend, beside the data: the fused head has no label of its own, and the answer no certainty.
    entries = dict(zip(*votes.get_legend_handles_labels()[::-1], strict=True))
    entries |= dict(zip(*certainty.get_legend_handles_labels()[::-1], strict=True))
    legend = figure.legend(entries.values(), entries.keys(), loc="outside right upper", fontsize="small", frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)
    # A file's name must not be parsed as a formula.
    figure.suptitle(timeline.name, fontsize="medium", parse_math=False)
    ending = out.suffix.lower().removeprefix(".")
    try:
        write_atomically(out, lambda temporary: figure.savefig(temporary, format=ending, dpi=130))
    except OSError as error:
        raise DataError(f"cannot write {out}: {error.strerror}", field="--out") from error


def _draw_statuses(axis: Any, timeline: Timeline, colours: dict[str, str]) -> None:
    """Draw one lane per modality, filled and named where it took no part."""
    span_s = timeline.rows[-1]["end_s"] - timeline.rows[0]["start_s"]
    for lane, name in enumerate(timeline.modalities):
        for start_s, end_s, what in stretches(timeline.rows, name):
            axis.broken_barh([(start_s, end_s - start_s)], (lane - 0.4, 0.8), color=colours[name], alpha=0.35)
            # About as wide as the text is; a shorter stretch has room for none.
            if end_s - start_s > 0.009 * len(what) * span_s:
                axis.text((start_s + end_s) / 2, lane, what, ha="center", va="center", fontsize=8, parse_math=False)
    axis.set_ylim(len(timeline.modalities) - 0.4, -0.6)
    axis.set_yticks(range(len(timeline.modalities)), timeline.modalities, parse_math=False)
    axis.grid(visible=False)
    axis.tick_params(length=0)
    axis.set_ylabel("not ok", fontsize="small")


def stretches(rows: Sequence[dict[str, Any]], name: str) -> Iterator[tuple[float, float, str]]:
    """Yield start and end in seconds of each stretch in which a modality was not ok, and why: `silent`, `no_track`.

    Windows may overlap or lie apart: each stands for the time that is nearer to its middle than to its neighbours'.
    """
    middles_s = [(row["start_s"] + row["end_s"]) / 2.0 for row in rows]
    edges_s = [rows[0]["start_s"], *map(fmean, pairwise(middles_s)), rows[-1]["end_s"]]
    spans = zip(rows, pairwise(edges_s), strict=True)
    for what, group in groupby(spans, key=lambda span: str(span[0].get(f"{name}_status") or Status.OK)):
        within = [edges for _, edges in group]
        if what != Status.OK:
            yield within[0][0], within[-1][1], what.rpartition(":")[2]


def _means(times_s: Sequence[float], values: Sequence[float | None], together: int) -> tuple[list[float], list[float]]:
    """Average every ``together`` values that exist, at the mean of all their times; NaN if none exists."""
    points: tuple[list[float], list[float]] = ([], [])
    for begin in range(0, len(values), together):
        known = [value for value in values[begin : begin + together] if value is not None]
        points[0].append(fmean(times_s[begin : begin + together]))
        points[1].append(fmean(known) if known else math.nan)
    return points
