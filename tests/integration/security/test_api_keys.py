"""Who may come in, with real clients of both protocols: no key, a wrong one, a plain one, an admin's."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc
from tritonclient.utils import InferenceServerException

from dimml.cli import main
from dimml.errors import PermissionDeniedError, QueueFullError, UnauthenticatedError
from dimml_client import Client
from dimml_client.models.repository_client import model_server
from dimml_client.transport.credentials import checked_credentials
from dimml_server.security.keys import new_key
from support.server_process import ServerProcess, running_server
from support.tiny_bundle import make_tiny_bundle
from support.tiny_media import tiny_clip
from support.waiting import wait_until

TRANSPORTS = ("http", "grpc")
READER, _READER_LINE = new_key("reader")
OPS, _OPS_LINE = new_key("ops", admin=True)
NARROW, _NARROW_LINE = new_key("narrow", concurrent=1)
LATER, _LATER_LINE = new_key("later")
WRONG, _ = new_key("wrong")


@dataclass
class Guarded:
    server: ServerProcess
    keys: Path

    def url(self, transport: str) -> str:
        return self.server.url if transport == "http" else f"grpc://{self.server.grpc}"

    def metrics(self) -> str:
        return httpx.get(f"{self.server.url}/metrics", headers={"X-API-Key": READER}).text


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    make_tiny_bundle(folder / "models")
    make_tiny_bundle(folder / "models", name="stalls", stall="audio", deadline_ms=4000)
    keys = folder / "keys"
    keys.write_text(f"{_READER_LINE.line}\n{_OPS_LINE.line}\n{_NARROW_LINE.line}\n")
    settings = {"api_keys_file": str(keys), "model_control": "explicit", "decode_workers": 1}
    with running_server(folder / "models", log_level="debug", **settings) as server:
        yield Guarded(server, keys)
        for secret in (READER, OPS, NARROW, LATER, WRONG):
            assert secret not in server.log


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return tiny_clip(tmp_path_factory.mktemp("clip"), 1)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_known_key_gets_an_answer_and_others_none(guarded: Guarded, transport: str, clip: bytes) -> None:
    url = guarded.url(transport)
    with Client(url, api_key=READER) as client:
        assert client.predict(clip, model="tiny").label == "green"
    said = set()
    for key in (None, WRONG, READER[:-1], "Bearer"):
        with Client(url, api_key=key) as client, pytest.raises(UnauthenticatedError) as raised:
            client.predict(clip, model="tiny")
        said.add(raised.value.message)
    assert said == {"this server wants a valid API key"}, "no key and a wrong one are told apart"


def test_a_key_of_the_environment_or_a_file_is_sent(
    guarded: Guarded, clip: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "clip.mp4").write_bytes(clip)
    (tmp_path / "key").write_text(READER + "\n")
    command = ["predict", str(tmp_path / "clip.mp4"), "--model", "tiny", "--json", "--url"]
    for url in map(guarded.url, TRANSPORTS):
        assert main([*command, url]) == 1
        assert '"code": "unauthenticated"' in capsys.readouterr().out
        assert main([*command, url, "--api-key-file", str(tmp_path / "key")]) == 0
        assert main(["models", "list", "--url", url, "--api-key-file", str(tmp_path / "key")]) == 0
        scored = [
            "score",
            str(tmp_path / "clip.mp4"),
            "--model",
            "tiny",
            "--url",
            url,
            "--out",
            str(tmp_path / "s.csv"),
        ]
        assert main(scored) == 1
        assert "valid API key" in capsys.readouterr().err
        assert main([*scored, "--api-key-file", str(tmp_path / "key")]) == 0
        (tmp_path / "s.csv").unlink()
        with monkeypatch.context() as patched:
            patched.setenv("DIMML_API_KEY", READER)
            assert main([*command, url]) == 0
        capsys.readouterr()


def test_the_refusal_over_http_asks_for_a_key_and_tells_nothing(guarded: Guarded) -> None:
    with httpx.Client(base_url=guarded.server.url) as http:
        for path in ("/v1/models", "/v1/models/tiny", "/v1/none", "/v2", "/v2/models/none", "/metrics", "/v1/predict"):
            for headers in ({}, {"X-API-Key": WRONG}, {"Authorization": f"Bearer {WRONG}"}):
                answer = http.get(path, headers=headers)
                assert answer.status_code == 401, path
                assert answer.headers["WWW-Authenticate"] == 'Bearer realm="dimml"'
                assert "tiny" not in answer.text
        for headers in ({"X-API-Key": READER}, {"Authorization": f"Bearer {READER}"}):
            assert http.get("/v1/models", headers=headers).status_code == 200
            assert http.get("/metrics", headers=headers).status_code == 200
        for path in ("/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"):
            assert http.get(path).status_code == 200, path


def test_a_body_is_not_waited_for_before_the_refusal(guarded: Guarded) -> None:
    host, _, port = guarded.server.http.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=20.0) as connection:
        connection.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 401 ")


def test_unmodified_tritonclients_send_a_key_as_header_and_metadata(guarded: Guarded) -> None:
    for module, address in ((tritonclient.http, guarded.server.http), (tritonclient.grpc, guarded.server.grpc)):
        with module.InferenceServerClient(address) as client:
            assert client.is_server_ready()
            for headers in ({"x-api-key": READER}, {"authorization": f"Bearer {READER}"}):
                assert client.get_model_metadata("tiny", headers=headers)
            with pytest.raises(InferenceServerException, match="valid API key"):
                client.get_model_metadata("tiny")
            with pytest.raises(InferenceServerException, match="admin key"):
                client.unload_model("tiny", headers={"x-api-key": READER})


def test_grpc_refuses_by_status_before_it_reads_the_message(guarded: Guarded) -> None:
    with grpc.insecure_channel(guarded.server.grpc) as channel:
        # A message that is none: whoever parsed it would answer with another status.
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError) as raised:
            call(b"\xff" * 100_000, timeout=20.0)
        assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert dict(raised.value.trailing_metadata())["www-authenticate"] == 'Bearer realm="dimml"'
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for method in pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods:
            if method.name in ("ServerLive", "ServerReady", "ModelStreamInfer"):
                continue
            request = getattr(pb, method.input_type.name)()
            with pytest.raises(grpc.RpcError) as raised:
                getattr(stub, method.name)(request, timeout=20.0)
            assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED, method.name


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_loading_and_unloading_need_an_admin_key(guarded: Guarded, transport: str) -> None:
    url = guarded.url(transport)
    for key, error in ((None, UnauthenticatedError), (READER, PermissionDeniedError)):
        server = model_server(url, checked_credentials(api_key=key), timeout_s=30.0)
        for call in (lambda s=server: s.load("tiny", None), lambda s=server: s.unload("tiny")):
            with pytest.raises(error):
                call()
        server.close()
    server = model_server(url, checked_credentials(api_key=OPS), timeout_s=30.0)
    server.load("tiny", None)
    assert any(entry.state == "READY" for entry in server.index())
    server.close()


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_one_key_has_only_so_many_requests_under_way(guarded: Guarded, transport: str, clip: bytes) -> None:
    url = guarded.url(transport)
    with (
        Client(url, api_key=NARROW, retries=0) as narrow,
        Client(url, api_key=READER, retries=0) as reader,
        ThreadPoolExecutor() as pool,
    ):
        slow = pool.submit(narrow.predict, clip, model="stalls", timeout_ms=8000)
        wait_until(lambda: "dimml_requests_in_flight 1.0" in guarded.metrics(), 10.0)
        assert not slow.done(), "the slow request must be under way"
        with pytest.raises(QueueFullError, match="with this API key") as raised:
            narrow.predict(clip, model="tiny")
        assert raised.value.retry_after_s == 1.0
        assert reader.predict(clip, model="tiny").label == "green"
        slow.result(30.0)
        assert narrow.predict(clip, model="tiny").label == "green"


def test_the_access_log_has_the_name_of_the_key(guarded: Guarded) -> None:
    httpx.get(f"{guarded.server.url}/v1/models", headers={"X-API-Key": READER, "X-Request-Id": "named"})
    guarded.server.wait_for_log("request_id=named key=reader")


def test_a_hangup_signal_reads_the_keys_anew(guarded: Guarded) -> None:
    def status(key: str) -> int:
        return httpx.get(f"{guarded.server.url}/v1/models", headers={"X-API-Key": key}).status_code

    before = guarded.keys.read_text()
    guarded.keys.write_text(before + _LATER_LINE.line)
    assert status(LATER) == 401
    guarded.server.process.send_signal(signal.SIGHUP)
    guarded.server.wait_for_log("read 4 API keys")
    assert (status(LATER), status(READER)) == (200, 200)


def test_health_can_be_closed_and_metrics_opened(tmp_path: Path) -> None:
    make_tiny_bundle(tmp_path)
    keys = {"api_keys": _READER_LINE.line, "health_open": False, "metrics_open": True}
    with running_server(tmp_path, decode_workers=1, **keys) as server, grpc.insecure_channel(server.grpc) as channel:
        for path, status in (("/health/ready", 401), ("/v2/health/ready", 401), ("/metrics", 200)):
            assert httpx.get(server.url + path).status_code == status
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError):
            stub.ServerReady(pb.ServerReadyRequest(), timeout=20.0)
        assert stub.ServerReady(pb.ServerReadyRequest(), timeout=20.0, metadata=(("x-api-key", READER),)).ready
        with Client(server.url, api_key=READER) as client:
            assert client.ready()


def test_an_open_server_on_the_network_says_so_in_one_line(tmp_path: Path) -> None:
    make_tiny_bundle(tmp_path)
    said = "everybody who reaches 0.0.0.0 may send requests"
    with running_server(tmp_path, host="0.0.0.0", decode_workers=1) as server:  # noqa: S104 - that is what is tested
        assert server.log.count(said) == 1
    with running_server(tmp_path, host="0.0.0.0", decode_workers=1, api_keys=_READER_LINE.line) as server:  # noqa: S104
        assert said not in server.log
