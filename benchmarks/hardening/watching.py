"""What a server process holds: memory, threads, open files, workers."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from support.server_process import ServerProcess

_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Usage:
    """Of the server alone, but for ``workers_mb``, which is the largest of its workers."""

    memory_mb: float
    threads: int
    files: int
    workers: int
    workers_mb: float


def usage(server: ServerProcess) -> Usage:
    """Now."""
    process = server.process.pid
    children = server.children()
    return Usage(
        memory_mb=_memory_mb(process),
        threads=server.threads(),
        files=len(os.listdir(f"/proc/{process}/fd")),  # noqa: PTH208 (entries vanish while they are listed)
        workers=len(children),
        workers_mb=max((_memory_mb(child) for child in children), default=0.0),
    )


def _memory_mb(process: int) -> float:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * _PAGE / 2**20
    return 0.0


def resident_peak_mb(process: int) -> float:
    """The most that a process ever held in memory."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise LookupError("VmHWM")


def spread(values: Iterable[float]) -> str:
    """Least to most."""
    found = list(values)
    return f"{min(found):g} to {max(found):g}"
