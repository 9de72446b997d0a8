"""The table that a script prints, and what is judged in it."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Report:
    """Rows of what was measured; ``failures`` are those that missed their bound."""

    title: str
    rows: list[tuple[str, str, str]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def note(self, what: str, found: object) -> None:
        """A row that nothing is asked of."""
        self.rows.append((what, str(found), ""))

    def check(self, what: str, found: object, bound: str, held: bool) -> None:
        """A row with its bound in words, and whether it held."""
        self.rows.append((what, str(found), bound if held else f"{bound}: **missed**"))
        if not held:
            self.failures.append(f"{what}: {found}, must be {bound}")

    def __str__(self) -> str:
        load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
        machine = f"{os.cpu_count()} × {platform.machine()}, Linux {platform.release()}, load average at the end {load}"
        lines = [f"### {self.title}", "", f"Machine: {machine}.", "", "| what | found | must be |", "|---|---|---|"]
        return "\n".join([*lines, *(f"| {what} | {found} | {bound} |" for what, found, bound in self.rows)])


def quantile(values: Sequence[float], share: float) -> float:
    """The value that ``share`` of them do not exceed; NaN of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def ms(values: Sequence[float], share: float) -> str:
    """A quantile of seconds, in milliseconds."""
    return f"{quantile(values, share) * 1000:.0f} ms"
