"""Progress display of a run: position, rate, remaining time, errors, share of degraded answers."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dimml_client.scoring.run.summary import Summary


class ScoreProgress:
    """A bar on stderr if that is a terminal, else occasional lines; nothing with ``quiet``. A context manager."""

    #: Seconds between two lines without a terminal.
    LINE_S = 30.0

    def __init__(self, total: int, done: int, *, quiet: bool) -> None:
        self._console = Console(stderr=True, quiet=quiet)
        self._bar = Progress(
            TextColumn("scoring"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[counts]}"),
            console=self._console,
            disable=quiet or not self._console.is_terminal,
            transient=True,
        )
        self._total = total
        self._done = done
        #: When the first one was done, and how many were done by then: start-up is not part of the rate.
        self._first: tuple[float, int] | None = None
        self._task = self._bar.add_task("", total=total, completed=done, rate="", counts="")
        self._last_line = self._bar.get_time()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        self._console.print(text, highlight=False, markup=False)

    def recording_done(self, summary: Summary) -> None:
        """Report that one more recording has all its rows."""
        self._done += 1
        now = self._bar.get_time()
        self._first = self._first or (now, self._done)
        rate = (self._done - self._first[1]) / max(1e-6, now - self._first[0])
        share = summary.degraded / max(1, summary.rows)
        counts = f"{summary.failed} errors, {share:.1%} degraded"
        if self._bar.disable:
            if now - self._last_line >= self.LINE_S:
                self._last_line = now
                left = f"{(self._total - self._done) / rate:.0f} s" if rate else "unknown time"
                self.note(f"{self._done} of {self._total} recordings, {rate:.1f}/s, {left} left, {counts}")
            return
        self._bar.update(self._task, completed=self._done, rate=f"{rate:.1f}/s", counts=counts)
