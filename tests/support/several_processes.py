"""Clients of a server of several processes, of which it is known which process holds their connection."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from dimml_server.security.keys import new_key
from support.server_process import ServerProcess
from support.waiting import wait_until

LABEL = 1
OPS, OPS_LINE = new_key("ops", admin=True)
NARROW, NARROW_LINE = new_key("narrow", concurrent=1)
LATER, LATER_LINE = new_key("later")


def owner_of(server: ServerProcess, client_port: int, server_port: int) -> int | None:
    """The process of the server that holds its end of a connection from ``client_port``; None if none does."""
    held = {f"socket:[{inode}]" for own, client, inode in _established() if (own, client) == (server_port, client_port)}
    for process in [server.process.pid, *server.descendants()]:
        with contextlib.suppress(OSError):
            if held & {str(link.readlink()) for link in Path(f"/proc/{process}/fd").iterdir()}:
                return process
    return None


def clients_of(server_port: int) -> set[int]:
    """Ports of the clients that have a connection to a port of this machine."""
    return {client for own, client, _ in _established() if own == server_port}


def _established() -> Iterator[tuple[int, int, str]]:
    """Port here, port there and inode of all open connections; gRPC's are in the table of IPv6 in any case."""
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "01":
                yield int(fields[1].rpartition(":")[2], 16), int(fields[2].rpartition(":")[2], 16), fields[9]


class Pinned:
    """A client that keeps one connection; ``process`` is the one that holds it."""

    def __init__(self, server: ServerProcess, key: str) -> None:
        limits = httpx.Limits(max_connections=1)
        self.http = httpx.Client(base_url=server.url, timeout=60.0, limits=limits, headers={"X-API-Key": key})
        response = self.http.get("/health/live")
        assert response.status_code == 200
        port = response.extensions["network_stream"].get_extra_info("client_addr")[1]
        owner = owner_of(server, port, int(server.http.rpartition(":")[2]))
        assert owner is not None
        self.process = owner

    def predict(self, clip: bytes, key: str | None = None, **fields: str) -> httpx.Response:
        """Ask for a prediction, with its own key or another."""
        headers = {} if key is None else {"X-API-Key": key}
        return self.http.post("/v1/predict", files={"media": clip}, data=fields, headers=headers)


@contextmanager
def one_client_each(server: ServerProcess, key: str, processes: int = 2) -> Iterator[list[Pinned]]:
    """A client of each process."""
    with ExitStack() as stack:
        found: dict[int, Pinned] = {}
        for _ in range(20):
            pinned = Pinned(server, key)
            stack.callback(pinned.http.close)
            found.setdefault(pinned.process, pinned)
            if len(found) == processes:
                break
        assert len(found) == processes, f"of {processes} processes only {set(found)} take connections"
        yield list(found.values())


def connected(server: ServerProcess, process: int | None) -> socket.socket:
    """A connection to one process of the server, or to any."""
    host, port = server.http.split(":")
    with ExitStack() as others:
        # The next ones go elsewhere while those that went astray are open.
        for _ in range(20):
            connection = socket.create_connection((host, int(port)), timeout=60.0)
            if process is None:
                return connection
            client_port = connection.getsockname()[1]
            wait_until(lambda client_port=client_port: owner_of(server, client_port, int(port)))  # type: ignore[misc]
            if owner_of(server, client_port, int(port)) == process:
                return connection
            others.callback(connection.close)
    raise AssertionError(f"process {process} takes no connection")


def begun(
    server: ServerProcess, clip: bytes, key: str = OPS, *, whole: bool = True, process: int | None = None
) -> tuple[socket.socket, bytes]:
    """A connection, to one process or any, on which a prediction has been sent, or half of it; and the rest of it.

    Half of one is being read, or has been refused.
    """
    headers = {"X-API-Key": key} if whole else {"X-API-Key": key, "Expect": "100-continue"}
    request = httpx.Request(
        "POST", f"{server.url}/v1/predict", files={"media": clip}, data={"model": "tiny"}, headers=headers
    )
    body = request.read()
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    connection = connected(server, process)
    sent = len(body) if whole else len(body) // 2
    connection.sendall(f"POST /v1/predict HTTP/1.1\r\n{head}\r\n".encode() + body[:sent])
    if not whole:
        assert connection.recv(65_536).split()[1] in (b"100", b"429")
    return connection, body[sent:]


def metrics(client: Pinned) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    families = text_string_to_metric_families(client.http.get("/metrics").text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def versions(client: Pinned, bundle: str) -> list[int]:
    return [m["version"] for m in client.http.get("/v1/models").json()["models"] if m["name"] == bundle]


def load(client: Pinned, bundle: str, *chosen: int) -> httpx.Response:
    config = json.dumps({"version_policy": {"specific": {"versions": chosen}}})
    parameters = {"parameters": {"config": config}} if chosen else {}
    return client.http.post(f"/v2/repository/models/{bundle}/load", json=parameters)
