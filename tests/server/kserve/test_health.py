"""The health service's watch, without gRPC: what it writes, and when."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

from grpc_health.v1 import health_pb2 as pb

from dimml_server.kserve.grpc.health import Health, Status, Streams


def test_a_server_that_stops_while_a_status_is_written_says_so_before_the_watch_ends() -> None:
    async def scenario() -> list[int]:
        stopping, written = asyncio.Event(), []

        async def write(response: pb.HealthCheckResponse) -> None:
            written.append(response.status)
            stopping.set()

        plane = SimpleNamespace(ready=True)
        health = Health(plane, "whole", Streams(8), stopping, lambda _: None)  # type: ignore[arg-type]
        async with asyncio.timeout(30.0):
            await health.watch(pb.HealthCheckRequest(service=""), SimpleNamespace(write=write))
        return written

    assert asyncio.run(scenario()) == [Status.SERVING, Status.NOT_SERVING]
