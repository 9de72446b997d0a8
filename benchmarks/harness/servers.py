"""A server under measurement: all of its processes on one core, its load from another, rounds that others spoiled."""

from __future__ import annotations

import os
import signal
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from harness import processes
from harness.load import Measured, connected, exchange_status

START_LIMIT_S, STOP_LIMIT_S = 60.0, 15.0
#: Largest share of a core's time that others may take during a round; past it, the round does not count. /proc/stat
#: counts in 10 ms: a round of less than a second is judged coarsely.
OTHERS_LIMIT = 0.03


def two_cores() -> tuple[int, int]:
    """The server's core and the load generator's. Raises SystemExit on a machine with one."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise SystemExit("this needs two cores: one for the server, one for the load")
    return cores[0], cores[-1]


def free_port() -> int:
    """A port of the loopback interface with no listener."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@dataclass
class Running:
    """A server that answers."""

    address: tuple[str, int]
    process: subprocess.Popen[bytes]
    core: int

    def processes(self) -> list[int]:
        """All of its processes."""
        return processes.tree(self.process.pid)


@contextmanager
def started(
    command: Sequence[str], environment: Mapping[str, str], *, port: int, probe: bytes, core: int
) -> Iterator[Running]:
    """Start a server on one core; yield once it answers ``probe`` with 200, and end all of its processes.

    Raises RuntimeError with the end of its output if it does not come to that.
    """
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            start_new_session=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),  # noqa: PLW1509 - no other thread runs yet
        )
        server = Running(("127.0.0.1", port), process, core)
        known: list[int] = []
        try:
            _wait_for_answer(server, probe, output)
            known = server.processes()
            yield server
        finally:
            _stop(process, known)


def _wait_for_answer(server: Running, probe: bytes, output: tempfile._TemporaryFileWrapper[bytes]) -> None:
    end, last = time.monotonic() + START_LIMIT_S, "no answer"
    while time.monotonic() < end and server.process.poll() is None:
        try:
            with connected(server.address, limit_s=30.0) as connection:
                status, body = exchange_status(connection, probe)
            if status == 200:
                return
            last = f"{status}: {body[:300]!r}"
        except OSError as error:
            last = repr(error)
        time.sleep(0.1)
    output.seek(0)
    raise RuntimeError(f"the server did not answer ({last}):\n{output.read()[-3000:].decode(errors='replace')}")


def _stop(process: subprocess.Popen[bytes], known: Sequence[int]) -> None:
    process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_LIMIT_S)
    # Its own session, so whatever is left in it is of this server alone.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    end = time.monotonic() + STOP_LIMIT_S
    while time.monotonic() < end and (left := [child for child in known if Path(f"/proc/{child}").exists()]):
        for child in left:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        time.sleep(0.02)


@dataclass
class Round:
    """One round of load on one server."""

    rate: float
    cpu_ms: float
    p50_ms: float
    p99_ms: float
    memory_bytes: int
    answered: int
    failed: int
    #: Share of the two cores' time that others took; the server's core, the generator's.
    others: tuple[float, float]
    #: Requests whose label is not the reference's.
    differing: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)
    #: Why the round does not count, else empty.
    spoiled: str = ""


def measure(
    server: Running, load_core: int, load: Callable[[], Measured], others_limit: float = OTHERS_LIMIT
) -> tuple[Round, Measured]:
    """One round of ``load`` on a server whose threads are all pinned; this process must be on ``load_core``."""
    members = server.processes()
    processes.pin(members, server.core)
    cores = (server.core, load_core)
    own_s, idle_s = -time.process_time(), [-processes.idle_s(core) for core in cores]
    spent_s, began = -processes.spent_s(members), time.perf_counter()
    measured = load()
    wall_s = time.perf_counter() - began
    spent_s += processes.spent_s(members)
    own_s += time.process_time()
    idle_s = [before + processes.idle_s(core) for before, core in zip(idle_s, cores, strict=True)]
    others = (max(0.0, 1.0 - (idle_s[0] + spent_s) / wall_s), max(0.0, 1.0 - (idle_s[1] + own_s) / wall_s))
    spoiled = ""
    if set(server.processes()) != set(members):
        spoiled = "processes of the server began or ended"
    elif not processes.pinned(members, server.core):
        spoiled = "a thread of the server left its core"
    elif max(others) > others_limit:
        spoiled = f"others took {100 * others[0]:.0f} % and {100 * others[1]:.0f} % of the cores"
    seconds, count = measured.seconds, len(measured.seconds) + measured.failed
    return Round(
        rate=len(seconds) / measured.wall_s,
        cpu_ms=1000 * spent_s / count,
        p50_ms=1000 * statistics.median(seconds) if seconds else float("nan"),
        p99_ms=1000 * float(np.quantile(seconds, 0.99)) if seconds else float("nan"),
        memory_bytes=processes.pss_bytes(members),
        answered=len(seconds),
        failed=measured.failed,
        others=others,
        failures=dict(measured.failures),
        spoiled=spoiled,
    ), measured
