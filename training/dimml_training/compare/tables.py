"""Tables of one data set: Markdown for people, CSV for programs, JSON for ``--json``."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dimml.metrics.classification import perfect_ece
from dimml_training.compare.bootstrap import Estimate
from dimml_training.compare.cells import Cell, write_text
from dimml_training.compare.development_log import FORMER_LOG, LOG, looks
from dimml_training.compare.replicated_metrics import (
    CERTAINTY_AUROC,
    CONFIDENCE,
    CONFLICT_CONFIDENCE,
    DISAGREEMENT_AUROC,
    MACRO_F1,
    NLL,
    rise_metric,
)
from dimml_training.compare.summary import CLEAN, Summary, Worst

TABLES = "tables"
#: Name of our method.
OURS = "dimml"
#: Metrics of a condition in the CSV, in addition to accuracy and regret; means over repeats.
METRICS = ("macro_f1", "nll", "ece", "confidence")


@dataclass(frozen=True)
class Row:
    """Metrics of one method on one data set, over all its repeats. Shares, not per cent."""

    method: str
    description: str
    repeats: int
    clean: Estimate
    #: Standard deviation of the clean accuracy over repeats.
    clean_spread: float
    seen: Estimate | None
    development: Estimate | None
    mean_regret: Estimate | None
    worst_regret: Worst | None
    #: ECE of the clean answers, all repeats pooled, and the 95th percentile of a perfect calibrator's ECE.
    ece: Estimate
    ece_bound: float
    nll: Estimate
    macro_f1: Estimate
    #: AUROC of a head's certainty as a predictor of a correct vote, clean and development conditions; mean over heads.
    certainty_auroc: Estimate | None
    seconds_training: float


def summaries(cells: Iterable[Cell], contained: Mapping[str, Collection[str]] | None = None) -> list[Summary]:
    """Summarise each data set, in order of name; ``contained`` has the families already in a data set's recordings."""
    by_data: dict[str, list[Cell]] = {}
    for cell in cells:
        by_data.setdefault(cell.data, []).append(cell)
    return [Summary(by_data[name], (contained or {}).get(name, ())) for name in sorted(by_data)]


def rows(summary: Summary) -> list[Row]:
    """Rows of all methods, in the order of the table."""
    seen = summary.conditions(seen=True, in_means=True)
    development = summary.conditions(seen=False, in_means=True)
    return [_row(summary, method, seen, development) for method in summary.methods]


def _row(summary: Summary, method: str, seen: Sequence[str], development: Sequence[str]) -> Row:
    cells = list(summary.cells[method].values())
    confidence_P = np.concatenate([cell.confidences() for cell in cells])
    nll = summary.mean(method, lambda cell: cell.conditions[CLEAN].nll)
    macro_f1 = summary.mean(method, lambda cell: cell.conditions[CLEAN].macro_f1)
    # Averaged within each cell first, so that a repeat whose fusion has one more head does not count more.
    by_cell = [[value for value in cell.certainty_auroc.values() if value is not None] for cell in cells]
    aurocs = [float(np.mean(of_heads)) for of_heads in by_cell if of_heads]
    return Row(
        method=method,
        description=cells[0].description,
        repeats=len(cells),
        clean=summary.accuracy(method, [CLEAN]),
        clean_spread=summary.spread(method),
        seen=summary.accuracy(method, seen) if seen else None,
        development=summary.accuracy(method, development) if development else None,
        mean_regret=summary.mean_regret(method, development),
        worst_regret=summary.worst_regret(method, development),
        ece=summary.ece(method),
        ece_bound=float(perfect_ece(confidence_P)),
        nll=summary.sampled(method, nll, NLL),
        macro_f1=summary.sampled(method, macro_f1, MACRO_F1),
        certainty_auroc=summary.sampled(method, float(np.mean(aurocs)), CERTAINTY_AUROC) if aurocs else None,
        seconds_training=summary.mean(method, lambda cell: cell.seconds_training),
    )


