"""Processes of a server under measurement: their tree, processor time, memory and cores, from /proc."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
#: Fields of a core's line in /proc/stat: idle and iowait.
_IDLE_FIELDS = (3, 4)


def tree(pid: int) -> list[int]:
    """A process and all below it that have not ended, parents first."""
    below = _by_parent()
    found = [pid]
    for process in found:
        found += below.get(process, [])
    return found


def children(pid: int) -> list[int]:
    """Processes that this one has started and that have not ended."""
    return _by_parent().get(pid, [])


def _by_parent() -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # The name, in brackets, may hold spaces; state and parent follow it.
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if state not in "ZX":
                found.setdefault(int(parent), []).append(int(stat.parent.name))
    return found


def processor_s(process: int) -> float:
    """Processor time of a process with all of its threads, to the nanosecond: its clock, clock_getcpuclockid(3)."""
    return time.clock_gettime((~process << 3) | 2)


def spent_s(processes: Iterable[int]) -> float:
    """Processor time of all of them. Raises RuntimeError if one has ended, since its time is not known then."""
    try:
        return sum(map(processor_s, processes))
    except OSError as error:
        raise RuntimeError("a process of the server ended meanwhile: its processor time is not known") from error


def pss_bytes(processes: Iterable[int]) -> int:
    """Memory in bytes, pages that several processes share divided among them."""
    total = 0
    for process in processes:
        with suppress(OSError):
            for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += 1024 * int(line.split()[1])
    return total


def pin(processes: Iterable[int], core: int) -> None:
    """Put every thread on one core: libraries such as ONNX Runtime place their threads themselves."""
    for process in processes:
        for task in Path(f"/proc/{process}/task").glob("*"):
            with suppress(OSError):
                os.sched_setaffinity(int(task.name), {core})


def pinned(processes: Iterable[int], core: int) -> bool:
    """Whether every thread may run on this core alone."""
    for process in processes:
        for task in Path(f"/proc/{process}/task").glob("*"):
            with suppress(OSError):
                if os.sched_getaffinity(int(task.name)) != {core}:
                    return False
    return True


@dataclass(frozen=True)
class ThreadTime:
    """Processor seconds of one thread by the scheduler's account, and its name."""

    process: int
    thread: int
    name: str
    seconds: float


def thread_times(process: int) -> dict[int, ThreadTime]:
    """Of every thread of a process that has not ended, by thread."""
    found = {}
    for task in Path(f"/proc/{process}/task").glob("*"):
        with suppress(OSError):
            name = (task / "comm").read_text().strip()
            schedstat = task / "schedstat"
            if schedstat.exists():
                seconds = int(schedstat.read_text().split()[0]) / 1e9
            else:
                fields = (task / "stat").read_text().rpartition(")")[2].split()
                seconds = (int(fields[11]) + int(fields[12])) / TICKS_PER_S
            found[int(task.name)] = ThreadTime(process, int(task.name), name, seconds)
    return found


def idle_s(core: int) -> float:
    """Seconds since boot in which a core had nothing to do, or only waited for a disk; to 10 ms.

    Linux times idleness exactly, and what a core is busy with by samples only, which are too coarse for a second.
    """
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith(f"cpu{core} "):
            fields = line.split()[1:]
            return sum(int(fields[number]) for number in _IDLE_FIELDS) / TICKS_PER_S
    raise RuntimeError(f"/proc/stat has no line of core {core}")
