"""Offers to change the protocol are ignored: the request is answered as it is, and once (RFC 9110, section 7.8)."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from support.server_process import ServerProcess, running_server
from support.tiny_bundle import make_tiny_bundle
from support.tiny_media import tiny_clip

PATIENCE_S = 5.0
H2C = (
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n"
)
H2C_OF_JAVA = b"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
WEBSOCKET = (
    b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
OFFERS = {
    "h2c": H2C,
    "java": H2C_OF_JAVA,
    "websocket": WEBSOCKET,
    "unknown": b"Connection: upgrade\r\nUpgrade: x/1\r\n",
}
LIVE, INDEX = "/health/live", "/v2/repository/index"
Answer = tuple[int, bytes]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    repository = tmp_path_factory.mktemp("repository")
    make_tiny_bundle(repository)
    with running_server(repository) as it:
        yield it
        assert "Traceback" not in it.log


@pytest.fixture(params=list(OFFERS))
def offer(request: pytest.FixtureRequest) -> bytes:
    return OFFERS[request.param]


def a_request(
    method: str, path: str, fields: bytes = b"", body: bytes | None = None, *, chunked: bool = False
) -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\n".encode() + fields
    if body is None:
        return head + b"\r\n"
    if chunked:
        half = len(body) // 2
        pieces = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (body[:half], body[half:]) if piece)
        return head + b"Transfer-Encoding: chunked\r\n\r\n" + pieces + b"0\r\n\r\n"
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def answers(server: ServerProcess, *pieces: bytes) -> list[Answer]:
    """Every answer on one connection until the server closes it: the client's side ends with its last request."""
    host, port = server.http.split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            connection.sendall(piece)
        received = connection.makefile("rb")
        found = []
        while line := received.readline():
            status = int(line.split()[1])
            length = 0
            while field := received.readline().strip():
                name, _, value = field.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            found.append((status, received.read(length)))
        return found


LAST = a_request("GET", "/v2", b"Connection: close\r\n")


def check_last(answer: Answer) -> None:
    assert answer[0] == 200
    assert json.loads(answer[1])["name"] == "dimml"


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_a_body_arrives_although_an_upgrade_is_offered(server: ServerProcess, offer: bytes, chunked: bool) -> None:
    asked = a_request("POST", INDEX, offer, b'{"ready": true}', chunked=chunked)
    (status, body), last = answers(server, asked + LAST)
    assert status == 200
    assert {entry["state"] for entry in json.loads(body)} == {"READY"}
    check_last(last)


def test_a_body_that_looks_like_a_request_is_not_answered(server: ServerProcess, offer: bytes) -> None:
    first, last = answers(server, a_request("POST", INDEX, offer, a_request("GET", LIVE)) + LAST)
    assert first[0] == 400  # It is no JSON.
    check_last(last)


def test_a_recording_is_predicted(
    server: ServerProcess, offer: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    clip = tiny_clip(tmp_path_factory.mktemp("clip"), 1)
    body = b'--b\r\nContent-Disposition: form-data; name="media"; filename="a"\r\n\r\n' + clip + b"\r\n--b--\r\n"
    asked = a_request("POST", "/v1/predict", offer + b"Content-Type: multipart/form-data; boundary=b\r\n", body)
    first, last = answers(server, asked + LAST)
    assert first[0] == 200, first
    check_last(last)


@pytest.mark.parametrize("method", ["GET", "DELETE", "OPTIONS"])
def test_requests_without_a_body_are_answered_in_turn(server: ServerProcess, offer: bytes, method: str) -> None:
    found = answers(server, a_request(method, LIVE, offer) * 3 + LAST)
    assert [status for status, _ in found[:3]] == [200 if method == "GET" else 405] * 3
    assert len(found) == 4
    check_last(found[-1])


def test_it_is_the_same_in_single_bytes(server: ServerProcess, offer: bytes) -> None:
    asked = a_request("POST", INDEX, offer, b"{}", chunked=True) + a_request("GET", LIVE, offer) + LAST
    found = answers(server, *(bytes([byte]) for byte in asked))
    assert [status for status, _ in found] == [200, 200, 200]
    check_last(found[-1])


def test_an_offer_does_not_extend_the_head(server: ServerProcess, offer: bytes) -> None:
    asked = a_request("GET", LIVE, offer + b"X-Long: " + b"a" * 40_000 + b"\r\n")
    assert [status for status, _ in answers(server, asked)] == [431]


def test_an_offer_keeps_connection_close(server: ServerProcess) -> None:
    asked = a_request("GET", LIVE, b"Connection: close, Upgrade\r\nUpgrade: h2c\r\n")
    assert [status for status, _ in answers(server, asked + LAST)] == [200]


def test_a_tunnel_is_refused_once(server: ServerProcess) -> None:
    asked = b"CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n"
    assert [status for status, _ in answers(server, asked + LAST)] == [400]
