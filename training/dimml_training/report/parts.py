"""Building blocks of the report's sections: tiles, figures and tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from dimml.bundle import FUSED_HEAD
from dimml.look.palette import css_class
from dimml_training.report.diagrams import ANSWER
from dimml_training.report.reading import RunFiles


@dataclass(frozen=True)
class Tile:
    """One metric of the summary."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Figure:
    """A chart with its title, and its legend as (name, CSS class)."""

    title: str
    chart: Markup
    legend: Sequence[tuple[str, str]] = ()
    note: str = ""


@dataclass(frozen=True)
class Table:
    """Cells as text; the first column names the row."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def chance(files: RunFiles) -> float | None:
    """Share of clips that guessing gets right, with equally frequent classes; None if the classes are not known."""
    return 1.0 / len(files.labels) if files.labels else None


def head_colours(files: RunFiles) -> dict[str, str]:
    """CSS class of each head, the same in all charts."""
    names = [m.name for m in files.config.inputs]
    return {name: css_class(index) for index, name in enumerate([*names, FUSED_HEAD])} | {ANSWER: "answer"}
