"""Around every gRPC call: its request id in and out, its span, and one access line."""

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
from dimml_server.observability.request_context import REQUEST_ID_HEADER, RequestNote, accepted_id
from dimml_server.observability.request_record import CANCELLED, INTERNAL
from dimml_server.observability.tracer import NO_TRACER, RequestSpan, Tracer, describe

#: Metadata with the request's id, from the caller and to it.
REQUEST_ID_KEY: Final = REQUEST_ID_HEADER.lower()
_UNTRACED: Final = frozenset({"ServerLive", "ServerReady"})
#: Statuses that are the server's fault (OpenTelemetry's conventions for RPC spans).
_FAULTS: Final = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})


class AccessInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs alone
    """The outermost interceptor: what the others refuse is a call too.

    A call that gRPC itself ends before its message has been read whole (too large, too many calls, a caller that
    hangs up) reaches no interceptor's handler, and so has no line.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        """Hand on the call's handler, observed."""
        began = perf_counter()
        handler = await continuation(details)
        service, _, method = str(details.method).rpartition("/")
        metadata: dict[str, Any] = dict(details.invocation_metadata or ())
        if handler is None:
            note = _note(method, metadata, began)
            note.status, note.code = grpc.StatusCode.UNIMPLEMENTED.name, UnsupportedError.code
            log_access(note)
            return None
        # Of a method that is none, whatever the caller wrote: never a span's name.
        span_name = f"{service.removeprefix('/')}/{method}"
        inner = handler.unary_unary or handler.stream_stream

        async def observed(request: Any, context: Any) -> Any:
            note = _note(method, metadata, began, request, context)
            async with self._observed(note, span_name, metadata, context):
                return await inner(request, context)

        kind = grpc.unary_unary_rpc_method_handler if handler.unary_unary else grpc.stream_stream_rpc_method_handler
        return kind(observed, handler.request_deserializer, handler.response_serializer)

    @asynccontextmanager
    async def _observed(
        self, note: RequestNote, span_name: str, metadata: Mapping[str, Any], context: Any
    ) -> AsyncIterator[None]:
        tracer = NO_TRACER if note.method in _UNTRACED else self._tracer
        attributes = {"rpc.system.name": "grpc", "rpc.method": span_name}
        with note.current(), tracer.request(span_name, _trace_context(metadata), attributes) as span:
            note.trace_id = span.trace_id
            context.set_trailing_metadata(((REQUEST_ID_KEY, note.request_id),))
            try:
                yield
                note.status = note.status or grpc.StatusCode.OK.name
            except asyncio.CancelledError:
                note.status, note.code = grpc.StatusCode.CANCELLED.name, CANCELLED
                raise
            except BaseException:
                if not note.status:  # Else it is how a call is ended with a status.
                    note.status, note.code = grpc.StatusCode.UNKNOWN.name, INTERNAL
                raise
            finally:
                _describe(span, note)
                log_access(note)


def _note(
    method: str, metadata: Mapping[str, Any], began: float, request: Any = None, context: Any = None
) -> RequestNote:
    # What cannot be read is an error in the message's place; a stream has neither a size nor an id.
    size = getattr(request, "ByteSize", None)
    # The caller's own id of an inference serves where no other is given.
    given = metadata.get(REQUEST_ID_KEY) or getattr(request, "id", None)
    model = getattr(request, "model_name", None) or getattr(request, "name", None)
    return RequestNote(
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
    """Of gRPC's ``ipv4:127.0.0.1:5000`` or ``ipv6:%5B::1%5D:5000``."""
    return unquote(peer.partition(":")[2]).rpartition(":")[0].strip("[]")


def _describe(span: RequestSpan, note: RequestNote) -> None:
    describe(span, note)
    span.set("rpc.response.status_code", str(note.status))
    if note.status in _FAULTS:
        span.fail(note.outcome or str(note.status))
