"""A real Triton server through ``dimml triton``, on free loopback ports, and proof that it goes away cleanly."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from dimml_server.triton_server.shared_memory import SHARED_MEMORY
from support.data import unavailable
from support.waiting import wait_until

READY = re.compile(r"ready http=(\S+) grpc=(\S+) metrics=(\S+)")
#: The first start fetches the server.
START_LIMIT_S = 400.0
STOP_LIMIT_S = 60.0
_CANNOT_BE_HAD = re.compile(r"error: (Triton's server (?:needs|runs)|pip has Triton|cannot (?:get|make)).*")


@dataclass
class TritonServer:
    """A Triton server that takes requests; addresses are ``host:port``."""

    process: subprocess.Popen[str]
    http: str
    grpc: str
    metrics: str
    log_lines: list[str] = field(default_factory=list)

    @property
    def log(self) -> str:
        """What it has written to stderr so far."""
        return "".join(self.log_lines)

    def wait_for_log(self, text: str, limit_s: float = 60.0, count: int = 1) -> None:
        """Block until ``text`` stands in the log, ``count`` times."""
        wait_until(lambda: self.log.count(text) >= count, limit_s, lambda: f"{text!r} is not in the log:\n{self.log}")

    def metric(self, name: str, **labels: str) -> float:
        """Sum of a metric's samples that carry these labels."""
        # The parser adds _total to counters that lack it, as those do that a histogram consists of.
        names = {name, f"{name}_total"}
        families = text_string_to_metric_families(httpx.get(f"http://{self.metrics}/metrics").text)
        return sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name in names and labels.items() <= sample.labels.items()
        )

    def server_pid(self) -> int:
        """The process of Triton itself, below `dimml triton`."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        (pid,) = (int(c) for c in children if "tritonserver" in Path(f"/proc/{c}/cmdline").read_text())
        return pid

    def stubs(self, model: str) -> list[int]:
        """Processes of a model's instances."""
        found = []
        for command in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                words = command.read_text().split("\0")
                if len(words) > 2 and f"/{model}/" in words[1] and words[2].startswith(self.prefix):
                    found.append(int(command.parent.name))
        return found

    @property
    def prefix(self) -> str:
        """What its regions in /dev/shm begin with."""
        opened = set()
        for link in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with contextlib.suppress(OSError):  # Closed meanwhile.
                opened.add(link.readlink())
        (lock,) = (path for path in opened if path.parent == SHARED_MEMORY and path.suffix == ".lock")
        return lock.stem


def triton_command(repository: Path, **options: object) -> list[str]:
    """Command line of ``dimml triton`` on free ports; ``options`` are its flags by name, a list for a repeated one."""
    given = {"http_port": 0, "grpc_port": 0, "metrics_port": 0, **options}
    flags = [
        f"--{name.replace('_', '-')}={value}"
        for name, values in given.items()
        for value in (values if isinstance(values, list) else [values])
    ]
    return [sys.executable, "-m", "dimml", "triton", "--repository", str(repository), *flags]


def refusal(repository: Path, **options: object) -> str:
    """What a start that fails says: exit code 1, and one line."""
    done = subprocess.run(
        triton_command(repository, **options), capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 1, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert done.stdout == ""
    return line


@contextmanager
def running_triton(
    repository: Path, *, stop: bool = True, killed: bool = False, **options: object
) -> Iterator[TritonServer]:
    """Start Triton, wait for its ready line, and at the end stop it by SIGTERM.

    Skips the test where no server can be had. Asserts that it exits with 0 and leaves no shared memory behind; with
    ``killed`` the test has killed it, and what it left is cleared by the next start.
    """
    process = subprocess.Popen(
        triton_command(repository, **options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.extend(iter(process.stderr.readline, "")), daemon=True)
    reader.start()
    watchdog = threading.Timer(START_LIMIT_S, process.terminate)
    watchdog.start()
    try:
        ready = READY.fullmatch(process.stdout.readline().strip())
        watchdog.cancel()
        if ready is None:
            process.wait(STOP_LIMIT_S)
            reader.join(STOP_LIMIT_S)
            said = "".join(lines)
            if _CANNOT_BE_HAD.search(said):
                unavailable(f"no Triton server can be had: {said.strip().splitlines()[-1]}")
            raise AssertionError(f"Triton did not start (exit {process.returncode}):\n{said}")
        server = TritonServer(process, ready[1], ready[2], ready[3], lines)
        prefix = server.prefix
        yield server
        if killed:
            return
        if stop:
            process.send_signal(signal.SIGTERM)
        code = process.wait(STOP_LIMIT_S)
        reader.join(STOP_LIMIT_S)
        assert code == 0, f"exit code {code}:\n{server.log}"
        left = list(SHARED_MEMORY.glob(f"{prefix}*"))
        assert not left, f"left behind: {left}"
    finally:
        watchdog.cancel()
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        reader.join(STOP_LIMIT_S)
        process.stdout.close()
        process.stderr.close()
