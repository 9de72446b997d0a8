"""Decode workers killed, and the whole server stopped and started again, behind clients that repeat their calls."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import threading
import time
from collections import Counter
from contextlib import ExitStack

from dimml.errors import DimmlError
from dimml_client import Client
from hardening import recordings
from hardening.report import Report, ms
from support.server_process import ServerProcess, running_server

CLIENTS = 4
#: What a client allows a call in all: more than a restart takes on a busy machine.
CLIENT_TIMEOUT_S = 60.0
CLIENT_RETRIES = 12


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as it:
        return int(it.getsockname()[1])


class _Callers:
    """Threads that predict without a pause, over HTTP and gRPC in turn."""

    def __init__(self, urls: list[str]) -> None:
        self.outcomes: Counter[str] = Counter()
        self.took_s: list[float] = []
        self.not_taken = 0
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._call, args=(urls[n % len(urls)],)) for n in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _call(self, url: str) -> None:
        with Client(url, timeout_s=CLIENT_TIMEOUT_S, retries=CLIENT_RETRIES) as client:
            while not self._stop.is_set():
                began = time.monotonic()
                try:
                    answer = client.predict(recordings.GOOD)
                    outcome = "degraded" if answer.degraded else "ok"
                except DimmlError as error:
                    if "cannot connect" in str(error):
                        # Nobody has taken it: the client says so at once, and leaves it to its caller to wait.
                        with self._lock:
                            self.not_taken += 1
                        time.sleep(0.2)
                        continue
                    outcome = f"{url.split(':', maxsplit=1)[0]}: {type(error).__name__}: {error}"
                with self._lock:
                    self.outcomes[outcome] += 1
                    self.took_s.append(time.monotonic() - began)

    def stop(self) -> None:
        """Let every call that is running end."""
        self._stop.set()
        for thread in self._threads:
            thread.join(CLIENT_TIMEOUT_S + 10)


def _kill_workers(server: ServerProcess, end: float, random_: random.Random) -> int:
    """One every second until ``end``."""
    killed = 0
    while time.monotonic() < end - 1.0:
        time.sleep(1.0)
        children = server.children()
        if children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(random_.choice(children), signal.SIGKILL)
                killed += 1
    time.sleep(max(0.0, end - time.monotonic()))
    return killed


def kill(*, seconds: float, restart_every_s: float = 10.0) -> Report:
    """A worker killed every second, the server ended by SIGTERM every ``restart_every_s`` and started again."""
    report = Report(f"Kill: a decode worker every second, SIGTERM every {restart_every_s:g} s, for {seconds:g} s")
    ports = {"http_port": _free_port(), "grpc_port": _free_port()}
    killed = restarts = 0
    callers: _Callers | None = None
    end = time.monotonic() + seconds
    with ExitStack() as stack:
        while time.monotonic() < end:
            # Leaving it sends SIGTERM, and asserts exit code 0 and that no process is left.
            with running_server(recordings.REPOSITORY, log_level="error", **ports) as server:
                if callers is None:
                    callers = _Callers([f"http://{server.http}", f"grpc://{server.grpc}"])
                    stack.callback(callers.stop)
                killed += _kill_workers(server, min(end, time.monotonic() + restart_every_s), random.Random(restarts))
                restarts += 1
                if time.monotonic() >= end:
                    callers.stop()
    assert callers is not None
    report.note("workers killed, servers started", f"{killed}, {restarts}")
    total = sum(callers.outcomes.values())
    report.note("calls", f"{total}: " + ", ".join(f"{name}: {n}" for name, n in callers.outcomes.most_common(6)))
    report.note(
        "a call, repetitions included: median, p99, most", ", ".join(ms(callers.took_s, q) for q in (0.5, 0.99, 1))
    )
    report.note("attempts at a server that was away", callers.not_taken)
    failed = total - callers.outcomes["ok"] - callers.outcomes["degraded"]
    report.check("calls without an answer", failed, "0", failed == 0 and total > 0)
    report.note("every server's exit", "0, no process left")
    return report
