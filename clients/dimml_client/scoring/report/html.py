"""Evaluation report as a self-contained HTML page."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Final

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from dimml.errors import DataError
from dimml.metrics.classification import BINS
from dimml.system.files import write_atomically
from dimml_client.scoring.report.metrics import ANSWER, Judge, Judgement

#: Beyond this many classes a confusion matrix has no room for their names.
_NAMED: Final = 30

_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ name }} · dimml score</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1000px; padding: 0 1rem; color: #17191c }
table { border-collapse: collapse }
td, th { padding: 4px 16px 4px 0; border-bottom: 1px solid #e6e6e1; text-align: right }
td:first-child, th:first-child { text-align: left } .note { color: #5d636b } svg { max-width: 100%; height: auto }
</style></head><body>
<h1>{{ name }}</h1>
<p class="note">bundle {{ bundle.name }} version {{ bundle.version }}, manifest {{ bundle.sha256 or "unknown" }}</p>
<p>{{ found.rows }} rows with a label, {{ found.errors }} of them without an answer; NLL of the answers
{{ "%.3f"|format(found.nll) }}.</p>
{% if found.unknown %}<p><b>Labels that the bundle does not know, counted as wrong:</b>
{% for label, count in found.unknown.items() %}{{ label }} ({{ count }}){{ ", " if not loop.last }}{% endfor %}</p>
{% endif %}
<h2>Who is right</h2>
<table><tr><th>who</th><th>rows</th><th>accuracy</th><th>macro-F1</th><th>calibration error</th></tr>
{% for who, one in found.voters.items() %}<tr><td>{{ who }}</td><td>{{ one.rows }}</td>
<td>{{ "%.1f %%"|format(100 * one.accuracy) }}</td><td>{{ "%.3f"|format(one.macro_f1) }}</td>
<td>{{ "%.3f"|format(one.ece) }}</td></tr>{% endfor %}</table>
<h2>By class</h2>
<table><tr><th>label</th><th>rows</th><th>recall</th><th>precision</th><th>F1</th></tr>
{% for label, rows, recall, precision, f1 in classes %}<tr><td>{{ label }}</td><td>{{ rows }}</td>
{% for value in (recall, precision, f1) %}<td>{{ "%.3f"|format(value) if value == value else "" }}</td>{% endfor %}</tr>
{% endfor %}</table>
<h2>Calibration</h2>{{ calibration }}
<h2>Confusion</h2><p class="note">Rows are the truth, columns the answer.</p>{{ confusion }}
</body></html>
"""


def write_report(found: Judgement, table: Path, out: Path) -> None:
    """Write the page. Raises DataError if it cannot be written."""
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    answer = found.voters[ANSWER]
    page = environment.from_string(_PAGE).render(
        name=table.name,
        bundle=found.bundle,
        found=found,
        classes=answer.per_class(),
        calibration=_calibration(found),
        confusion=_confusion(answer),
    )
    try:
        write_atomically(out, page.encode())
    except OSError as error:
        raise DataError(f"cannot write {out}: {error.strerror}", field="--report") from error


def _calibration(found: Judgement) -> Markup:
    """Plot accuracy by confidence, for every voter."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 4.0), layout="constrained")
    axis = figure.subplots()
    axis.plot([0, 1], [0, 1], color="grey", linestyle=":", linewidth=1)
    for name, one in found.voters.items():
        there_K = one.bins.rows > 0
        if there_K.any():
            confidence_K, accuracy_K = one.bins.confidence[there_K], one.bins.accuracy[there_K]
            axis.plot(confidence_K, accuracy_K, marker="o", markersize=4, label=name)
    axis.set_xlabel(f"confidence, {BINS} bins")
    axis.set_ylabel("share that is right")
    axis.legend()
    return _svg(figure)


def _confusion(answer: Judge) -> Markup:
    from matplotlib.figure import Figure

    counts_CC = answer.confusion_CC
    side = min(9.0, 2.5 + 0.4 * len(answer.labels))
    figure = Figure(figsize=(side, side), layout="constrained")
    axis = figure.subplots()
    axis.imshow(counts_CC / np.maximum(counts_CC.sum(axis=1, keepdims=True), 1), cmap="Blues", vmin=0.0, vmax=1.0)
    if len(answer.labels) <= _NAMED:
        axis.set_xticks(range(len(answer.labels)), answer.labels, rotation=60, ha="right", parse_math=False)
        axis.set_yticks(range(len(answer.labels)), answer.labels, parse_math=False)
        for (row, column), count in np.ndenumerate(counts_CC):
            if count:
                axis.text(column, row, str(count), ha="center", va="center", fontsize=8)
    return _svg(figure)


def _svg(figure: object) -> Markup:
    """Render a figure as inline SVG. matplotlib escapes the labels in it."""
    text = io.StringIO()
    figure.savefig(text, format="svg")  # type: ignore[attr-defined]  # a matplotlib Figure
    return Markup(text.getvalue()[text.getvalue().index("<svg") :])  # noqa: S704  # not a caller's text
