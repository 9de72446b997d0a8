"""Predictions as a table for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from dimml.prediction import ModalityAnswer, Prediction
from dimml_client.cli.predict import FileResult

#: Width if the output is not a terminal; wide enough to keep rows on few lines.
PIPE_WIDTH = 160


def predictions_table(answered: Sequence[FileResult]) -> Table:
    """Build a table with a row per recording: the answer, each modality's contribution, and any problem."""
    names = list(dict.fromkeys(name for a in answered if a.prediction for name in a.prediction.modalities))
    heads = any(a.prediction is not None and a.prediction.fused_head is not None for a in answered)
    table = Table(show_lines=True)
    table.add_column("file", overflow="fold")
    table.add_column("label", style="bold")
    table.add_column("prob.", justify="right")
    for name in (*names, *(["fused head"] if heads else [])):
        table.add_column(name)
    table.add_column("note", overflow="fold")
    for one in answered:
        if one.prediction is None:
            message = one.error.message if one.error is not None else ""
            blank = [""] * (2 + len(names) + heads)
            table.add_row(Text(one.recording.name), *blank, Text(message, style="red"))
            continue
        table.add_row(Text(one.recording.name), *_answer_cells(one.prediction, names, heads))
    return table


def _answer_cells(prediction: Prediction, names: Sequence[str], heads: bool) -> list[str | Text]:
    cells: list[str | Text] = [Text(prediction.label), f"{prediction.probability:.3f}"]
    for name in names:
        answer = prediction.modalities.get(name)
        cells.append("" if answer is None else _modality_cell(answer))
    if heads:
        fused = prediction.fused_head
        voted = fused is not None and fused.certainty is not None
        cells.append(f"certainty {fused.certainty:.2f}\nweight {fused.weight:.2f}" if fused and voted else "no vote")
    cells.append(Text("degraded", style="yellow") if prediction.degraded else "")
    return cells


def _modality_cell(answer: ModalityAnswer) -> Text:
    if not answer.modality_status.ok:
        return Text(f"{answer.status.value}\n{answer.reason.value if answer.reason else ''}", style="yellow")
    lines = [] if answer.label is None else [f"{answer.label} {answer.probability:.2f}"]
    lines.append(f"certainty {answer.certainty:.2f}, weight {answer.weight:.2f}")
    return Text("\n".join(lines))
