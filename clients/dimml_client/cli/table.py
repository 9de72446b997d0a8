"""Predictions as a table for people: one line for each file, and errors in full below it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dimml.prediction import Explanation, ModalityAnswer, Occlusion, Prediction
from dimml_client.cli.predict import FileResult

#: Width if the output is not a terminal.
PIPE_WIDTH: Final = 80
#: Fewest characters of a long file name that are shown.
_LEAST_NAME: Final = 12
#: A width that no table has.
_UNBOUNDED: Final = 100_000
#: Most characters of a label.
_LABEL: Final = 20
#: Most labels of a prediction set that are shown.
_LISTED: Final = 10
#: Least fall of an occlusion curve, in nats, that is shown.
_LEAST_CHANGE: Final = 0.01


def print_predictions(answered: Sequence[FileResult], console: Console) -> None:
    """Print a line per recording: the answer, and each modality's weight and own label; below them why, and the errors.

    Prediction sets of more than one label stand below, too.

    Long names lose their beginning; where that is not enough, the modalities' labels are left out.
    """
    longest = max(len(one.recording.name) for one in answered)
    unbounded = console.options.update(max_width=_UNBOUNDED)
    for votes in (True, False):
        wide = console.measure(_table(answered, longest, votes=votes), options=unbounded).maximum
        room = longest - max(0, wide - console.width)
        if room >= min(longest, _LEAST_NAME):
            break
    console.print(_table(answered, max(room, _LEAST_NAME), votes=votes))
    for one in answered:
        if one.prediction is not None and one.prediction.explanation is not None:
            console.print(Text(f"{one.recording.name}: {_why(one.prediction.explanation)}"), soft_wrap=True)
        if one.prediction is not None and len(one.prediction.set or ()) > 1:
            console.print(Text(f"{one.recording.name}: one of {_listed(one.prediction.set or ())}"), soft_wrap=True)
        if one.error is not None:
            console.print(Text(f"{one.recording.name}: {one.error.message}", style="red"), soft_wrap=True)


def _why(explanation: Explanation) -> str:
    """Say what each modality contributed in nats, and what the answer is without it; then where the curve dips most."""
    parts = []
    for name, one in explanation.modalities.items():
        value = "?" if one.shapley is None else f"{one.shapley:+.2f}"
        without = "" if one.without is None else f" (without it {one.without.label} {one.without.probability:.3f})"
        parts.append(f"{name} {value}{without}")
    text = f"{explanation.label} by {', '.join(parts)} nats"
    if explanation.occlusion is not None and (dip := _dip(explanation.occlusion)) is not None:
        log_probability, name, index = dip
        stretch = explanation.occlusion.stretches[index]
        change = log_probability - explanation.log_probability
        if change <= -_LEAST_CHANGE:
            text += f"; most of all by {name} at {stretch.start_s:g}-{stretch.end_s:g} s ({change:+.2f} if blanked)"
    return text if explanation.stopped is None else f"{text}; not whole: {explanation.stopped}"


def _dip(occlusion: Occlusion) -> tuple[float, str, int] | None:
    points = [
        (value, name, index)
        for name, curve in occlusion.modalities.items()
        for index, value in enumerate(curve.log_probability)
        if value is not None
    ]
    return min(points, default=None)


def _table(answered: Sequence[FileResult], name_chars: int, *, votes: bool) -> Table:
    names = list(dict.fromkeys(name for a in answered if a.prediction for name in a.prediction.modalities))
    heads = any(a.prediction is not None and a.prediction.fused_head is not None for a in answered)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("file", "label", "prob.", *names, *(["fused"] if heads else []), "note"):
        table.add_column(name, no_wrap=True, justify="right" if name == "prob." else "left")
    for one in answered:
        name = one.recording.name
        shown = Text(name if len(name) <= name_chars else f"…{name[1 - name_chars :]}")
        if one.prediction is None:
            table.add_row(shown, *[""] * (2 + len(names) + heads), Text("error", style="red"))
        else:
            table.add_row(shown, *_answer_cells(one.prediction, names, heads=heads, votes=votes))
    return table


def _answer_cells(prediction: Prediction, names: Sequence[str], *, heads: bool, votes: bool) -> list[str | Text]:
    cells: list[str | Text] = [Text(prediction.label[:_LABEL], style="bold"), f"{prediction.probability:.3f}"]
    for name in names:
        answer = prediction.modalities.get(name)
        cells.append("" if answer is None else _modality_cell(answer, votes=votes))
    if heads:
        fused = prediction.fused_head
        cells.append("" if fused is None or fused.certainty is None else f"{fused.weight:.0%}")
    notes = [*(["degraded"] if prediction.degraded else []), *(["abstained"] if prediction.abstained else [])]
    cells.append(Text(", ".join(notes), style="yellow"))
    return cells


def _listed(labels: Sequence[str]) -> str:
    """Return a set of labels for a line, the first ones where there are many."""
    left = len(labels) - _LISTED
    return ", ".join(labels[:_LISTED]) + (f" and {left} more" if left > 0 else "")


def _modality_cell(answer: ModalityAnswer, *, votes: bool) -> Text:
    """Return a modality's weight and own label, or why it has none: the reason, which implies the status."""
    if not answer.modality_status.ok:
        return Text((answer.reason or answer.status).value, style="yellow")
    own = f" {answer.label[:_LABEL]}" if votes and answer.label is not None else ""
    return Text(f"{answer.weight:.0%}{own}")
