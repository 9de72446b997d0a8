"""Severity curves: accuracy of the answer and of every head against how strong a corruption is, one SVG a modality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dimml.errors import ConfigurationError
from dimml_training.config.corruption_suite import FAMILIES, Condition, Corruption, Family

COLUMNS = 4


def write_severity_curves(
    suite: Sequence[Condition], found: Mapping[str, Mapping[str, Any]], folder: Path
) -> list[Path]:
    """Draw every family that ``suite`` has at two severities or more; return the files, ``severity_<modality>.svg``.

    ``found`` are the metrics by condition (``scoring.score``). Raises ConfigurationError if a file cannot be written.
    """
    curves: dict[str, dict[str, list[tuple[str, str]]]] = {}
    for condition in suite:
        if condition.group in {"sound", "picture", "series"}:
            target, corruption = condition.name.split(":")[0], next(iter(condition.by_modality.values()))
            if isinstance(corruption, Corruption):
                of_family = curves.setdefault(target, {}).setdefault(corruption.family, [])
                of_family.append((corruption.severity, condition.name))
    written = []
    # Without date and random ids, the same metrics give the same bytes.
    with mpl.rc_context({"svg.hashsalt": "dimml", "svg.fonttype": "none", "font.size": 8}):
        for target, families in curves.items():
            drawn = {name: points for name, points in families.items() if len(points) > 1}
            if drawn:
                path = folder / f"severity_{target}.svg"
                _save(_figure(drawn, found), path)
                written.append(path)
    return written


def _figure(families: Mapping[str, Sequence[tuple[str, str]]], found: Mapping[str, Mapping[str, Any]]) -> Figure:
    rows = -(-len(families) // COLUMNS)
    figure = Figure(figsize=(8.0, 0.4 + 1.6 * rows), layout="constrained")
    grid = figure.subplots(rows, COLUMNS, sharey=True, squeeze=False).reshape(-1)
    known = {family.name: family for family in FAMILIES}
    for axes, (name, points) in zip(grid, families.items(), strict=False):
        _curve(axes, known[name], points, found)
    for axes in grid[len(families) :]:
        axes.set_axis_off()
    figure.supylabel("accuracy, %")
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return figure


def _curve(
    axes: Axes, family: Family, points: Sequence[tuple[str, str]], found: Mapping[str, Mapping[str, Any]]
) -> None:
    figures = [found["clean"], *(found[condition] for _, condition in points)]
    place = range(len(figures))
    for head in figures[0]["heads"]:
        # Of clips that lack a modality, a condition may leave a head none.
        own = [f["heads"].get(head, {}).get("accuracy", float("nan")) for f in figures]
        axes.plot(place, [100 * accuracy for accuracy in own], "--", marker=".", label=head)
    axes.plot(place, [100 * f["accuracy"] for f in figures], "k", marker=".", label="answer")
    axes.set_xticks(place, ["clean", *(severity for severity, _ in points)])
    axes.set_title(family.name if family.seen else f"{family.name} (development)")
    axes.set_ylim(0, 102)
    axes.grid(axis="y", alpha=0.3)


def _save(figure: Figure, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror}", field="--plots") from error
