"""Evaluation report as a self-contained HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from dimml.errors import DataError
from dimml.look.charts import confusion_chart, reliability_chart
from dimml.look.palette import css_class, style_sheet
from dimml.system.files import write_atomically
from dimml_client.scoring.report.metrics import ANSWER, Judgement

_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ name }} · dimml score</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>
{{ style }}
</style></head><body><main>
<h1>{{ name }}</h1>
<p class="lead">bundle {{ bundle.name }} version {{ bundle.version }}, manifest {{ bundle.sha256 or "unknown" }}</p>
<p>{{ found.rows }} rows with a label, {{ found.errors }} of them without an answer; NLL of the answers
{{ "%.3f"|format(found.nll) }}.</p>
{% if found.unknown %}<div class="warn"><b>Labels that the bundle does not know, counted as wrong:</b>
{% for label, count in found.unknown.items() %}{{ label }} ({{ count }}){{ ", " if not loop.last }}{% endfor %}</div>
{% endif %}
<h2>Who is right</h2>
<div class="card wide" role="region" aria-label="table" tabindex="0"><table class="figures">
<tr><th>who</th><th>rows</th><th>accuracy</th><th>macro-F1</th><th>calibration error</th></tr>
{% for who, one in found.voters.items() %}<tr{% if who == answer %} class="answer"{% endif %}><td>{{ who }}</td>
<td>{{ one.rows }}</td><td>{{ "%.1f %%"|format(100 * one.accuracy) }}</td><td>{{ "%.3f"|format(one.macro_f1) }}</td>
<td>{{ "%.3f"|format(one.ece) }}</td></tr>{% endfor %}</table></div>
{% if found.sets %}<h2>Prediction sets</h2>
<p>How often a set held the true label. What the bundle promises is an average over recordings like those that it was
calibrated on, for each combination of modalities; not under drift.</p>
<div class="card wide" role="region" aria-label="table" tabindex="0"><table class="figures">
<tr><th>modalities</th><th>rows</th><th>held</th><th>labels in a set</th><th>abstained</th>
<th>accuracy of the others</th></tr>
{% for name, one in found.sets.items() %}<tr><td>{{ name }}</td><td>{{ one.rows }}</td>
<td>{{ "%.1f %%"|format(100 * one.coverage) }}</td><td>{{ "%.2f"|format(one.mean_size) }}</td>
<td>{{ one.abstained }}</td><td>{{ "%.1f %%"|format(100 * one.accuracy) if one.accuracy is not none else "" }}</td></tr>
{% endfor %}</table></div>
{% endif %}
<h2>By class</h2>
<div class="card wide" role="region" aria-label="table" tabindex="0"><table class="figures">
<tr><th>label</th><th>rows</th><th>recall</th><th>precision</th><th>F1</th></tr>
{% for label, rows, recall, precision, f1 in classes %}<tr><td>{{ label }}</td><td>{{ rows }}</td>
{% for value in (recall, precision, f1) %}<td>{{ "%.3f"|format(value) if value == value else "" }}</td>{% endfor %}</tr>
{% endfor %}</table></div>
<h2>Calibration</h2>
<p>Bars: how often a voter is right among rows of that confidence; on the dashed line, confidence equals accuracy.
Below: the number of rows.</p>
<div class="flow">{% for who, chart in calibration %}
<figure class="card"><h3>{{ who }}</h3>{{ chart }}</figure>{% endfor %}</div>
<h2>Confusion</h2><p>Rows are the truth, columns the prediction; the shade is the share of the row.</p>
<div class="flow">{% for who, chart in confusion %}
<figure class="card"><h3>{{ who }}</h3>{{ chart }}</figure>{% endfor %}</div>
</main></body></html>
"""


def write_report(found: Judgement, table: Path, out: Path) -> None:
    """Write the page. Raises DataError if it cannot be written."""
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    colours = {name: css_class(index) for index, name in enumerate(found.bundle["modalities"])} | {ANSWER: "answer"}
    heard = {name: one for name, one in found.voters.items() if one.rows}
    page = environment.from_string(_PAGE).render(
        style=Markup(style_sheet()),  # noqa: S704  # not a caller's text
        name=table.name,
        answer=ANSWER,
        bundle=found.bundle,
        found=found,
        classes=found.voters[ANSWER].per_class(),
        calibration=[(name, reliability_chart(one.bins, colours[name])) for name, one in heard.items()],
        confusion=[(name, confusion_chart(one.confusion_CC, one.labels)) for name, one in heard.items()],
    )
    try:
        write_atomically(out, page.encode())
    except OSError as error:
        raise DataError(f"cannot write {out}: {error.strerror}", field="--report") from error
