"""Where the Python code of a process spends its time, by py-spy's samples of the thread that holds the GIL."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from harness import processes

_THREAD = re.compile(r"^thread \((.+?)\)")


@dataclass
class Samples:
    """Samples of one thread, or of those whose names differ by a number: how many, and in which functions."""

    total: int = 0
    #: Where the innermost frame was.
    own: Counter[str] = field(default_factory=Counter)
    #: Where any frame was, once a sample.
    within: Counter[str] = field(default_factory=Counter)


def program() -> str | None:
    """py-spy, if it is installed."""
    return shutil.which("py-spy")


@contextmanager
def recorded(process: int, program: str, rate_hz: int = 400) -> Iterator[dict[str, Samples]]:
    """Sample a process for the block; what this yields is filled in at its end. Raises RuntimeError if py-spy fails."""
    found: dict[str, Samples] = {}
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "stacks"
        words = ["--format", "raw", "--threads", "--gil", "--duration", "unlimited"]
        command = [program, "record", *words, "--rate", str(rate_hz), "--output", str(raw), "--pid", str(process)]
        spy = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            yield found
            names = {
                str(thread): "event loop" if thread == process else one.name
                for thread, one in processes.thread_times(process).items()
            }
        finally:
            spy.send_signal(2)  # As Ctrl-C: it then writes what it has.
            errors = spy.communicate(timeout=60)[1]
        if not raw.exists():
            raise RuntimeError(f"py-spy wrote nothing: {errors.strip()[-500:]}")
        found.update(by_thread(raw.read_text().splitlines(), names))


def by_thread(lines: Sequence[str], names: Mapping[str, str]) -> dict[str, Samples]:
    """Samples by thread, of py-spy's raw format: ``thread (id);frame;frame;… count`` from the outermost frame.

    ``names`` are those of threads by id; threads whose names differ by a number at the end are one.
    """
    found: dict[str, Samples] = {}
    for line in lines:
        stack, _, count_text = line.rpartition(" ")
        frames, count = stack.split(";"), int(count_text)
        match = _THREAD.match(frames[0])
        name = "" if match is None else re.sub(r"[-_]\d+$", "", names.get(match[1], match[1]))
        functions = [_function(frame) for frame in frames[0 if match is None else 1 :]]
        if not functions:
            continue
        samples = found.setdefault(name, Samples())
        samples.total += count
        samples.own[functions[-1]] += count
        for function in set(functions):
            samples.within[function] += count
    return found


def _function(frame: str) -> str:
    """``name (package/file.py)`` of ``name (/long/path/package/file.py:12)``."""
    match = re.fullmatch(r"(.+) \((.+?)(?::\d+)?\)", frame)
    if match is None:
        return frame
    return f"{match[1]} ({'/'.join(Path(match[2]).parts[-2:])})"


def rows(found: Mapping[str, Samples], most: int) -> list[list[str]]:
    """Of each thread with at least 2 % of all samples, the functions found most often, and how often."""
    everything = sum(samples.total for samples in found.values())
    listed = []
    for name, samples in sorted(found.items(), key=lambda item: -item[1].total):
        if samples.total < 0.02 * everything:
            continue
        for function, count in samples.within.most_common(most):
            own = samples.own[function]
            shares = [f"{100 * part / samples.total:.1f} %" for part in (count, own)]
            listed.append([name, f"{100 * samples.total / everything:.0f} %", f"`{function}`", *shares])
    return listed
