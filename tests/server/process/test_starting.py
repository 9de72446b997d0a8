"""While a server still loads its bundles, whoever asks is told to try again, and never that there is no such thing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import httpx
import pytest
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from dimml.errors import NotFoundError, UnavailableError
from dimml_client import Client
from dimml_server.kserve.grpc.server import create_server
from dimml_server.observability.metrics import Metrics
from dimml_server.process.http_app import create_app
from dimml_server.process.wiring import build_service
from dimml_server.security.guard import Guard
from dimml_server.settings.settings import load_settings
from support.tiny_bundle import make_tiny_bundle
from support.tiny_media import LABELS, tiny_clip


def test_what_is_yet_to_come_is_not_said_to_be_missing(tmp_path: Path) -> None:
    make_tiny_bundle(tmp_path / "repository")
    asyncio.run(_starting(tmp_path / "repository", tiny_clip(tmp_path, 1)))


async def _starting(repository: Path, clip: bytes) -> None:
    settings = load_settings(repository=repository, decode_workers=1)
    metrics = Metrics()
    guard = Guard(settings)
    service = build_service(settings, metrics)
    server = create_server(service, metrics, settings, guard)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    app = httpx.ASGITransport(create_app(service, metrics, settings, guard))
    await server.start()
    try:
        async with (
            httpx.AsyncClient(transport=app, base_url="http://127.0.0.1") as http,
            grpc.aio.insecure_channel(address) as channel,
        ):
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            asked = ("/v1/models", "/v1/models/tiny", "/v2/models/tiny", "/v2/models/tiny_media/ready")
            assert [(await http.get(path)).status_code for path in asked] == [503] * len(asked)
            assert (await http.post("/v2/repository/index", json={"ready": True})).status_code == 503
            for call in (
                stub.RepositoryIndex(pb.RepositoryIndexRequest(ready=True)),
                stub.ModelConfig(pb.ModelConfigRequest(name="tiny")),
            ):
                with pytest.raises(grpc.aio.AioRpcError, match="starting") as refused:
                    await call
                assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
            assert not (await stub.ModelReady(pb.ModelReadyRequest(name="tiny"))).ready
            # What lies in the repository is known, ready or not.
            index = await stub.RepositoryIndex(pb.RepositoryIndexRequest())
            assert {model.state for model in index.models} == {"UNAVAILABLE"}

            def label(model: str | None) -> str:
                with Client(f"grpc://{address}", retries=0) as client:
                    return str(client.predict(clip, model=model).label)

            for model in (None, "tiny", "other"):
                with pytest.raises(UnavailableError, match="starting"):
                    await asyncio.to_thread(label, model)
            await service.start()
            assert await asyncio.to_thread(label, None) == LABELS[1]
            assert (await http.get("/v1/models/tiny")).status_code == 200
            with pytest.raises(NotFoundError):
                await asyncio.to_thread(label, "other")
    finally:
        await server.stop(None)
        await service.close()
