"""Output at the end of a run: a summary for people, or JSON for programs."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dimml_client.scoring.run.checkpoint import folder_of
from dimml_client.scoring.run.score_table import RunResult


def result_json(result: RunResult, out: Path, repeated: int, exit_code: int) -> str:
    """Format the result as one JSON object on several lines; ``repeated``: inputs that name a recording again."""
    return json.dumps(
        {
            "out": str(out),
            "complete": result.complete,
            "recordings": result.recordings,
            "done_before": result.first,
            "repeated_inputs": repeated,
            "seconds": round(result.seconds, 3),
            **result.summary.as_dict(),
            "exit_code": exit_code,
        },
        indent=1,
    )


def print_summary(result: RunResult, out: Path, console: Console) -> None:
    """Print rows by status and error, and how to continue if the run was stopped."""
    summary = result.summary
    table = Table(title=f"{summary.rows} rows of {result.recordings} recordings", title_justify="left")
    table.add_column("what")
    table.add_column("rows", justify="right")
    table.add_row("answered", str(summary.rows - summary.failed))
    table.add_row("  of them degraded", str(summary.degraded))
    for code, count in summary.errors.most_common():
        table.add_row(Text(f"error {code}", style="red"), str(count))
    for name, counts in summary.statuses.items():
        for status, count in counts.most_common():
            table.add_row(f"{name} {status}", str(count))
    console.print(table)
    if result.complete:
        scored = result.done - result.first
        rate = scored / result.seconds if result.seconds else 0.0
        _line(console, f"{out}: {f'{result.seconds:.1f} s, {rate:.1f} recordings/s' if scored else 'whole already'}")
    else:
        _line(
            console,
            f"stopped: {result.done} of {result.recordings} recordings are safe in {folder_of(out)}; "
            "the same command goes on from there",
        )


def _line(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
