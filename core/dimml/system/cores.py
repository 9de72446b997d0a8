"""Number of cores that this process may use: inside a container, the machine's own count says little."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

CGROUP_ROOT: Final = Path("/sys/fs/cgroup")
OWN_CGROUPS: Final = Path("/proc/self/cgroup")


def usable_cores(root: Path = CGROUP_ROOT, own: Path = OWN_CGROUPS) -> int:
    """Return the smallest of the process's affinity and the CPU quotas of its cgroup and all its parents; at least 1.

    Version 2 of cgroups (``cpu.max``) and version 1 (``cpu.cfs_quota_us``), as the kernel's
    Documentation/admin-guide/cgroup-v2.rst and scheduler/sched-bwc.rst describe them. A fraction of a core counts as
    one: a thread that is throttled now and then still does more than no thread.
    """
    cores = len(os.sched_getaffinity(0))
    quota = min(_quotas(root, own), default=math.inf)
    return max(1, min(cores, math.ceil(quota))) if math.isfinite(quota) else cores


def _quotas(root: Path, own: Path) -> Iterator[float]:
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            for folder in _upwards(root, path):
                yield from _version_2(folder)
        elif "cpu" in controllers.split(","):
            for mount in (root / "cpu", root / controllers):
                for folder in _upwards(mount, path):
                    yield from _version_1(folder)


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    """List the cgroup's folder and its parents. In a container only the mount itself may be visible."""
    folder = mount / path.strip("/")
    yield folder
    while folder != mount:
        folder = folder.parent
        yield folder


def _version_2(folder: Path) -> Iterator[float]:
    words = _read(folder / "cpu.max").split()
    if len(words) == 2 and words[0] != "max":
        yield float(words[0]) / float(words[1])


def _version_1(folder: Path) -> Iterator[float]:
    quota, period = _read(folder / "cpu.cfs_quota_us").strip(), _read(folder / "cpu.cfs_period_us").strip()
    if quota and period and float(quota) > 0.0:
        yield float(quota) / float(period)


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
