"""Load over HTTP by clients in threads: requests made before the clock runs, sent and read with sockets alone."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

BOUNDARY = "dimml-benchmark"
#: A client that has waited so long for bytes gives up.
LIMIT_S = 60.0


def http_request(
    data: bytes, classes: int | None = None, path: str = "/v1/predict", explain: str | None = None
) -> bytes:
    """A whole POST with a recording, made before the clock runs: the server is measured, not a client library.

    ``classes``: how many of them to list (dimml's field ``top_k``); ``explain``: dimml's field of that name.
    """
    given = {"top_k": classes, "explain": explain}
    fields = b"".join(
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in given.items()
        if value is not None
    )
    file = 'Content-Disposition: form-data; name="media"; filename="clip.mp4"\r\nContent-Type: video/mp4'
    body = b"".join([fields, f"--{BOUNDARY}\r\n{file}\r\n\r\n".encode(), data, f"\r\n--{BOUNDARY}--\r\n".encode()])
    return raw_request(path, body, {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"})


def raw_request(path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """A whole POST."""
    lines = {"Host": "localhost", "Content-Length": str(len(body)), **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body


def exchange(connection: socket.socket, request: bytes) -> bytes:
    """Send a request, and read its answer's body to the last byte."""
    return exchange_status(connection, request)[1]


def exchange_status(connection: socket.socket, request: bytes) -> tuple[int, bytes]:
    """Send a request; status and body of the answer. Raises OSError for a connection that ends or is too slow."""
    connection.sendall(request)
    received = b""
    while b"\r\n\r\n" not in received:
        received += _some(connection)
    head, _, body = received.partition(b"\r\n\r\n")
    match = re.search(rb"(?i)content-length: (\d+)", head)
    assert match is not None, head
    while len(body) < int(match[1]):
        body += _some(connection)
    return int(head.split(b" ", 2)[1]), body


def _some(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise ConnectionError("the server closed the connection before its answer was complete")
    return data


def connected(address: tuple[str, int], limit_s: float = LIMIT_S) -> socket.socket:
    """A connection without Nagle's delay."""
    connection = socket.create_connection(address, timeout=limit_s)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


@dataclass
class Measured:
    """Requests of one round: seconds of each that was answered 200, the answers by number, and the whole time."""

    seconds: list[float] = field(default_factory=list)
    answers: dict[int, bytes] = field(default_factory=dict)
    #: Number of each other kind of outcome: an HTTP status, or an error's name.
    failures: dict[str, int] = field(default_factory=dict)
    wall_s: float = 0.0

    @property
    def failed(self) -> int:
        """Requests without an answer of status 200."""
        return sum(self.failures.values())


def closed_loop(
    address: tuple[str, int], requests: Sequence[bytes], count: int, clients: int, limit_s: float = LIMIT_S
) -> Measured:
    """``count`` requests, in turn, by clients each of which waits for its answer before the next."""
    return _run(address, requests, count, clients=clients, limit_s=limit_s, due=lambda number, began: None)


def open_loop(
    address: tuple[str, int],
    requests: Sequence[bytes],
    count: int,
    *,
    per_s: float,
    clients: int = 64,
    limit_s: float = LIMIT_S,
) -> Measured:
    """``count`` requests at even distances; each is timed from when it was due, so that waiting behind others counts.

    At most ``clients`` are under way; a request whose turn comes later than it was due has waited.
    """
    due = partial(_due, per_s)
    return _run(address, requests, count, clients=clients, limit_s=limit_s, due=due)


def _due(per_s: float, number: int, began: float) -> float:
    return began + number / per_s


def _run(
    address: tuple[str, int],
    requests: Sequence[bytes],
    count: int,
    *,
    clients: int,
    limit_s: float,
    due: Callable[[int, float], float | None],
) -> Measured:
    measured, lock = Measured(), threading.Lock()
    numbers = iter(range(count))
    ready = threading.Barrier(min(clients, count) + 1)
    began = 0.0

    def client() -> None:
        connection: socket.socket | None = None
        ready.wait()
        ready.wait()
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                break
            at = due(number, began)
            if at is not None:
                time.sleep(max(0.0, at - time.perf_counter()))
            start = time.perf_counter() if at is None else at
            try:
                if connection is None:
                    connection = connected(address, limit_s)
                status, body = exchange_status(connection, requests[number % len(requests)])
                outcome = "" if status == 200 else str(status)
            except OSError as error:
                outcome, body = type(error).__name__, b""
                if connection is not None:
                    connection.close()
                    connection = None
            took = time.perf_counter() - start
            with lock:
                if outcome:
                    measured.failures[outcome] = measured.failures.get(outcome, 0) + 1
                else:
                    measured.seconds.append(took)
                    measured.answers[number] = body
        if connection is not None:
            connection.close()

    threads = [threading.Thread(target=client, daemon=True) for _ in range(min(clients, count))]
    for thread in threads:
        thread.start()
    ready.wait()
    began = time.perf_counter()
    ready.wait()
    for thread in threads:
        thread.join()
    measured.wall_s = time.perf_counter() - began
    return measured
