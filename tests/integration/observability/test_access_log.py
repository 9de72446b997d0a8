"""The log of a real server, parsed: one access line for each request of either protocol, however it ends."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import grpc
import httpx
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from dimml_server.security.keys import new_key
from support.server_process import ServerProcess, running_server
from support.tiny_bundle import make_tiny_bundle
from support.tiny_media import marked, tiny_clip

KEY, _KEY_LINE = new_key("reader")
FIELDS = {
    "time", "level", "logger", "message", "transport", "method", "path", "model", "status", "code", "ms", "bytes_in",
    "bundle", "version", "degraded", "modalities", "client", "request_id", "key", "trace_id",
}  # fmt: skip
MAX_BODY_BYTES = 200_000
MARKER = b"what-the-recording-holds"
FILE_NAME = "name-of-the-file.mp4"
OK = {"audio": "ok", "visual": "ok"}


@dataclass
class Logged:
    server: ServerProcess
    clip: bytes

    def lines(self) -> list[dict[str, Any]]:
        """Every line, each of which is JSON."""
        return [json.loads(line) for line in list(self.server.log_lines)]

    def access(self, identity: str) -> dict[str, Any]:
        """The one access line of a request."""
        self.server.wait_for_log(f'"request_id": "{identity}"')
        time.sleep(0.1)  # For a second one that must not come.
        (line,) = [line for line in self.lines() if line.get("request_id") == identity and line["message"] == "request"]
        assert set(line) == FIELDS
        assert line["client"] == "127.0.0.1"
        assert line["ms"] > 0.0
        return line

    def post(
        self, identity: str, data: bytes | None = None, key: str = KEY, page: str | None = None, **fields: str
    ) -> httpx.Response:
        """``page`` is the origin that a browser would name."""
        files = {"media": (FILE_NAME, self.clip if data is None else data)}
        headers = {"X-Request-Id": identity, "X-API-Key": key} | ({"Origin": page} if page else {})
        return httpx.post(
            f"{self.server.url}/v1/predict", files=files, data={"model": "tiny"} | fields, headers=headers, timeout=30.0
        )


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Logged]:
    folder = tmp_path_factory.mktemp("logged")
    make_tiny_bundle(folder / "models")
    make_tiny_bundle(folder / "models", name="stalls", stall="audio", deadline_ms=4000)
    clip = marked(tiny_clip(folder, 1), MARKER)
    settings = {
        "log_format": "json",
        "api_keys": _KEY_LINE.line,
        "max_body_bytes": MAX_BODY_BYTES,
        "metrics_open": True,
    }
    limits = {"concurrency": 1, "queue_length": 0, "decode_workers": 1, "max_header_bytes": 4096}
    with running_server(folder / "models", **settings, **limits) as server:
        it = Logged(server, clip)
        yield it
        assert all(line["message"] for line in it.lines())
        for secret in (MARKER.decode(), FILE_NAME, KEY):
            assert secret not in server.log


def test_an_answer(logged: Logged) -> None:
    answer = logged.post("answer-1")
    assert (answer.status_code, answer.headers["X-Request-Id"]) == (200, "answer-1")
    line = logged.access("answer-1")
    assert line["bytes_in"] == int(answer.request.headers["Content-Length"])
    wanted = {
        "level": "info", "transport": "http", "method": "POST", "path": "/v1/predict", "model": None, "status": 200,
        "code": None, "bundle": "tiny", "version": 1, "degraded": False, "modalities": OK, "key": "reader",
        "trace_id": None,
    }  # fmt: skip
    assert {name: line[name] for name in wanted} == wanted


def test_a_degraded_answer(logged: Logged, tmp_path: Path) -> None:
    assert logged.post("degraded-1", tiny_clip(tmp_path, 1, picture="black")).json()["degraded"] is True
    line = logged.access("degraded-1")
    assert (line["degraded"], line["modalities"]) == (True, {"audio": "ok", "visual": "unusable:black"})


@pytest.mark.parametrize(
    ("status", "code", "given"),
    [
        (401, "unauthenticated", {"key": "wrong"}),
        (404, "not_found", {"model": "none"}),
        (413, "too_large", {"data": b"x" * (MAX_BODY_BYTES + 1)}),
        (422, "unusable_media", {"data": b"no recording"}),
        (422, "invalid_parameter", {"top_k": "many"}),
    ],
)
def test_a_refusal(logged: Logged, status: int, code: str, given: dict[str, Any]) -> None:
    identity = f"refused-{code}"
    assert logged.post(identity, **given).status_code == status
    line = logged.access(identity)
    assert (line["status"], line["code"], line["degraded"]) == (status, code, None)
    assert line["key"] == (None if status == 401 else "reader")
    undecodable = dict.fromkeys(OK, "unusable:undecodable") if code == "unusable_media" else None
    assert line["modalities"] == undecodable


@pytest.mark.parametrize(("path", "status"), [("/nothing/here", 404), ("/v2/models/none", 404), ("/v2/nothing", 404)])
def test_a_path_that_is_none(logged: Logged, path: str, status: int) -> None:
    identity = "path" + path.replace("/", "-")
    headers = {"X-Request-Id": identity, "X-API-Key": KEY}
    assert httpx.get(logged.server.url + path, headers=headers).status_code == status
    line = logged.access(identity)
    assert (line["path"], line["status"], line["code"]) == (path, status, "not_found")


def test_a_full_queue(logged: Logged) -> None:
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(logged.post, "slow-1", model="stalls")
        logged.server.wait_for_load(in_flight=1, queued=0)
        refusals = dict.fromkeys(("model", "version"), "") | {"transport": "http", "outcome": "queue_full"}
        before = logged.server.metric("dimml_requests_total", **refusals)
        # The connection refuses before the application, which has the ones that come from a page: no difference.
        plain, paged = logged.post("full-1"), logged.post("full-2", page="https://example.org")
        for answer in (plain, paged):
            assert answer.status_code == 429
            assert answer.headers["X-Request-Id"] == answer.json()["error"]["request_id"]
            line = logged.access(answer.headers["X-Request-Id"])
            assert (line["status"], line["code"], line["key"]) == (429, "queue_full", "reader")
        assert {
            name: plain.headers[name] for name in plain.headers.keys() - {"x-request-id", "date", "connection"}
        } == {name: paged.headers[name] for name in paged.headers.keys() - {"x-request-id", "date", "connection"}}
        assert plain.json()["error"] | {"request_id": "full-2"} == paged.json()["error"]
        assert logged.server.metric("dimml_requests_total", **refusals) == before + 2
        wrong = logged.post("full-3", key="wrong")
        assert wrong.status_code == 401
        assert "WWW-Authenticate" in wrong.headers
        assert logged.access("full-3")["code"] == "unauthenticated"
        assert slow.result(30.0).status_code == 200
    assert logged.access("slow-1")["modalities"] == {"audio": "timeout:deadline", "visual": "ok"}


def test_a_client_that_hangs_up(logged: Logged) -> None:
    request = httpx.Request(
        "POST",
        f"{logged.server.url}/v1/predict",
        files={"media": logged.clip},
        data={"model": "stalls"},
        headers={"X-Request-Id": "gone-1", "X-API-Key": KEY},
    )
    request.read()
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    host, _, port = logged.server.http.rpartition(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(f"POST /v1/predict HTTP/1.1\r\n{head}\r\n".encode() + request.content)
        logged.server.wait_for_load(in_flight=1, queued=0)
    line = logged.access("gone-1")
    assert (line["status"], line["code"], line["degraded"]) == (499, "cancelled", None)


def test_a_head_that_is_refused_before_it_is_a_request(logged: Logged) -> None:
    answer = httpx.get(logged.server.url, headers={"X-Long": "x" * 8000})
    assert answer.status_code == 431
    line = logged.access(answer.json()["error"]["request_id"])
    assert (line["status"], line["code"], line["path"]) == (431, "headers_too_large", None)


@pytest.mark.parametrize("identity", ["two words", "x" * 129, 'quote"}', "é", "a\tb", ""])
def test_a_callers_id_that_is_none_is_replaced(logged: Logged, identity: str) -> None:
    answer = httpx.get(f"{logged.server.url}/health/live", headers={"X-Request-Id": identity.encode()})
    given = answer.headers["X-Request-Id"]
    assert given != identity
    assert len(given) == 32
    logged.access(given)


def test_a_path_with_a_line_break_stays_in_its_line(logged: Logged) -> None:
    forged = '/x\n{"level": "error", "message": "forged"}\r\x1b[31m\u2028'
    headers = {"X-Request-Id": "forger", "X-API-Key": KEY}
    assert httpx.get(logged.server.url + quote(forged), headers=headers).status_code == 404
    assert logged.access("forger")["path"] == forged
    assert not [line for line in logged.lines() if line["message"] == "forged"]


@pytest.fixture
def stub(logged: Logged) -> Iterator[Any]:
    with grpc.insecure_channel(logged.server.grpc) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def media(clip: bytes, model: str = "tiny_media", identity: str = "") -> Any:
    message = pb.ModelInferRequest(model_name=model, id=identity)
    message.inputs.add(name="MEDIA", datatype="BYTES", shape=[1])
    message.raw_input_contents.append(np.uint32(len(clip)).tobytes() + clip)
    return message


def call(stub: Any, message: Any, identity: str | None, key: str = KEY, timeout: float = 30.0) -> tuple[str, str]:
    """Status and request id of one inference call."""
    metadata = [("x-api-key", key)] + ([] if identity is None else [("x-request-id", identity)])
    answer = stub.ModelInfer.future(message, metadata=metadata, timeout=timeout)
    code = answer.code()
    return code.name, dict(answer.trailing_metadata()).get("x-request-id", "")


def test_a_grpc_answer(logged: Logged, stub: Any) -> None:
    message = media(logged.clip)
    assert call(stub, message, "call-1") == ("OK", "call-1")
    line = logged.access("call-1")
    wanted = {
        "transport": "grpc", "method": "ModelInfer", "path": None, "model": "tiny_media", "status": "OK", "code": None,
        "bytes_in": message.ByteSize(), "bundle": "tiny", "version": 1, "degraded": False, "modalities": OK,
        "key": "reader",
    }  # fmt: skip
    assert {name: line[name] for name in wanted} == wanted


def test_the_id_of_an_inference_serves_where_no_other_is_given(logged: Logged, stub: Any) -> None:
    assert call(stub, media(logged.clip, identity="own-1"), None) == ("OK", "own-1")
    logged.access("own-1")
    status, given = call(stub, media(logged.clip, identity="two\nlines"), None)
    assert (status, len(given)) == ("OK", 32)
    logged.access(given)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("UNAUTHENTICATED", "unauthenticated"),
        ("NOT_FOUND", "not_found"),
        ("INVALID_ARGUMENT", "unusable_media"),
        ("CANCELLED", "cancelled"),
    ],
)
def test_a_grpc_refusal(logged: Logged, stub: Any, status: str, code: str) -> None:
    identity = f"call-{code}"
    if status == "UNAUTHENTICATED":
        assert call(stub, media(logged.clip), identity, "wrong") == (status, identity)
    elif status == "NOT_FOUND":
        assert call(stub, media(logged.clip, "none"), identity) == (status, identity)
    elif status == "INVALID_ARGUMENT":
        assert call(stub, media(b"no recording"), identity) == (status, identity)
    else:
        metadata = (("x-api-key", KEY), ("x-request-id", identity))
        answer = stub.ModelInfer.future(media(logged.clip, "stalls_media"), metadata=metadata, timeout=30.0)
        logged.server.wait_for_load(in_flight=1, queued=0)
        answer.cancel()
    line = logged.access(identity)
    assert (line["status"], line["code"], line["degraded"]) == (status, code, None)


def test_a_grpc_call_that_is_none(logged: Logged) -> None:
    with grpc.insecure_channel(logged.server.grpc) as channel:
        metadata = (("x-request-id", "call-none"), ("x-api-key", KEY))
        with pytest.raises(grpc.RpcError, match="UNIMPLEMENTED"):
            channel.unary_unary("/inference.GRPCInferenceService/Nothing")(b"", metadata=metadata, timeout=20.0)
    logged.server.wait_for_log("call-none")
    (line,) = [line for line in logged.lines() if line.get("request_id") == "call-none"]
    assert (line["method"], line["status"], line["code"]) == ("Nothing", "UNIMPLEMENTED", "unsupported")


def test_other_lines_of_a_request_have_its_id(tmp_path: Path) -> None:
    make_tiny_bundle(tmp_path / "models", raises="audio")
    clip = tiny_clip(tmp_path, 1)
    with running_server(tmp_path / "models", log_format="json", decode_workers=1) as server:
        logged = Logged(server, clip)
        assert logged.post("breaks-1").json()["degraded"] is True
        logged.access("breaks-1")
        others = [line for line in logged.lines() if line.get("request_id") == "breaks-1"]
        assert [line["logger"] for line in others] == ["dimml.ensemble", "dimml_server.access"]
        assert "tiny_audio" in others[0]["message"]
