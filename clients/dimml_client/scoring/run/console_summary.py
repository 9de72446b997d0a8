"""What a run says at its end: a summary for people, or JSON for machines."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dimml_client.scoring.run.checkpoint import folder_of
from dimml_client.scoring.run.score_table import Outcome


def outcome_json(outcome: Outcome, out: Path, repeated: int, exit_code: int) -> str:
    """One object on several lines; ``repeated`` inputs name a recording again."""
    return json.dumps(
        {
            "out": str(out),
            "complete": outcome.complete,
            "recordings": outcome.recordings,
            "done_before": outcome.first,
            "repeated_inputs": repeated,
            "seconds": round(outcome.seconds, 3),
            **outcome.summary.as_dict(),
            "exit_code": exit_code,
        },
        indent=1,
    )


def tell(outcome: Outcome, out: Path, console: Console) -> None:
    """Rows by status and error, and how to go on where it was stopped."""
    summary = outcome.summary
    table = Table(title=f"{summary.rows} rows of {outcome.recordings} recordings", title_justify="left")
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
    if outcome.complete:
        scored = outcome.done - outcome.first
        rate = scored / outcome.seconds if outcome.seconds else 0.0
        _line(console, f"{out}: {f'{outcome.seconds:.1f} s, {rate:.1f} recordings/s' if scored else 'whole already'}")
    else:
        _line(
            console,
            f"stopped: {outcome.done} of {outcome.recordings} recordings are safe in {folder_of(out)}; "
            "the same command goes on from there",
        )


def _line(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
