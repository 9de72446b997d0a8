"""A real ``dimml serve`` process on free loopback ports, and proof that it goes away cleanly."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from support.forked import SERVER_ENVIRONMENT, ForkedProcess
from support.forked_children import BETWEEN
from support.waiting import wait_until

READY = re.compile(r"ready http=(\S+) grpc=(\S+)")
START_LIMIT_S = 60.0
STOP_LIMIT_S = 30.0


@dataclass
class ServerProcess:
    """A server that takes requests; ``http`` and ``grpc`` are ``host:port``."""

    process: subprocess.Popen[str] | ForkedProcess
    http: str
    grpc: str
    log_lines: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Base URL of the HTTP side."""
        return f"http://{self.http}"

    @property
    def log(self) -> str:
        """What it has written to stderr so far."""
        return "".join(self.log_lines)

    def wait_for_log(self, text: str, limit_s: float = 10.0) -> None:
        """Block until ``text`` stands in the log."""
        wait_until(lambda: text in self.log, limit_s, lambda: f"{text!r} is not in the log:\n{self.log}", every_s=0.01)

    def metric(self, name: str, **labels: str) -> float:
        """Sum of a metric's samples that carry these labels."""
        # Without httpx, which reads all certificates of the system for every client: tests look often.
        with contextlib.closing(http.client.HTTPConnection(self.http, timeout=60.0)) as connection:
            connection.request("GET", "/metrics")
            families = text_string_to_metric_families(connection.getresponse().read().decode())
        return sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def wait_for_metric(self, name: str, value: float, limit_s: float = 10.0, **labels: str) -> None:
        """Block until a metric has this value."""
        wait_until(
            lambda: self.metric(name, **labels) == value,
            limit_s,
            lambda: f"{name} is {self.metric(name, **labels)}, not {value}",
            every_s=0.05,
        )

    def wait_for_load(self, in_flight: int, queued: int) -> None:
        """Block until so many requests are worked on and so many wait for their turn."""
        self.wait_for_metric("dimml_requests_in_flight", in_flight)
        self.wait_for_metric("dimml_requests_queued", queued)

    def threads(self) -> int:
        """Threads of the server process."""
        return len(list(Path(f"/proc/{self.process.pid}/task").iterdir()))

    def children(self) -> list[int]:
        """Processes that the server has started and that are still there."""
        return [process for process, parent in _parents().items() if parent == self.process.pid]

    def descendants(self) -> list[int]:
        """The same, and all that those have started."""
        parents, found = _parents(), [self.process.pid]
        for process in found:
            found += [child for child, parent in parents.items() if parent == process]
        return found[1:]


def _parents() -> dict[int, int]:
    """All processes that have not ended, and who started each; without those that are between (forked_children)."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name, in brackets, may hold spaces; state and parent follow it.
            name, _, rest = stat.read_text().partition("(")[2].rpartition(")")
            state, parent = rest.split()[:2]
            if state != "Z" and name != BETWEEN:
                found[int(stat.parent.name)] = int(parent)
    return found


def serve_command(
    repository: Path, settings: dict[str, object], script: Path | None = None, python: str = sys.executable
) -> list[str]:
    """Command line of a server on free ports; ``script`` replaces ``dimml serve`` (see ``faulty_server.py``)."""
    given = {"http_port": 0, "grpc_port": 0, **settings}
    start = ["-m", "dimml", "serve"] if script is None else [str(script)]
    return [
        python,
        *start,
        "--repository",
        str(repository),
        *(f"--set={name}={_as_text(value)}" for name, value in given.items()),
    ]


@contextmanager
def running_server(
    repository: Path,
    *,
    script: Path | None = None,
    python: str = sys.executable,
    stop: bool = True,
    code: int = 0,
    environment: Mapping[str, str] | None = None,
    fresh: bool | None = None,
    **settings: object,
) -> Iterator[ServerProcess]:
    """Start a server, wait for its ready line, and at the end stop it by SIGTERM.

    Asserts that it exits with ``code`` and leaves no process behind. With ``stop=False`` the test has stopped it
    itself. ``environment`` is on top of our own, ``python`` another one than ours; with either, or with ``fresh=True``,
    it is started from nothing, and otherwise forked with its modules imported (``support.forked``), as it is with
    ``fresh=False`` for variables that are read after that. It has one decode worker, and one more where a script may
    lose it, unless ``decode_workers`` says otherwise: users want one per core, but each is another start.
    """
    command = serve_command(repository, {"decode_workers": 1 if script is None else 2} | settings, script, python)
    process: subprocess.Popen[str] | ForkedProcess
    if fresh is None:
        fresh = environment is not None or python != sys.executable
    if fresh:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | SERVER_ENVIRONMENT | dict(environment or {}),
        )
    else:
        process = ForkedProcess(command, environment=environment)
    assert process.stdout is not None
    assert process.stderr is not None
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.extend(iter(process.stderr.readline, "")), daemon=True)
    reader.start()
    watchdog = threading.Timer(START_LIMIT_S, process.kill)
    watchdog.start()
    try:
        ready = READY.fullmatch(process.stdout.readline().strip())
        watchdog.cancel()
        if ready is None:
            process.wait(STOP_LIMIT_S)
            reader.join(STOP_LIMIT_S)
            raise AssertionError(f"the server did not start (exit {process.returncode}):\n{''.join(lines)}")
        server = ServerProcess(process, ready[1], ready[2], lines)
        yield server
        children = server.descendants()
        if stop:
            process.send_signal(signal.SIGTERM)
        exit_code = process.wait(STOP_LIMIT_S)
        reader.join(STOP_LIMIT_S)
        assert exit_code == code, f"exit code {exit_code}:\n{server.log}"
        left = [child for child in children if Path(f"/proc/{child}").exists()]
        assert not left, f"processes left behind: {left}"
    finally:
        watchdog.cancel()
        if process.poll() is None:
            process.kill()
            process.wait()
        reader.join(STOP_LIMIT_S)
        process.stdout.close()
        process.stderr.close()


def _as_text(value: object) -> str:
    if isinstance(value, dict):
        return ",".join(f"{name}={item}" for name, item in value.items())
    return value if isinstance(value, str) else json.dumps(value)
