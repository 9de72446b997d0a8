"""Markdown of a measurement: the machine it was made on, and tables."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def machine() -> str:
    """One line: processor, cores, kernel, load, commit."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=8"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    python = platform.python_version()
    return f"commit {commit}, {model}, {cores} cores, Linux {platform.release()}, Python {python}, load {load:.1f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


class Page:
    """Markdown that is printed as it comes, and kept in a file after every part, so that a stopped run leaves it."""

    def __init__(self, out: Path | None) -> None:
        self._out = out
        self._parts: list[str] = []

    def add(self, part: str) -> None:
        """Append a part."""
        print(f"{part}\n", flush=True)
        self._parts.append(part)
        if self._out is not None:
            self._out.parent.mkdir(parents=True, exist_ok=True)
            self._out.write_text("\n\n".join(self._parts) + "\n")
