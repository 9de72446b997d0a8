"""Keep-alive of both protocols as the settings say, seen on the wire."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection

import pytest

from support.server_process import ServerProcess, running_server
from support.tiny_bundle import make_tiny_bundle

HTTP_S, GRPC_S = 0.5, 1.0
_HEADERS, _SETTINGS, _PING = 1, 4, 6


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    repository = tmp_path_factory.mktemp("repository")
    make_tiny_bundle(repository)
    with running_server(repository, decode_workers=1, http_keepalive_s=HTTP_S, grpc_keepalive_s=GRPC_S) as running:
        yield running


def connect(address: str) -> socket.socket:
    host, port = address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=10.0)


def test_an_idle_http_connection_is_closed_after_http_keepalive_s(server: ServerProcess) -> None:
    with closing(HTTPConnection(server.http, timeout=10.0)) as http:
        for _ in range(2):
            http.request("GET", "/health/live")
            assert http.getresponse().read() == b'{"status":"live"}'
        began = time.monotonic()
        assert http.sock.recv(1) == b""
        assert 0.5 * HTTP_S < time.monotonic() - began < HTTP_S + 3.0


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """An HTTP/2 frame (RFC 9113, section 4.1)."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def literal(name: bytes, value: bytes) -> bytes:
    """A header field without indexing, new name (RFC 7541, section 6.2.2)."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


def test_a_quiet_grpc_call_is_pinged_after_grpc_keepalive_s(server: ServerProcess) -> None:
    call = {
        b":method": b"POST",
        b":scheme": b"http",
        b":path": b"/inference.GRPCInferenceService/ModelInfer",
        b":authority": b"a",
        b"content-type": b"application/grpc",
        b"te": b"trailers",  # codespell:ignore te
    }
    with connect(server.grpc) as connection, connection.makefile("rb") as answer:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(_SETTINGS, 0, 0))
        # Its message does not come.
        connection.sendall(frame(_HEADERS, 4, 1, b"".join(literal(*pair) for pair in call.items())))
        began = time.monotonic()
        while True:
            head = answer.read(9)
            answer.read(int.from_bytes(head[:3], "big"))
            if head[3] == _PING and not head[4]:
                break
        assert 0.5 * GRPC_S < time.monotonic() - began < GRPC_S + 4.0
