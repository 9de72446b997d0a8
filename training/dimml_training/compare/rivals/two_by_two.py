"""The table of two encoders by two fusions: what each of them adds, with the same heads in every field."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from dimml_training.compare.summary import CLEAN, Summary
from dimml_training.compare.tables import percent, points

#: By encoders: the plain average of all heads' logits, and the fusion chosen on validation clips.
FIELDS: Final = {"separate": ("separate_logits", "separate_chosen"), "DI-MML": ("dimml_logits", "dimml")}


def two_by_two_markdown(summary: Summary) -> str:
    """Accuracies of the four methods, clean and under development families, with differences paired by clip.

    Empty unless all four were run. The last line of each part is what DI-MML's encoders add under either fusion, and
    its last field how much more ours adds on them than on separate ones.
    """
    methods = [method for row in FIELDS.values() for method in row]
    if not set(methods) <= set(summary.methods):
        return ""
    parts = {"clean": [CLEAN], "development families": summary.conditions(seen=False, in_means=True)}
    lines = ["| encoders | clips | average | ours | ours minus average, points |", "|---|---|---|---|---|"]
    for what, conditions in parts.items():
        if conditions:
            lines += _lines(summary, what, conditions)
    return "\n".join(lines) + "\n"


def _lines(summary: Summary, what: str, conditions: Sequence[str]) -> list[str]:
    lines = []
    for encoders, (average, ours) in FIELDS.items():
        shown = " | ".join(percent(summary.accuracy(method, conditions)) for method in (average, ours))
        lines.append(f"| {encoders} | {what} | {shown} | {points(summary.difference(ours, average, conditions))} |")
    (one, other) = FIELDS.values()
    added = [summary.difference(theirs, own, conditions) for theirs, own in zip(other, one, strict=True)]
    more = None if added[0] is None or added[1] is None else added[1].value - added[0].value
    shown = " | ".join(points(estimate) for estimate in added)
    lines.append(
        f"| DI-MML minus separate, points | {what} | {shown} | {'–' if more is None else f'{100 * more:+.1f}'} |"
    )
    return lines
