"""Plots of one data set, as small SVG files: methods with their intervals, and a heat map of regret."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from dimml_training.compare.cells import write_text
from dimml_training.compare.summary import Summary
from dimml_training.compare.tables import Row, rows

PLOTS = "plots"
#: Regret, in points of accuracy, at which the colours of the heat map saturate.
REGRET_POINTS = 30
#: No date, so that the same cells give the same bytes.
SVG_METADATA = {"Date": None, "Creator": None}


def write_plots(summary: Summary, out: Path) -> list[Path]:
    """Draw the plots that the cells allow; return the paths of the files."""
    with mpl.rc_context({"svg.hashsalt": "dimml", "svg.fonttype": "none", "font.size": 8}):
        drawn = {"methods": _methods(rows(summary)), "regret": _regret(summary)}
        folder = out / PLOTS
        return [
            write_text(folder / f"{summary.data}_{name}.svg", _svg(figure))
            for name, figure in drawn.items()
            if figure is not None
        ]


def _methods(found: Sequence[Row]) -> Figure:
    """Accuracy by method: clean, and the mean over development conditions."""
    figure = Figure(figsize=(6.4, 0.6 + 0.24 * len(found)), layout="constrained")
    axes = figure.subplots()
    for estimates, offset, colour, label in (
        ([row.clean for row in found], -0.17, "#4878d0", "clean"),
        ([row.development for row in found], 0.17, "#d65f5f", "development families"),
    ):
        there = [(place + offset, e) for place, e in enumerate(estimates) if e is not None]
        axes.errorbar(
            [100 * e.value for _, e in there],
            [place for place, _ in there],
            xerr=np.array([[100 * (e.value - e.low), 100 * (e.high - e.value)] for _, e in there]).T.clip(min=0.0),
            fmt="o",
            markersize=3,
            color=colour,
            label=label,
        )
    axes.set_yticks(range(len(found)), [row.method for row in found])
    axes.invert_yaxis()
    axes.set_xlabel("accuracy, %, with 95 % interval")
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def _regret(summary: Summary) -> Figure | None:
    """Regret by method and condition, in points; None if single modalities have not been run."""
    names = summary.conditions(in_means=True)
    regrets = {method: summary.regrets(method, names) for method in summary.methods}
    regrets = {method: found for method, found in regrets.items() if found}
    if not names or not regrets:
        return None
    points = np.array([[100 * found[name].value for name in names] for found in regrets.values()])
    figure = Figure(figsize=(3.2 + 0.2 * len(names), 4.0 + 0.2 * len(regrets)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(points, cmap="RdBu", vmin=-REGRET_POINTS, vmax=REGRET_POINTS, aspect="auto")
    axes.set_yticks(range(len(regrets)), list(regrets))
    development = set(summary.conditions(seen=False))
    axes.set_xticks(range(len(names)), [f"{name} *" if name in development else name for name in names], rotation=90)
    axes.set_title("accuracy minus the better single modality's, points (* development family)")
    figure.colorbar(image, ax=axes, pad=0.01)
    return figure


def _svg(figure: Figure) -> str:
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata=SVG_METADATA)
    return file.getvalue()
