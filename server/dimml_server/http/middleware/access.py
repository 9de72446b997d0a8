"""Access middleware: request id, span and access line of every HTTP request; no internals in unexpected errors."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dimml_server.http.body.disconnect import CLIENT_CLOSED_REQUEST
from dimml_server.http.errors import internal_error, stopping_error
from dimml_server.observability.access_log import log_access
from dimml_server.observability.request_context import REQUEST_ID_HEADER, RequestContext, accepted_id
from dimml_server.observability.request_record import CANCELLED
from dimml_server.observability.tracer import NO_TRACER, RequestSpan, Tracer, describe

logger = logging.getLogger(__name__)

#: Probed every few seconds; their spans would drown out all others.
_UNTRACED: Final = frozenset(
    {"/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready", "/metrics", "/v1/now"}
)


def request_id(request: Request) -> str:
    """Return the id of a request that passed ``AccessMiddleware``."""
    return str(request.state.request_id)


def new_request_context(method: str, path: str, headers: Headers, client: str) -> RequestContext:
    """Start the context of a request, with the caller's id or a new one."""
    return RequestContext(
        request_id=accepted_id(headers.get(REQUEST_ID_HEADER)),
        transport="http",
        method=method,
        target=path,
        client=client,
    )


class AccessMiddleware:
    """Outermost middleware; plain ASGI, so that a handler still notices a client that disconnects."""

    def __init__(self, app: ASGIApp, tracer: Tracer = NO_TRACER) -> None:
        self._app = app
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        client = scope.get("client")
        request_context = new_request_context(scope["method"], scope["path"], headers, client[0] if client else "")
        scope.setdefault("state", {})["request_id"] = request_context.request_id
        tracer = NO_TRACER if request_context.target in _UNTRACED else self._tracer
        with (
            request_context.current(),
            tracer.request(
                request_context.method, _trace_context(headers), {"http.request.method": request_context.method}
            ) as span,
        ):
            request_context.trace_id = span.trace_id
            try:
                await self._answer(request_context, scope, receive, send)
            finally:
                if request_context.status == CLIENT_CLOSED_REQUEST:
                    request_context.code = CANCELLED
                if tracer is not NO_TRACER:
                    _describe(span, request_context, scope)
                log_access(request_context)

    async def _answer(self, request_context: RequestContext, scope: Scope, receive: Receive, send: Send) -> None:
        async def receive_counted() -> Message:
            message = await receive()
            if message["type"] == "http.request":
                request_context.bytes_in += len(message.get("body", b""))
            return message

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                request_context.status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_context.request_id
            await send(message)

        try:
            await self._app(scope, receive_counted, send_with_id)
        except Exception:
            logger.exception("request %s", request_context.request_id)
            if request_context.status:
                raise  # The answer has begun; only cutting it off can show that it is incomplete.
            await internal_error(request_context.request_id)(scope, receive, send_with_id)
        except asyncio.CancelledError:
            # Only the server cancels a request here, at the end of its grace period; the request is answered before it
            # ends.
            if not request_context.status:
                await stopping_error(request_context.request_id)(scope, receive, send_with_id)


def _trace_context(headers: Headers) -> Mapping[str, str]:
    parent = headers.get("traceparent")
    if parent is None:
        return {}
    return {"traceparent": parent, "tracestate": ",".join(headers.getlist("tracestate"))}


def _describe(span: RequestSpan, request_context: RequestContext, scope: Scope) -> None:
    # The path as declared in the route: the path a caller sent may be anything.
    route = getattr(scope.get("route"), "path", None)
    if route is not None:
        span.rename(f"{request_context.method} {route}")
        span.set("http.route", route)
    describe(span, request_context)
    if isinstance(request_context.status, int):
        span.set("http.response.status_code", request_context.status)
        if request_context.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            # A caller's error does not count as the server's (OpenTelemetry's conventions for HTTP spans).
            span.fail(request_context.outcome or str(request_context.status))
