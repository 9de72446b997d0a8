"""What a single connection may cost: its head's time and size, idling, lingering, and how many there are."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from support import faulty_decoding, faulty_server
from support.server_process import ServerProcess, running_server
from support.tiny_bundle import make_tiny_bundle
from support.tiny_media import marked, tiny_clip
from support.waiting import wait_until

HEADER_TIMEOUT_S = 1.0
MAX_HEADER_BYTES = 8192
#: Far longer than any of the limits, and far shorter than for ever.
PATIENCE_S = 20.0


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    make_tiny_bundle(folder)
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return tiny_clip(tmp_path_factory.mktemp("clip"), 1)


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[ServerProcess]:
    bounds = {"header_timeout_s": HEADER_TIMEOUT_S, "max_header_bytes": MAX_HEADER_BYTES, "max_connections": 20}
    # Decoding that hangs ends soon, but not before a test has seen what waits behind it.
    work = {"concurrency": 1, "queue_length": 1, "decode_timeout_s": 3}
    bodies = {"upload_timeout_s": 3, "max_body_bytes": 1_000_000}
    with running_server(repository, script=faulty_server.SCRIPT, **bounds, **work, **bodies) as it:
        yield it
        assert "Traceback" not in it.log


@pytest.fixture(autouse=True)
def still_answering(server: ServerProcess, clip: bytes) -> Iterator[None]:
    yield

    def answers() -> bool:
        answer = httpx.post(f"{server.url}/v1/predict", files={"media": clip}, timeout=PATIENCE_S)
        return answer.status_code == 200

    wait_until(answers, PATIENCE_S, every_s=0.1)  # A request that a test has left in the queue may still be there.


def connect(server: ServerProcess) -> socket.socket:
    host, port = server.http.split(":")
    connection = socket.create_connection((host, int(port)))
    connection.settimeout(PATIENCE_S)
    return connection


def until_closed(connection: socket.socket) -> str:
    """What came before the server closed the connection."""
    received = b""
    while True:
        try:
            data = connection.recv(65_536)
        except ConnectionError:
            return received.decode()
        if not data:
            return received.decode()
        received += data


def send_until_cut_off(connection: socket.socket, data: bytes) -> int:
    """How many bytes went out before the server closed the connection; fails where it takes too long."""
    sent, end = 0, time.monotonic() + PATIENCE_S
    while True:
        assert time.monotonic() < end
        try:
            sent += connection.send(data)
        except ConnectionError:
            return sent


def receive(connection: socket.socket, end: str, count: int = 1) -> str:
    """What comes until ``end`` has come so many times."""
    received = ""
    while received.count(end) < count:
        data = connection.recv(65_536)
        assert data, received
        received += data.decode()
    return received


def open_files(server: ServerProcess) -> int:
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


def check_refusal(text: str, status: int, code: str) -> None:
    assert text.startswith(f"HTTP/1.1 {status} "), text
    error = json.loads(text.partition("\r\n\r\n")[2])["error"]
    assert error["code"] == code
    assert set(error) == {"code", "message", "request_id"}


@pytest.mark.parametrize("start", [b"POST", b"POST /v1/predict HTTP/1.1\r\nX-Slow: a"], ids=["request_line", "header"])
def test_a_head_that_never_ends_is_timed_out(server: ServerProcess, start: bytes) -> None:
    began = time.monotonic()
    with connect(server) as connection:
        for byte in start:
            connection.sendall(bytes([byte]))  # Every byte by itself: none of them buys time.
        check_refusal(until_closed(connection), 408, "header_timeout")
    assert time.monotonic() - began > 0.9 * HEADER_TIMEOUT_S


def test_a_second_head_on_a_kept_connection_is_timed_out_too(server: ServerProcess) -> None:
    with connect(server) as connection:
        connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert "live" in receive(connection, "}")
        time.sleep(1.5 * HEADER_TIMEOUT_S)  # A pause between requests is no slow head.
        connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert "live" in receive(connection, "}")
        connection.sendall(b"GET /health")
        check_refusal(until_closed(connection), 408, "header_timeout")


def test_a_connection_that_says_nothing_is_closed(server: ServerProcess) -> None:
    with connect(server) as connection:
        assert until_closed(connection) == ""


@pytest.mark.parametrize(
    "head",
    [
        b"GET /health/live HTTP/1.1\r\nX: " + b"a" * 2 * MAX_HEADER_BYTES,
        b"GET /health/live HTTP/1.1\r\nX: " + b"a" * 2 * MAX_HEADER_BYTES + b"\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\n" + b"X: a\r\n" * MAX_HEADER_BYTES + b"\r\n",
        b"GET /" + b"a" * 2 * MAX_HEADER_BYTES,
        b"GET /" + b"a" * 2 * MAX_HEADER_BYTES + b" HTTP/1.1\r\n\r\n",
        b"POST /v1/predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        b"\r\n5\r\n--b\r\n\r\n0\r\n" + b"X: a\r\n" * MAX_HEADER_BYTES,
    ],
    ids=["endless_header", "large_header", "many_headers", "endless_line", "long_line", "trailers"],
)
def test_a_head_that_is_too_large_is_refused(server: ServerProcess, head: bytes) -> None:
    with connect(server) as connection:
        connection.sendall(head)
        check_refusal(until_closed(connection), 431, "headers_too_large")


def test_a_head_just_within_the_limit_is_taken(server: ServerProcess) -> None:
    headers = {"X-Large": "a" * (MAX_HEADER_BYTES - 1000)}
    assert httpx.get(f"{server.url}/health/live", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "noise", [b"\x16\x03\x01\x02\x00\x01\x00\x01", b"\0" * 100, b"GET\r\n\r\n", b"NO / HTTP/9\r\n"]
)
def test_what_is_not_http_is_told_so(server: ServerProcess, noise: bytes) -> None:
    with connect(server) as connection:
        connection.sendall(noise)
        check_refusal(until_closed(connection), 400, "invalid_request")


def test_connections_are_bounded_in_number(server: ServerProcess) -> None:
    with ExitStack() as stack:
        connections = [stack.enter_context(connect(server)) for _ in range(40)]
        refused = [text for text in map(until_closed, connections) if text]
        assert len(refused) >= 20
        for text in refused:
            check_refusal(text, 503, "unavailable")


def test_a_client_that_never_reads_its_answers_is_cut_off(server: ServerProcess) -> None:
    before = open_files(server)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        host, port = server.http.split(":")
        connection.connect((host, int(port)))
        with contextlib.suppress(ConnectionError):
            # More than the kernel holds on the way; no more at once than may wait for their turn.
            for _ in range(100):
                connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
                time.sleep(0.05)
        wait_until(lambda: open_files(server) <= before, PATIENCE_S)


def test_requests_that_are_not_waited_for_are_bounded(server: ServerProcess) -> None:
    """Each takes kilobytes of memory, and forty bytes of the network."""
    with connect(server) as connection:
        connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n" * 5)
        assert receive(connection, "}", 5).count("200 OK") == 5
        sent = send_until_cut_off(connection, b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)
    assert sent < 5_000_000


@pytest.mark.parametrize("path", ["/v1/predict", "/v2/models/tiny_media/infer"])
def test_a_body_that_is_declared_too_large_is_refused_on_its_headers(server: ServerProcess, path: str) -> None:
    with connect(server) as connection:
        head = "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 10000000000\r\n"
        connection.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\n{head}\r\n".encode())
        assert connection.recv(65_536).startswith(b"HTTP/1.1 413 ")
        # What comes nevertheless is passed over for a while, then the connection is cut.
        # The limit, and what the kernel has buffered on both sides.
        assert send_until_cut_off(connection, bytes(2**20)) < 50_000_000


@pytest.mark.parametrize("path", ["/v1/predict", "/v2/models/tiny_media/infer"])
def test_a_full_queue_refuses_on_the_headers(server: ServerProcess, clip: bytes, path: str) -> None:
    hanging = marked(clip, faulty_decoding.PICTURE_HANGS)
    body = httpx.Request("POST", f"{server.url}/v1/predict", files={"media": hanging})
    lines = "".join(f"{name}: {value}\r\n" for name, value in body.headers.items())
    whole = f"POST /v1/predict HTTP/1.1\r\n{lines}\r\n".encode() + body.read()
    with ExitStack() as stack:
        for waiting in (0, 1):
            stack.enter_context(connect(server)).sendall(whole)
            server.wait_for_load(1, waiting)
        third = stack.enter_context(connect(server))
        headers = "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 900000\r\n"
        third.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
        answer = third.recv(65_536).decode()  # Not a byte of the body has been sent.
        assert answer.startswith("HTTP/1.1 429 "), answer
        assert "retry-after: " in answer.lower()
        assert "connection: close" in answer.lower()


def test_a_refusal_of_a_whole_request_keeps_its_connection(server: ServerProcess, clip: bytes) -> None:
    hanging = marked(clip, faulty_decoding.PICTURE_HANGS)
    body = httpx.Request("POST", f"{server.url}/v1/predict", files={"media": clip})
    head = "".join(f"{name}: {value}\r\n" for name, value in body.headers.items())
    whole = f"POST /v1/predict HTTP/1.1\r\n{head}\r\n".encode() + body.read()
    with ThreadPoolExecutor() as pool, ExitStack() as stack:
        for waiting in (0, 1):
            pool.submit(httpx.post, f"{server.url}/v1/predict", files={"media": hanging}, timeout=PATIENCE_S)
            server.wait_for_load(1, waiting)
        connection = stack.enter_context(connect(server))
        answers = connection.makefile("rb")
        # One alone, and two of which the second comes before the first is answered.
        for count in (1, 2):
            connection.sendall(whole * count)
            for _ in range(count):
                assert answers.readline() == b"HTTP/1.1 429 Too Many Requests\r\n"
                lines = dict(line.lower().split(b": ", 1) for line in iter(answers.readline, b"\r\n"))
                assert b"connection" not in lines
                assert json.loads(answers.read(int(lines[b"content-length"])))["error"]["code"] == "queue_full"
        # Nor has anybody a thousand answers at once: what comes at once waits in line, and the line is short.
        with connect(server) as greedy:
            greedy.sendall(whole * 100)
            assert b"".join(iter(lambda: greedy.recv(65_536), b"")).count(b"HTTP/1.1 429 ") < 50
        # An old client, which takes the end of the connection for the end of the answer.
        with connect(server) as old:
            old.sendall(whole.replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"Connection: keep-alive\r\n", b""))
            assert b"connection: close" in b"".join(iter(lambda: old.recv(65_536), b""))
        # What is wrong anyway is told so, and not to come back.
        for kind, length, status in (
            ("text/plain", "10", b"422"),
            ("multipart/form-data; boundary=b", "9999999", b"413"),
        ):
            with connect(server) as wrong:
                lines_sent = f"Host: x\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
                wrong.sendall(f"POST /v1/predict HTTP/1.1\r\n{lines_sent}".encode())
                assert wrong.recv(65_536).split()[1] == status
        # The same connection, once there is room again, is answered by the application.
        connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answers.readline().startswith(b"HTTP/1.1 200 ")
    server.wait_for_load(0, 0)


def test_a_large_kserve_body_is_never_whole_in_memory(repository: Path, clip: bytes) -> None:
    filler = 64 * 2**20
    recording = clip + (8 + filler).to_bytes(4) + b"free" + bytes(filler)
    tail = len(recording).to_bytes(4, "little") + recording
    tensor = {"name": "MEDIA", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(tail)}}
    header = json.dumps({"inputs": [tensor], "outputs": [{"name": "STATUS"}]}).encode()

    def anonymous_mb(server: ServerProcess) -> float:
        """Without pages of files, which count for the process and are the kernel's to drop."""
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")) / 1024

    with (
        running_server(repository, timeout_s=30, decode_timeout_s=15, log_level="warning") as server,
        ThreadPoolExecutor(1) as client,
    ):
        before, most = anonymous_mb(server), 0.0
        answer = client.submit(
            httpx.post,
            f"{server.url}/v2/models/tiny_media/infer",
            content=header + tail,
            headers={"Inference-Header-Content-Length": str(len(header))},
            timeout=60,
        )
        while not answer.done():
            most = max(most, anonymous_mb(server))
            concurrent.futures.wait([answer], 0.002)
        assert answer.result().status_code == 200, answer.result().text
        assert answer.result().json()["outputs"][0]["data"] == ["ok", "ok"]
        assert most < before + 30
