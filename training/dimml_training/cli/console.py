"""Options, progress bars and tables that the commands of training share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

CacheDir = Annotated[
    Path | None,
    typer.Option(help="Where decoded clips are kept; by default $XDG_CACHE_HOME/dimml or ~/.cache/dimml."),
]


def show_metrics(title: str, found: dict[str, Any], labels: Sequence[str] = ()) -> None:
    """Print accuracy, macro-F1 and mean weight of every head and of the answer, and what a reader may overlook.

    Where a head has fewer clips than the split, their number stands beside its name.
    """
    from rich.console import Console
    from rich.table import Table

    from dimml_training.evaluation.remarks import metric_remarks

    table = Table(title=title, title_justify="left")
    for column in ("head", "accuracy", "macro-F1", "mean weight"):
        table.add_column(column, justify="left" if column == "head" else "right")
    for head, own in found["heads"].items():
        clips = own.get("clips", found["clips"])
        name = head if clips == found["clips"] else f"{head}, {clips} clips"
        shown = [(own["accuracy"], ".1%"), (own["macro_f1"], ".3f"), (own["mean_weight"], ".2f")]
        table.add_row(name, *("–" if value is None else format(value, form) for value, form in shown))
    table.add_section()
    table.add_row("answer", f"{found['accuracy']:.1%}", f"{found['macro_f1']:.3f}", "")
    console = Console()
    console.print(table)
    for remark in metric_remarks(found, labels):
        console.print(f"note: {remark}", soft_wrap=True, highlight=False, markup=False)


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Progress bar on stderr that starts with the first call ``(done, total)`` and stops when all are done."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    bar = Progress(
        *Progress.get_default_columns()[:-1], MofNCompleteColumn(), TimeRemainingColumn(), console=Console(stderr=True)
    )
    task = None

    def progress(done: int, total: int) -> None:
        nonlocal task
        if task is None:
            bar.start()
            task = bar.add_task(what, total=total)
        bar.update(task, completed=done)
        if done == total:
            bar.stop()

    try:
        yield progress
    finally:
        if task is not None:  # a bar that never started would print an empty line as it stops
            bar.stop()
