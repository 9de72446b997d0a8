"""What traces and JSON logs add to a request: servers side by side, the same clip to each in turn.

    python benchmarks/tracing.py
    python benchmarks/tracing.py --requests 500 --before ../main     # and an older checkout's server

Every server has the demo bundle and one client at a time; a collector in a process of its own takes the spans. Ratios
are of medians, to the server without traces and with text lines. The CPU time of the server's process, sending spans
included, is given beside them: it says more where the machine is busy.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.load import exchange, http_request

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

ROOT = Path(__file__).parents[1]
BUNDLE = "avdigits"
CLASSES = 10
COMPONENTS = ("core", "training", "export", "server", "clients")


class Sink(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


def collect(port: Connection) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    port.send(server.server_address[1])
    server.serve_forever()


@contextmanager
def collector() -> Iterator[str]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=collect, args=(theirs,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}"
    finally:
        process.terminate()


@contextmanager
def server(checkout: Path, *settings: str) -> Iterator[tuple[tuple[str, int], int]]:
    """Address and process of a server of a checkout."""
    ports = ("http_port=0", "grpc_port=0", f"models={BUNDLE}")
    command = [sys.executable, "-m", "dimml", "serve", "--repository", str(ROOT / "model_repository")]
    path = os.pathsep.join(str(checkout / component) for component in COMPONENTS)
    process = subprocess.Popen(
        [*command, *(f"--set={setting}" for setting in (*ports, *settings))],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert process.stdout is not None
    ready = re.search(r"ready http=(\S+):(\d+)", process.stdout.readline())
    assert ready is not None, "the server did not start"
    try:
        yield (ready[1], int(ready[2])), process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@contextmanager
def connection_to(address: tuple[str, int]) -> Iterator[socket.socket]:
    with socket.create_connection(address) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(60.0)
        yield connection


def cpu_time_s(pid: int) -> float:
    """User and system time of a process, its decode workers' left out."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--before", type=Path, help="another checkout, whose server is measured beside them")
    arguments = parser.parse_args()
    request = http_request((ROOT / "samples" / "clean_three.mp4").read_bytes(), CLASSES)
    load_before = os.getloadavg()[0]
    with ExitStack() as stack:
        traces = f"traces_endpoint={stack.enter_context(collector())}"
        asked: dict[str, tuple[str, ...]] = {
            "off, text": (),
            "off, json": ("log_format=json",),
            "1 % traced": (traces, "traces_ratio=0.01"),
            "all traced": (traces, "traces_ratio=1.0"),
        }
        servers = {name: stack.enter_context(server(ROOT, *settings)) for name, settings in asked.items()}
        if arguments.before is not None:
            servers["before"] = stack.enter_context(server(arguments.before.resolve()))
        # Once all have started: a server cuts off who connects and says nothing for long.
        connections = {name: stack.enter_context(connection_to(address)) for name, (address, _) in servers.items()}
        seconds: dict[str, list[float]] = {name: [] for name in connections}
        cpu_s: dict[str, float] = {}
        for number in range(-20, arguments.requests):
            if number == 0:
                cpu_s = {name: -cpu_time_s(pid) for name, (_, pid) in servers.items()}
            for name, connection in connections.items():
                began = time.perf_counter()
                answer = exchange(connection, request)
                if number >= 0:
                    seconds[name].append(time.perf_counter() - began)
                assert b'"label":"three"' in answer, answer
        time.sleep(6.0)  # The last batch of spans leaves within five.
        for name, (_, pid) in servers.items():
            cpu_s[name] += cpu_time_s(pid)
    print(f"load average before {load_before:.2f}, after {os.getloadavg()[0]:.2f}; {arguments.requests} requests each")
    base = statistics.median(seconds["off, text"])
    for name, values in seconds.items():
        median, p90 = statistics.median(values), statistics.quantiles(values, n=10)[-1]
        cpu_ms, ratio = 1000 * cpu_s[name] / arguments.requests, cpu_s[name] / cpu_s["off, text"]
        print(f"{name:11} median {1000 * median:6.2f} ms   p90 {1000 * p90:6.2f} ms   ratio {median / base:.3f}")
        print(f"{'':11} CPU of the server process {cpu_ms:.2f} ms a request, ratio {ratio:.3f}")


if __name__ == "__main__":
    main()
