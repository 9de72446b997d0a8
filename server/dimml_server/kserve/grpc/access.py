"""Access interceptor: request id, span and access line of every gRPC call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any, Final
from urllib.parse import unquote

import grpc

from dimml.errors import UnsupportedError
from dimml_server.observability.access_log import log_access
from dimml_server.observability.request_context import REQUEST_ID_HEADER, RequestContext, accepted_id
from dimml_server.observability.request_record import CANCELLED, INTERNAL
from dimml_server.observability.tracer import NO_TRACER, RequestSpan, Tracer, describe

#: Metadata key of the request's id, both from and to the caller.
REQUEST_ID_KEY: Final = REQUEST_ID_HEADER.lower()
_UNTRACED: Final = frozenset({"ServerLive", "ServerReady", "Check", "Watch", "ServerReflectionInfo"})
#: Statuses that are the server's fault (OpenTelemetry's conventions for RPC spans).
_FAULTS: Final = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})


class AccessInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs alone
    """The outermost interceptor, so that calls refused by the others are logged too.

    A call that gRPC itself ends before its message has been read (too large, too many calls, a caller that disconnects)
    never reaches an interceptor's handler, and so has no access line.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        """Return the call's handler wrapped in observation."""
        began = perf_counter()
        handler = await continuation(details)
        service, _, method = str(details.method).rpartition("/")
        metadata: dict[str, Any] = dict(details.invocation_metadata or ())
        if handler is None:
            request_context = _request_context(method, metadata, began)
            request_context.status, request_context.code = grpc.StatusCode.UNIMPLEMENTED.name, UnsupportedError.code
            log_access(request_context)
            return None
        # Not for unknown methods: their name is whatever the caller wrote, which must never become a span's name.
        span_name = f"{service.removeprefix('/')}/{method}"
        inner = handler.unary_unary or handler.unary_stream or handler.stream_stream

        async def observed(request: Any, context: Any) -> Any:
            request_context = _request_context(method, metadata, began, request, context)
            async with self._observed(request_context, span_name, metadata, context):
                return await inner(request, context)

        return kind_of(handler)(observed, handler.request_deserializer, handler.response_serializer)

    @asynccontextmanager
    async def _observed(
        self, request_context: RequestContext, span_name: str, metadata: Mapping[str, Any], context: Any
    ) -> AsyncIterator[None]:
        tracer = NO_TRACER if request_context.method in _UNTRACED else self._tracer
        attributes = {"rpc.system.name": "grpc", "rpc.method": span_name}
        with request_context.current(), tracer.request(span_name, _trace_context(metadata), attributes) as span:
            request_context.trace_id = span.trace_id
            context.set_trailing_metadata(((REQUEST_ID_KEY, request_context.request_id),))
            try:
                yield
                request_context.status = request_context.status or grpc.StatusCode.OK.name
            except asyncio.CancelledError:
                request_context.status, request_context.code = grpc.StatusCode.CANCELLED.name, CANCELLED
                raise
            except BaseException:
                if not request_context.status:  # A status is set by ``abort``, which raises.
                    request_context.status, request_context.code = grpc.StatusCode.UNKNOWN.name, INTERNAL
                raise
            finally:
                _describe(span, request_context)
                log_access(request_context)


def kind_of(handler: Any) -> Callable[..., Any]:
    """Return what makes a handler of the same kind as ``handler``."""
    if handler.unary_unary:
        return grpc.unary_unary_rpc_method_handler
    return grpc.unary_stream_rpc_method_handler if handler.unary_stream else grpc.stream_stream_rpc_method_handler


def _request_context(
    method: str, metadata: Mapping[str, Any], began: float, request: Any = None, context: Any = None
) -> RequestContext:
    # For an unreadable message ``request`` is the error; a stream has neither a size nor an id.
    size = getattr(request, "ByteSize", None)
    # The inference request's own id is used if the metadata has none.
    given = metadata.get(REQUEST_ID_KEY) or getattr(request, "id", None)
    model = getattr(request, "model_name", None) or getattr(request, "name", None) or getattr(request, "service", None)
    return RequestContext(
        request_id=accepted_id(given),
        transport="grpc",
        method=method,
        target=model if isinstance(model, str) else "",
        client="" if context is None else _host(context.peer()),
        began=began,
        bytes_in=size() if size is not None else 0,
    )


def _trace_context(metadata: Mapping[str, Any]) -> Mapping[str, str]:
    return {k: v for k in ("traceparent", "tracestate") if isinstance(v := metadata.get(k), str)}


def _host(peer: str) -> str:
    """Extract the host from gRPC's ``ipv4:127.0.0.1:5000`` or ``ipv6:%5B::1%5D:5000``."""
    return unquote(peer.partition(":")[2]).rpartition(":")[0].strip("[]")


def _describe(span: RequestSpan, request_context: RequestContext) -> None:
    describe(span, request_context)
    span.set("rpc.response.status_code", str(request_context.status))
    if request_context.status in _FAULTS:
        span.fail(request_context.outcome or str(request_context.status))
