"""What real clients send, replayed byte by byte: every request has its one answer, however its bytes arrive.

The requests were recorded by ``scripts/real_clients.py --record tests/integration/http/recorded_clients``, where the
clients' versions stand in their User-Agent. They are for the demo bundle.
"""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.data import REPOSITORY_ROOT
from support.server_process import ServerProcess, running_server

RECORDED = Path(__file__).parent / "recorded_clients"
CLIENTS = sorted({path.parent for path in RECORDED.glob("*/*.http")})
GRPC_CLIENTS = sorted(RECORDED.glob("*/*.h2"))
PATIENCE_S = 20.0
#: Of HTTP/2 (RFC 9113, sections 6.1, 6.2 and 7).
DATA, HEADERS, END_STREAM = 0, 1, 1
Answer = tuple[int, bytes]


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with running_server(REPOSITORY_ROOT / "model_repository", decode_workers=1) as it:
        yield it
        assert "Traceback" not in it.log


def whole(request: bytes) -> list[bytes]:
    return [request]


def head_first(request: bytes) -> list[bytes]:
    """As a client that waits for ``100 Continue``."""
    head, end, body = request.partition(b"\r\n\r\n")
    return [head + end, body] if body else [request]


def in_small_pieces(request: bytes) -> list[bytes]:
    return [request[at : at + 97] for at in range(0, len(request), 97)]


def asked_by(client: Path) -> list[tuple[str, bytes]]:
    """Name of the case, and bytes, of each request."""
    return [(path.stem.partition("_")[2], path.read_bytes()) for path in sorted(client.glob("*.http"))]


@contextmanager
def connected(address: str) -> Iterator[socket.socket]:
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield connection


def next_answer(received: Any) -> Answer:
    """Status and body, past ``100 Continue``."""
    while True:
        status = int(received.readline().split()[1])
        length = 0
        while field := received.readline().strip():
            name, _, value = field.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        if status != 100:
            return status, received.read(length)


def conversation(server: ServerProcess, requests: list[bytes], cut: Callable[[bytes], list[bytes]]) -> list[Answer]:
    """Status and body of every answer on one connection, each awaited before the next request."""
    with connected(server.http) as connection:
        received = connection.makefile("rb")
        found = []
        for request in requests:
            for piece in cut(request):
                connection.sendall(piece)
            found.append(next_answer(received))
        connection.shutdown(socket.SHUT_WR)
        assert received.read() == b"", "more was answered than was asked"
    return found


def check(case: str, status: int, data: bytes) -> None:
    if case == "kserve":
        assert status == 200
        plain = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
        assert b"absent:no_track" in plain
        return
    body = json.loads(data)
    if case == "ready":
        assert (status, body) == (200, {"status": "ready"})
    elif case == "refused":
        assert status == 422
        assert body["error"]["message"] == "top_k must be a whole number, got 'many'"
    else:
        assert case in ("one_modality_missing", "chunked")
        assert (status, body["label"], body["degraded"]) == (200, "four", True)
        assert body["modalities"]["audio"]["reason"] == "no_track"


@pytest.mark.parametrize("cut", [whole, head_first, in_small_pieces])
@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_every_request_has_its_one_answer(
    server: ServerProcess, client: Path, cut: Callable[[bytes], list[bytes]]
) -> None:
    asked = asked_by(client)
    requests = [request for _, request in asked]
    if any(b" HTTP/1.0\r\n" in request for request in requests):
        answers = [one for request in requests for one in conversation(server, [request], cut)]
    else:
        answers = conversation(server, requests, cut)
    for (case, _), (status, body) in zip(asked, answers, strict=True):
        check(case, status, body)


def frames(received: Any) -> Iterator[tuple[int, int, int, bytes]]:
    """Type, flags, stream and payload of every frame of HTTP/2 (RFC 9113, section 4.1), as they come."""
    while head := received.read(9):
        yield head[3], head[4], int.from_bytes(head[5:]), received.read(int.from_bytes(head[:3]))


def ended(found: list[tuple[int, int, int, bytes]]) -> list[int]:
    """The streams whose answers are whole."""
    return [stream for kind, flags, stream, _ in found if kind == HEADERS and flags & END_STREAM]


@pytest.mark.parametrize("cut", [whole, in_small_pieces])
@pytest.mark.parametrize("recorded", GRPC_CLIENTS, ids=lambda path: path.parent.name)
def test_every_call_has_its_one_answer(
    server: ServerProcess, recorded: Path, cut: Callable[[bytes], list[bytes]]
) -> None:
    asked = [1, 3]
    with connected(server.grpc) as connection:
        for piece in cut(recorded.read_bytes()):
            connection.sendall(piece)
        coming, found = frames(connection.makefile("rb")), []
        while len(ended(found)) < len(asked):
            found.append(next(coming))
        # With its end, what a client still waits for would be cancelled.
        connection.shutdown(socket.SHUT_WR)
        found += coming
    assert sorted(ended(found)) == asked
    for stream in asked:
        answer = b"".join(payload for kind, _, number, payload in found if (kind, number) == (DATA, stream))
        check("kserve", 200, answer)


def test_every_client_was_recorded_with_what_it_is_known_for() -> None:
    sent = {client.name: b"".join(request for _, request in asked_by(client)).lower() for client in CLIENTS}
    assert {name for name, data in sent.items() if b"\r\nupgrade: h2c\r\n" in data} == {"curl_http2", "java_httpclient"}
    assert {name for name, data in sent.items() if b" http/1.0\r\n" in data} == {"curl_http1_0"}
    plain = {name for name, data in sent.items() if b"\r\ntransfer-encoding: chunked" not in data}
    assert plain == {"curl_http1_0", "tritonclient_http", "tritonclient_http_aio"}
    assert {name for name, data in sent.items() if b"\r\ncontent-encoding: gzip\r\n" in data} == {
        "tritonclient_http",
        "tritonclient_http_aio",
    }
    assert len(sent) == 11
    assert [path.parent.name for path in GRPC_CLIENTS] == ["tritonclient_grpc", "tritonclient_grpc_aio"]
