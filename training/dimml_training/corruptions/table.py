"""Results of ``scoring.score`` as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

#: Width in columns for a file or a pipe, which has none of its own.
PIPED_WIDTH = 140


def show_conditions(title: str, found: Mapping[str, Any]) -> None:
    """Print a row per condition and the means, then certainty, confidence and conflict; stars: development families."""
    conditions = found["conditions"]
    heads = list(conditions["clean"]["heads"])
    table = Table(
        title=title, title_justify="left", caption="* development family  ( ) not in the means", caption_justify="left"
    )
    for column in ("condition", *heads, "answer", "ECE", "better", "regret"):
        table.add_column(column, justify="left" if column in {"condition", "better"} else "right", no_wrap=True)
    for name, figures in conditions.items():
        if figures["group"] == "conflict":
            continue
        shown = name if figures["in_means"] or name == "clean" else f"({name})"
        table.add_row(
            shown if figures["seen"] else f"* {shown}",
            *(_percent(own["accuracy"]) if (own := figures["heads"].get(head)) else "–" for head in heads),
            _percent(figures["accuracy"]),
            f"{figures['ece']:.3f}",
            figures.get("better", ""),
            _points(figures.get("regret")),
        )
    table.add_section()
    for which, means in found["means"].items():
        if means is not None:
            blank = [""] * len(heads)
            table.add_row(f"mean, {which}", *blank, _percent(means["accuracy"]), "", "", _points(means["regret"]))
    console = Console()
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    console.print(table)
    for which, means in found["means"].items():
        if means is not None and means["worst_condition"] is not None:
            console.print(f"worst regret, {which}: {_points(means['worst_regret'])} under {means['worst_condition']}")
    for head, value in found["certainty_auroc"].items():
        if value is not None:
            console.print(f"certainty of {head} tells whether it is right: AUROC {value:.3f}")
    for name, share in found["confidence_rise"].items():
        console.print(f"confidence rises under {name}: {share:.1%} of clips")
    for name, figures in found["conflict"].items():
        text = f"confidence {figures['confidence']:.3f}, clean {figures['confidence_clean']:.3f}"
        if "disagreement_auroc" in figures:
            text += f"; disagreement tells it from clean: AUROC {figures['disagreement_auroc']:.3f}"
        console.print(f"conflict {name}: {text}")


def _percent(share: float) -> str:
    return f"{share:.1%}"


def _points(regret: float | None) -> str:
    return "" if regret is None else f"{100 * regret:+.1f}"
