"""How a run ended, for a person and for a machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from dimml_client.scoring.run import Outcome


def as_document(outcome: Outcome, out: Path, repeated: int) -> dict[str, Any]:
    """What ``--json`` prints."""
    return {
        "out": str(out),
        "complete": outcome.complete,
        "recordings": outcome.recordings,
        "done_before": outcome.first,
        "repeated_inputs": repeated,
        "seconds": round(outcome.seconds, 3),
        **outcome.summary.as_dict(),
    }


def show(outcome: Outcome, out: Path, repeated: int, console: Console) -> None:
    """Counts by status and error, and what to do next."""
    summary = outcome.summary
    if summary.rows:
        table = Table(title=None)
        for heading in ("", "status", "rows"):
            table.add_column(heading, justify="right" if heading == "rows" else "left")
        table.add_row("answer", "given", str(summary.rows - summary.failed))
        table.add_row("", "of these degraded", str(summary.degraded))
        for code, count in summary.errors.most_common():
            table.add_row("error", code, str(count))
        for name, counts in summary.statuses.items():
            for status, count in counts.most_common():
                table.add_row(name, status, str(count))
        console.print(table)
    if repeated:
        _line(console, f"{repeated} inputs name a recording that another one names too; each has a row of its own")
    scored = outcome.done - outcome.first
    rate = f" at {scored / outcome.seconds:.1f}/s" if scored and outcome.seconds > 0.0 else ""
    if not outcome.complete:
        _line(
            console,
            f"stopped: {outcome.done} of {outcome.recordings} recordings are safe; the same command goes on from there",
        )
    elif not scored:
        _line(console, f"{out} was whole already: {summary.rows} rows")
    else:
        _line(console, f"{out}: {summary.rows} rows, {scored} of them now{rate}")


def _line(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