def markdown(summary: Summary) -> str:
    """Main table, with a line per method."""
    found = rows(summary)
    lines = [
        "| method | clean ± spread | seen families | development families | mean regret, development "
        "| worst regret, development | ECE (perfect) | NLL | AUROC | macro-F1 | n |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found:
        worst = "–" if row.worst_regret is None else f"{points(row.worst_regret.estimate)} {row.worst_regret.condition}"
        lines.append(
            f"| `{row.method}` | {_clean(row)} | {percent(row.seen)} | {percent(row.development)} "
            f"| {points(row.mean_regret)} | {worst} "
            f"| {plain(row.ece)} ({row.ece_bound:.3f}) | {plain(row.nll)} | {plain(row.certainty_auroc)} "
            f"| {plain(row.macro_f1)} | {row.repeats} |"
        )
    return "\n".join(lines) + "\n"


def conditions_markdown(summary: Summary) -> str:
    """Table of every method's accuracy under every condition, with the regret of ours if single modalities were run."""
    names = [CLEAN, *summary.conditions()]
    regrets = summary.regrets(OURS, names) if OURS in summary.methods else {}
    accuracies = {m: summary.accuracies(m, names) for m in summary.methods}
    lines = [
        "| condition | " + " | ".join(f"`{m}`" for m in summary.methods) + f" | regret of `{OURS}` |",
        "|---" * (len(summary.methods) + 2) + "|",
    ]
    for name in names:
        shown = " | ".join(percent(accuracies[m][name]) for m in summary.methods)
        record = summary.record(name)
        carried = record.in_means and not summary.counts(name, record)
        mark = " †" if carried else "" if record.seen else " *"
        lines.append(f"| {name}{mark} | {shown} | {points(regrets.get(name))} |")
    return "\n".join(lines) + "\n"


def trust_markdown(summary: Summary) -> str:
    """Table of confidence when modalities are in conflict, and when one is absent."""
    lines = [
        "| method | AUROC, disagreement tells conflict | confidence clean | confidence in conflict "
        "| confidence rises without a modality, % |",
        "|---|---|---|---|---|",
    ]
    for method in summary.methods:
        cells = list(summary.cells[method].values())
        conflicts = [found for cell in cells for found in cell.conflict.values()]
        figures = (
            ([found["disagreement_auroc"] for found in conflicts if "disagreement_auroc" in found], DISAGREEMENT_AUROC),
            ([cell.conditions[CLEAN].confidence for cell in cells], CONFIDENCE),
            ([found["confidence"] for found in conflicts], CONFLICT_CONFIDENCE),
        )
        shown = " | ".join(
            plain(summary.sampled(method, float(np.mean(values)), figure) if values else None)
            for values, figure in figures
        )
        rises = []
        for name in cells[0].confidence_rise:
            share = float(np.mean([cell.confidence_rise[name] for cell in cells]))
            rise = summary.sampled(method, share, rise_metric(name))
            # Without an interval no clip is answered in the absence of that modality.
            rises.append(f"{name.partition(':')[0]} {percent(None if np.isnan(rise.low) else rise)}")
        lines.append(f"| `{method}` | {shown} | {', '.join(rises) or '–'} |")
    return "\n".join(lines) + "\n"


def differences_markdown(summary: Summary) -> str:
    """Table of our accuracy minus that of every other method, paired by clip; empty if ours was not run."""
    if OURS not in summary.methods:
        return ""
    development = summary.conditions(seen=False, in_means=True)
    lines = [f"| `{OURS}` minus | clean, points | development families, points |", "|---|---|---|"]
    for method in summary.methods:
        if method != OURS:
            clean = summary.difference(OURS, method, [CLEAN])
            damaged = summary.difference(OURS, method, development) if development else None
            lines.append(f"| `{method}` | {points(clean)} | {points(damaged)} |")
    return "\n".join(lines) + "\n"


def metrics_of(summary: Summary) -> dict[str, Any]:
    """Rows of the main table as JSON-able values."""
    return {"data": summary.data, "methods": [_without_nan(asdict(row)) for row in rows(summary)]}


def _without_nan(document: Any) -> Any:
    """Replace NaN, which JSON does not have, by None."""
    if isinstance(document, dict):
        return {key: _without_nan(value) for key, value in document.items()}
    return None if isinstance(document, float) and np.isnan(document) else document


def csv_text(summary: Summary) -> str:
    """CSV with a line per method and condition: accuracy and regret with their intervals, and other metrics."""
    file = io.StringIO()
    table = csv.writer(file, lineterminator="\n")
    bounds = ("", "_low", "_high")
    table.writerow(
        ["data", "method", "condition", "group", "seen", "in_means"]
        + [f"{metric}{bound}" for metric in ("accuracy", "regret") for bound in bounds]
        + ["accuracy_spread", *METRICS, "repeats"]
    )
    names = [CLEAN, *summary.conditions()]
    for method in summary.methods:
        regrets, accuracies = summary.regrets(method, names), summary.accuracies(method, names)
        for name in names:
            records = [cell.conditions[name] for cell in summary.cells[method].values()]
            table.writerow(
                [summary.data, method, name, records[0].group, records[0].seen, summary.counts(name, records[0])]
                + _three(accuracies[name])
                + _three(regrets.get(name))
                + [f"{summary.spread(method, name):.6f}"]
                + [f"{np.mean([getattr(r, metric) for r in records]):.6f}" for metric in METRICS]
                + [len(records)]
            )
    return file.getvalue()


def write_tables(summary: Summary, out: Path) -> list[Path]:
    """Write the tables of one data set; return their paths, the main one first."""
    texts = {
        f"{summary.data}.md": f"{markdown(summary)}\n{seen_how_often(out, summary.data)}\n",
        f"{summary.data}.csv": csv_text(summary),
        f"{summary.data}_conditions.md": f"# {summary.data}: accuracy by condition, %\n\n"
        "In brackets 95 % intervals. \\* a family kept for this table, † one that these recordings carry themselves, "
        f"not in the means.\n\n{conditions_markdown(summary)}",
    }
    return [write_text(out / TABLES / name, text) for name, text in texts.items()]


def seen_how_often(out: Path, data: str | None = None) -> str:
    """Sentence that says how often the development families have been scored, on one data set or on all."""
    return (
        f"The development families have been scored {looks(out, data)} times, one training each time "
        f"(`{FORMER_LOG}`, now `{LOG}`)."
    )


def _three(estimate: Estimate | None) -> list[str]:
    return ["", "", ""] if estimate is None else [f"{v:.6f}" for v in (estimate.value, estimate.low, estimate.high)]


def _clean(row: Row) -> str:
    e = row.clean
    return f"{100 * e.value:.1f} ± {100 * row.clean_spread:.1f} [{100 * e.low:.1f}, {100 * e.high:.1f}]"


def percent(estimate: Estimate | None) -> str:
    """Format a share in per cent, with its interval."""
    if estimate is None:
        return "–"
    return f"{100 * estimate.value:.1f} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def plain(estimate: Estimate | None) -> str:
    """Format a metric that is not a share of clips, with its interval."""
    if estimate is None:
        return "–"
    if np.isnan(estimate.low):
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def points(estimate: Estimate | None) -> str:
    """Format a difference in points of accuracy, with its interval."""
    if estimate is None:
        return "–"
    return f"{100 * estimate.value:+.1f} [{100 * estimate.low:+.1f}, {100 * estimate.high:+.1f}]"
