"""Around every HTTP request: its id, its span, one access line, and nothing internal in an unexpected error."""

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
from dimml_server.observability.request_context import REQUEST_ID_HEADER, RequestNote, accepted_id
from dimml_server.observability.request_record import CANCELLED
from dimml_server.observability.tracer import NO_TRACER, RequestSpan, Tracer, describe

logger = logging.getLogger(__name__)

#: Asked for every few seconds by machines; their spans would bury all others.
_UNTRACED: Final = frozenset({"/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready", "/metrics"})


def request_id(request: Request) -> str:
    """The id of a request that came through ``AccessMiddleware``."""
    return str(request.state.request_id)


def request_note(method: str, path: str, headers: Headers, client: str) -> RequestNote:
    """The note of a request that begins now, with the caller's id or a new one."""
    return RequestNote(
        request_id=accepted_id(headers.get(REQUEST_ID_HEADER)),
        transport="http",
        method=method,
        target=path,
        client=client,
    )


class AccessMiddleware:
    """Outermost middleware; plain ASGI, so that a handler still hears of a client that hangs up."""

    def __init__(self, app: ASGIApp, tracer: Tracer = NO_TRACER) -> None:
        self._app = app
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        client = scope.get("client")
        note = request_note(scope["method"], scope["path"], headers, client[0] if client else "")
        scope.setdefault("state", {})["request_id"] = note.request_id
        tracer = NO_TRACER if note.target in _UNTRACED else self._tracer
        with (
            note.current(),
            tracer.request(note.method, _trace_context(headers), {"http.request.method": note.method}) as span,
        ):
            note.trace_id = span.trace_id
            try:
                await self._answer(note, scope, receive, send)
            finally:
                if note.status == CLIENT_CLOSED_REQUEST:
                    note.code = CANCELLED
                _describe(span, note, scope)
                log_access(note)

    async def _answer(self, note: RequestNote, scope: Scope, receive: Receive, send: Send) -> None:
        async def receive_counted() -> Message:
            message = await receive()
            if message["type"] == "http.request":
                note.bytes_in += len(message.get("body", b""))
            return message

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                note.status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = note.request_id
            await send(message)

        try:
            await self._app(scope, receive_counted, send_with_id)
        except Exception:
            logger.exception("request %s", note.request_id)
            if note.status:
                raise  # The answer has begun; only cutting it off can say that it is not whole.
            await internal_error(note.request_id)(scope, receive, send_with_id)
        except asyncio.CancelledError:
            # Nobody but the server cancels a request here, at the end of its grace period. Answering is the way out.
            if not note.status:
                await stopping_error(note.request_id)(scope, receive, send_with_id)


def _trace_context(headers: Headers) -> Mapping[str, str]:
    parent = headers.get("traceparent")
    if parent is None:
        return {}
    return {"traceparent": parent, "tracestate": ",".join(headers.getlist("tracestate"))}


def _describe(span: RequestSpan, note: RequestNote, scope: Scope) -> None:
    # The path as it was declared: what a caller wrote in its place may be anything.
    route = getattr(scope.get("route"), "path", None)
    if route is not None:
        span.rename(f"{note.method} {route}")
        span.set("http.route", route)
    describe(span, note)
    if isinstance(note.status, int):
        span.set("http.response.status_code", note.status)
        if note.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            # A caller's error is none of the server's (OpenTelemetry's conventions for HTTP spans).
            span.fail(note.outcome or str(note.status))
