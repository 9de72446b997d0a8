"""KServe v2 over gRPC, with tritonclient's stubs (another package's stubs cannot be loaded in the same process)."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Final

import grpc
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2 as pb

from dimml.errors import (
    CapacityError,
    DeadlineExceededError,
    DimmlError,
    NotFoundError,
    PermissionDeniedError,
    QueueFullError,
    RequestError,
    TooLargeError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)
from dimml_server.http.errors import error_headers
from dimml_server.kserve.dataplane import DataPlane
from dimml_server.kserve.grpc.access import REQUEST_ID_KEY, AccessInterceptor
from dimml_server.kserve.grpc.authentication import AuthenticationInterceptor, key_of
from dimml_server.kserve.grpc.codec import format_infer, parameters_of, parse_infer
from dimml_server.kserve.grpc.health import Health, Streams, add_health, add_reflection
from dimml_server.kserve.messages import check_text
from dimml_server.observability.metrics import Metrics
from dimml_server.observability.request_context import accepted_id, current_request
from dimml_server.observability.request_record import INTERNAL
from dimml_server.prediction.service import PredictionService
from dimml_server.security.guard import Guard
from dimml_server.settings.settings import ServerSettings

logger = logging.getLogger(__name__)

TRANSPORT: Final = "grpc"
#: Metadata key of an error's code, field and modality statuses, as JSON; ``-bin`` lets it hold any text.
ERROR_DETAIL: Final = "dimml-error-bin"

#: The one table from domain errors to gRPC (docs/adr/0011). The closest base class of an error counts.
STATUS_CODES: Final[dict[type[DimmlError], grpc.StatusCode]] = {
    RequestError: grpc.StatusCode.INVALID_ARGUMENT,
    NotFoundError: grpc.StatusCode.NOT_FOUND,
    UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    PermissionDeniedError: grpc.StatusCode.PERMISSION_DENIED,
    UnsupportedError: grpc.StatusCode.UNIMPLEMENTED,
    CapacityError: grpc.StatusCode.UNAVAILABLE,
    QueueFullError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    DeadlineExceededError: grpc.StatusCode.DEADLINE_EXCEEDED,
}
#: Messages that gRPC itself refuses get RESOURCE_EXHAUSTED without our limit; so gRPC's own limit is somewhat higher.
_READ_BEYOND_LIMIT: Final = 2
_INT32_MAX: Final = 2**31 - 1
#: Reserved from a call's deadline for sending the answer: a share of it, up to a maximum.
_WAY_BACK_SHARE: Final = 0.1
_WAY_BACK_S: Final = 0.2

Context = Any
Method = Callable[[Any, Context], Awaitable[Any]]


def create_server(
    service: PredictionService,
    metrics: Metrics,
    settings: ServerSettings,
    guard: Guard,
    stopping: asyncio.Event | None = None,
) -> grpc.aio.Server:
    """Create a server for KServe v2 and gRPC's health service; the caller adds a port, starts and stops it.

    Set ``stopping`` before stopping it: watches of the health service would outlast the grace period otherwise.
    """
    limit = min(settings.max_body_bytes, settings.max_grpc_bytes)
    read_bytes = min(limit * _READ_BEYOND_LIMIT, _INT32_MAX)
    # The longest time a call can take, from its first byte to its last.
    longest_s = settings.upload_timeout_s + settings.max_timeout_s
    # gRPC reads a message completely before it hands it over: as many messages as the queue holds may be in transit.
    most_calls = 2 * (settings.concurrency + settings.queue_length)
    server = grpc.aio.server(
        interceptors=(AccessInterceptor(service.tracer), AuthenticationInterceptor(guard, settings, _abort)),
        maximum_concurrent_rpcs=most_calls,
        options=(
            ("grpc.max_receive_message_length", read_bytes),
            ("grpc.max_send_message_length", _INT32_MAX),
            # A port that another program listens on must be an error, not be shared with it. Several processes of one
            # server share theirs, which their parent has reserved.
            ("grpc.so_reuseport", int(settings.processes > 1)),
            # No client can hold a connection forever: by being silent, by sending an endless message, or by having
            # gone.
            ("grpc.max_connection_age_ms", _ms(settings.grpc_connection_age_s)),
            ("grpc.max_connection_age_grace_ms", _ms(longest_s)),
            ("grpc.server_handshake_timeout_ms", _ms(settings.header_timeout_s)),
            ("grpc.keepalive_time_ms", _ms(settings.grpc_keepalive_s)),
        ),
    )
    plane = DataPlane(service, metrics, settings)
    methods = _methods(plane, limit)
    described = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    handlers = {}
    for method in described.methods:
        kind = grpc.stream_stream_rpc_method_handler if method.server_streaming else grpc.unary_unary_rpc_method_handler
        handlers[method.name] = kind(
            _answered(method.name, methods.get(method.name) or _refusal(method.name)),
            request_deserializer=_reader(getattr(pb, method.input_type.name)),
            response_serializer=getattr(pb, method.output_type.name).SerializeToString,
        )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(described.full_name, handlers),))

    def check_key(context: Context) -> None:
        guard.identify(key_of(context.invocation_metadata()))

    health = Health(plane, described.full_name, Streams(most_calls), stopping or asyncio.Event(), check_key)
    add_health(server, health, _reader, _answered)
    if settings.docs_page:
        add_reflection(server, described.full_name, health.streams, _reader, _answered)
    return server


def _reader(message: Any) -> Callable[[bytes], Any]:
    """Build a reader of messages. If a reader raised, gRPC would answer UNKNOWN and log a fault of the server."""

    def read(data: bytes) -> Any:
        try:
            return message.FromString(data)
        except DecodeError:
            return RequestError(f"the message is not a {message.DESCRIPTOR.full_name}", field="body")

    return read


def _ms(seconds: float) -> int:
    return min(round(seconds * 1000), _INT32_MAX)


def _methods(plane: DataPlane, limit: int) -> dict[str, Method]:
    """Return the offered calls by their name in the service."""
    catalog = plane.catalog

    async def server_live(request: Any, context: Context) -> Any:
        return pb.ServerLiveResponse(live=True)

    async def server_ready(request: Any, context: Context) -> Any:
        return pb.ServerReadyResponse(ready=plane.ready)

    async def model_ready(request: Any, context: Context) -> Any:
        try:
            return pb.ModelReadyResponse(ready=plane.model_ready(request.name, request.version))
        except (NotFoundError, UnavailableError):
            return pb.ModelReadyResponse(ready=False)

    async def server_metadata(request: Any, context: Context) -> Any:
        return json_format.ParseDict(
            catalog.server_metadata(controlled=plane.repository.explicit), pb.ServerMetadataResponse()
        )

    async def model_metadata(request: Any, context: Context) -> Any:
        metadata = catalog.model_metadata(request.name, request.version)
        return json_format.ParseDict(metadata, pb.ModelMetadataResponse())

    async def model_config(request: Any, context: Context) -> Any:
        return pb.ModelConfigResponse(config=catalog.config(request.name, request.version))

    async def model_statistics(request: Any, context: Context) -> Any:
        statistics = await catalog.statistics(request.name, request.version)
        return json_format.ParseDict(statistics, pb.ModelStatisticsResponse())

    async def repository_index(request: Any, context: Context) -> Any:
        models = await plane.repository.index(ready=request.ready)
        return json_format.ParseDict({"models": models}, pb.RepositoryIndexResponse())

    async def repository_load(request: Any, context: Context) -> Any:
        await plane.repository.load(request.model_name, parameters_of(request.parameters))
        return pb.RepositoryModelLoadResponse()

    async def repository_unload(request: Any, context: Context) -> Any:
        await plane.repository.unload(request.model_name, parameters_of(request.parameters))
        return pb.RepositoryModelUnloadResponse()

    async def model_infer(request: Any, context: Context) -> Any:
        return await _infer(plane, request, context, limit)

    return {
        "ServerLive": server_live,
        "ServerReady": server_ready,
        "ModelReady": model_ready,
        "ServerMetadata": server_metadata,
        "ModelMetadata": model_metadata,
        "ModelConfig": model_config,
        "ModelStatistics": model_statistics,
        "RepositoryIndex": repository_index,
        "RepositoryModelLoad": repository_load,
        "RepositoryModelUnload": repository_unload,
        "ModelInfer": model_infer,
    }


async def _infer(plane: DataPlane, request: Any, context: Context, limit: int) -> Any:
    """Run one inference. A caller that disconnects, or whose deadline passes, cancels this and so frees its place."""
    name, version = check_text("model_name", request.model_name), check_text("model_version", request.model_version)
    with plane.call(name, version, TRANSPORT) as call:
        with call.timed("compute_input"):
            size = request.ByteSize()
            if size > limit:
                name_of_limit = "max_body_bytes" if limit == plane.max_body_bytes else "max_grpc_bytes"
                raise TooLargeError(f"request of {size} bytes exceeds {name_of_limit} ({limit})", field="body")
            asked = parse_infer(request)
        left_s = context.time_remaining()
        if left_s is not None:
            if left_s <= 0.0:
                raise DeadlineExceededError("the call's deadline passed before it was read")
            own_s = plane.max_timeout_s if asked.timeout_s is None else asked.timeout_s
            asked = replace(asked, timeout_s=min(own_s, left_s - min(_WAY_BACK_SHARE * left_s, _WAY_BACK_S)))
        answer = await plane.infer(call, asked)
        with call.timed("compute_output"):
            response = format_infer(answer)
    return response


def _refusal(name: str) -> Method:
    async def refused(request: Any, context: Context) -> Any:
        raise UnsupportedError(f"{name} is not supported by this server")

    return refused


def _error_metadata(error: DimmlError) -> tuple[tuple[str, str | bytes], ...]:
    """Build the trailing metadata of a refusal: details for dimml's own client that gRPC's status cannot express."""
    detail = {"code": error.code, "field": error.field, "modalities": {n: str(s) for n, s in error.statuses.items()}}
    headers = ((key.lower(), value) for key, value in error_headers(error).items())
    request_context = current_request()
    # Metadata given with an error replaces what was set before.
    identity = () if request_context is None else ((REQUEST_ID_KEY, request_context.request_id),)
    return (*headers, *identity, (ERROR_DETAIL, json.dumps(detail).encode()))


async def _unreadable(error: RequestError) -> Any:
    raise error


async def _abort(context: Context, error: DimmlError) -> Any:
    """End a call with an error's status; never returns."""
    code = next(STATUS_CODES[kind] for kind in type(error).__mro__ if kind in STATUS_CODES)
    if (request_context := current_request()) is not None:
        request_context.status = code.name
        request_context.fail(error)
    return await context.abort(code, error.message, _error_metadata(error))


def _answered(name: str, method: Method) -> Method:
    """Wrap ``method`` so that its errors become gRPC statuses."""

    async def answered(request: Any, context: Context) -> Any:
        try:
            return await (_unreadable(request) if isinstance(request, RequestError) else method(request, context))
        except (RequestError, CapacityError) as error:
            return await _abort(context, error)
        except Exception:
            identity = accepted_id(None)
            if (request_context := current_request()) is not None:
                identity, request_context.status, request_context.code = (
                    request_context.request_id,
                    grpc.StatusCode.INTERNAL.name,
                    INTERNAL,
                )
            logger.exception("request %s: %s", identity, name)
            return await context.abort(grpc.StatusCode.INTERNAL, f"internal error; request id {identity}")

    return answered
