"""``grpc.health.v1`` and server reflection, by grpcio's own packages: what probes and tools of gRPC ask any server.

The health service answers from the same readiness as ``ServerReady``, ``ModelReady`` and the HTTP calls. Its services
are the empty name and ``inference.GRPCInferenceService``, both the whole server, and every model by its name.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2 as pb
from grpc_reflection.v1alpha import reflection, reflection_pb2

from dimml.errors import NotFoundError, QueueFullError, RequestError, UnavailableError
from dimml_server.kserve.dataplane import DataPlane

#: Most streams of watches and of reflection that may be open; they last as long as their callers please.
MAX_STREAMS: Final = 16
#: Time between two looks at a watched service.
_LOOK_S: Final = 0.5
_RETRY_AFTER_S: Final = 10.0

Reader = Callable[[Any], Callable[[bytes], Any]]
Method = Callable[[Any, Any], Awaitable[Any]]
Answered = Callable[[str, Method], Method]
Status = pb.HealthCheckResponse.ServingStatus


class Streams:
    """The streams that are open, of ``calls`` that may be: they leave most to others. Lives in one event loop."""

    def __init__(self, calls: int) -> None:
        self._most = max(1, min(MAX_STREAMS, calls // 4))
        self._open = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """Count the block as a stream. Raises QueueFullError."""
        if self._open >= self._most:
            raise QueueFullError(
                f"{self._most} watches and reflections are open; try again later, or call Check",
                retry_after_s=_RETRY_AFTER_S,
            )
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1


class Health:
    """The methods of ``grpc.health.v1.Health``.

    ``check_key`` raises UnauthenticatedError for a call without a key where keys are configured. Check asks for one
    only if a model is named: whether the server is ready may be open to all. Watches end when ``stopping`` is set.
    """

    def __init__(
        self,
        plane: DataPlane,
        whole: str,
        streams: Streams,
        stopping: asyncio.Event,
        check_key: Callable[[Any], None],
    ) -> None:
        self._plane = plane
        self._whole = frozenset({"", whole})
        self.streams = streams
        self._stopping = stopping
        self._check_key = check_key

    async def check(self, request: Any, context: Any) -> Any:
        """Say whether a service is ready now. Raises NotFoundError, UnauthenticatedError."""
        if request.service not in self._whole:
            self._check_key(context)
        return pb.HealthCheckResponse(status=self._status(request.service))

    async def watch(self, request: Any, context: Any) -> None:
        """Send a service's status, and again whenever it is another one. Raises QueueFullError."""
        with self.streams.place():
            sent = None
            while True:
                # Asked once: it may be set while a status is written, and then another one is due.
                stopping = self._stopping.is_set()
                status = Status.NOT_SERVING if stopping else self._watched(request.service)
                if status != sent:
                    await context.write(pb.HealthCheckResponse(status=status))
                    sent = status
                if stopping:
                    return
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_S):
                        await self._stopping.wait()

    def _status(self, service: str) -> int:
        if service in self._whole:
            ready = self._plane.ready
        else:
            try:
                ready = self._plane.model_ready(service, "")
            except UnavailableError:  # It may still be loading.
                ready = False
        return int(Status.SERVING if ready else Status.NOT_SERVING)

    def _watched(self, service: str) -> int:
        """Return a status as the protocol has it for watches: a service that is unknown now may come."""
        try:
            return self._status(service)
        except (NotFoundError, RequestError):
            return int(Status.SERVICE_UNKNOWN)


def add_health(server: grpc.aio.Server, health: Health, reader: Reader, answered: Answered) -> None:
    """Add the health service. ``reader`` reads messages, ``answered`` turns a method's errors into statuses."""
    described = pb.DESCRIPTOR.services_by_name["Health"]
    message = {
        "request_deserializer": reader(pb.HealthCheckRequest),
        "response_serializer": pb.HealthCheckResponse.SerializeToString,
    }
    handlers = {
        "Check": grpc.unary_unary_rpc_method_handler(answered("Check", health.check), **message),
        "Watch": grpc.unary_stream_rpc_method_handler(answered("Watch", health.watch), **message),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(described.full_name, handlers),))


def add_reflection(server: grpc.aio.Server, service: str, streams: Streams, reader: Reader, answered: Answered) -> None:
    """Add reflection of ``service``, the health service and itself."""
    services = [service, pb.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME]
    servicer = reflection.aio.ReflectionServicer(services)  # type: ignore[attr-defined]  # where gRPC has asyncio

    async def info(requests: AsyncIterator[Any], context: Any) -> None:
        with streams.place():
            async for response in servicer.ServerReflectionInfo(_readable(requests), context):
                await context.write(response)

    handler = grpc.stream_stream_rpc_method_handler(
        answered("ServerReflectionInfo", info),
        request_deserializer=reader(reflection_pb2.ServerReflectionRequest),
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    handlers = {"ServerReflectionInfo": handler}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(reflection.SERVICE_NAME, handlers),))


async def _readable(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        if isinstance(request, RequestError):
            raise request
        yield request
