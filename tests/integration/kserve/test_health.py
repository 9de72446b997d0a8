"""``grpc.health.v1`` and reflection with grpcio's own clients: the same readiness as every other transport."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import tritonclient.http
from callers.recorder import recording
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2 as pb
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tritonclient.grpc import service_pb2, service_pb2_grpc

from dimml_server.security.keys import new_key
from support.server_process import ServerProcess, running_server
from support.tiny_bundle import make_tiny_bundle

WHOLE = "inference.GRPCInferenceService"
SERVING, NOT_SERVING, UNKNOWN = (
    getattr(pb.HealthCheckResponse, name) for name in ("SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
)
KEY, KEY_LINE = new_key("reader", admin=True)
LIMIT_S = 20.0
#: As the docs have it.
MAX_STREAMS = 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    make_tiny_bundle(folder)
    return folder


@pytest.fixture(scope="module")
def open_server(folder: Path) -> Iterator[ServerProcess]:
    with running_server(folder, model_control="explicit", decode_workers=1) as it:
        yield it
        assert "Traceback" not in it.log


@pytest.fixture(scope="module")
def guarded(folder: Path) -> Iterator[ServerProcess]:
    with running_server(folder, api_keys=KEY_LINE.line, decode_workers=1, docs_page=False) as it:
        yield it


@pytest.fixture
def channel(open_server: ServerProcess) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(open_server.grpc) as channel:
        yield channel


def check(channel: grpc.Channel, service: str, **how: Any) -> int:
    stub = health_pb2_grpc.HealthStub(channel)
    return int(stub.Check(pb.HealthCheckRequest(service=service), timeout=LIMIT_S, **how).status)


def watch(channel: grpc.Channel, service: str, **how: Any) -> Any:
    return health_pb2_grpc.HealthStub(channel).Watch(pb.HealthCheckRequest(service=service), timeout=LIMIT_S, **how)


def refusal(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as raised:
        call()
    return raised.value.code()


def test_health_checks_share_a_connection(open_server: ServerProcess) -> None:
    """tritonclient reads no body of health: it keeps the connection only where the body came with the head."""
    with recording(open_server.http) as relay:
        with tritonclient.http.InferenceServerClient(relay.address) as client:
            assert all(client.is_server_live() for _ in range(50))
        assert len(relay.connections) == 1


@pytest.mark.parametrize("service", ["", WHOLE, "tiny", "tiny_audio", "tiny_fusion", "tiny_media"])
def test_what_is_ready_is_serving(channel: grpc.Channel, service: str) -> None:
    assert check(channel, service) == SERVING
    watching = watch(channel, service)
    assert next(watching).status == SERVING
    watching.cancel()


def test_an_unknown_service_is_not_found_or_may_yet_come(channel: grpc.Channel) -> None:
    assert refusal(lambda: check(channel, "none")) is grpc.StatusCode.NOT_FOUND
    watching = watch(channel, "none")
    assert next(watching).status == UNKNOWN
    watching.cancel()


def test_a_message_that_is_none_is_refused(channel: grpc.Channel) -> None:
    for method in ("grpc.health.v1.Health/Check", "grpc.health.v1.Health/Watch"):
        call = channel.unary_stream(f"/{method}")
        assert refusal(lambda call=call: next(call(b"\xff\xff", timeout=LIMIT_S))) is grpc.StatusCode.INVALID_ARGUMENT
    call = channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
    assert refusal(lambda: next(call(iter([b"\xff\xff"]), timeout=LIMIT_S))) is grpc.StatusCode.INVALID_ARGUMENT


def test_a_watch_follows_a_model_and_agrees_with_every_transport(
    open_server: ServerProcess, channel: grpc.Channel
) -> None:
    watching, stub = watch(channel, "tiny_audio"), service_pb2_grpc.GRPCInferenceServiceStub(channel)
    assert next(watching).status == SERVING
    stub.RepositoryModelUnload(service_pb2.RepositoryModelUnloadRequest(model_name="tiny"), timeout=LIMIT_S)
    assert next(watching).status == UNKNOWN
    assert refusal(lambda: check(channel, "tiny_audio")) is grpc.StatusCode.NOT_FOUND
    assert not stub.ModelReady(service_pb2.ModelReadyRequest(name="tiny_audio")).ready
    assert httpx.get(f"{open_server.url}/v2/models/tiny_audio/ready").status_code == 404
    stub.RepositoryModelLoad(service_pb2.RepositoryModelLoadRequest(model_name="tiny"), timeout=LIMIT_S)
    assert next(watching).status == SERVING
    assert httpx.get(f"{open_server.url}/v2/models/tiny_audio/ready").json() == {"name": "tiny_audio", "ready": True}
    watching.cancel()


def test_watches_are_bounded_and_leave_room_for_calls(channel: grpc.Channel) -> None:
    watching = [watch(channel, "") for _ in range(MAX_STREAMS)]
    assert {next(one).status for one in watching} == {SERVING}
    assert refusal(lambda: next(watch(channel, ""))) is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert check(channel, "") == SERVING
    for one in watching:
        one.cancel()


def test_a_watch_ends_with_the_server(folder: Path) -> None:
    with running_server(folder, decode_workers=1, grace_s=15, stop=False) as server:
        with grpc.insecure_channel(server.grpc) as channel:
            watching = watch(channel, "")
            assert next(watching).status == SERVING
            server.process.send_signal(signal.SIGTERM)
            assert [answer.status for answer in watching] == [NOT_SERVING]
        assert server.process.wait(10.0) == 0, "it waited for a watch"


def test_keys_count_for_all_but_the_whole_servers_check(guarded: ServerProcess) -> None:
    with grpc.insecure_channel(guarded.grpc) as channel:
        how = {"metadata": (("x-api-key", KEY),)}
        assert check(channel, "") == check(channel, WHOLE) == check(channel, "tiny", **how) == SERVING
        closed = [lambda: check(channel, "tiny"), lambda: check(channel, "none"), lambda: next(watch(channel, ""))]
        assert {refusal(call) for call in closed} == {grpc.StatusCode.UNAUTHENTICATED}
        watching = watch(channel, "", **how)
        assert next(watching).status == SERVING
        watching.cancel()
        call = channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
        assert refusal(lambda: next(call(iter([]), timeout=LIMIT_S))) is grpc.StatusCode.UNAUTHENTICATED
        call = channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
        found = refusal(lambda: next(call(iter([]), timeout=LIMIT_S, **how)))
        assert found is grpc.StatusCode.UNIMPLEMENTED, "docs_page is off"


def test_reflection_describes_every_method(channel: grpc.Channel) -> None:
    database = ProtoReflectionDescriptorDatabase(channel)
    assert set(database.get_services()) == {
        WHOLE,
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    found = DescriptorPool(database).FindServiceByName(WHOLE)
    expected = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    assert [method.name for method in found.methods] == [method.name for method in expected.methods]
    assert found.methods_by_name["ModelInfer"].input_type.fields_by_name["raw_input_contents"].number == 7
