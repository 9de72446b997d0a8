"""Bounds on what one HTTP connection may cost before and after its request: time and bytes of its head, and lingering.

uvicorn leaves these bounds to the application. The methods overridden here are its private API: read
``tests/server/http/test_uvicorn.py`` before its version is raised in pyproject.toml.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from dimml_server.counts import Count
from dimml_server.http.body.disconnect import WHEN_GONE
from dimml_server.http.connection.early_refusal import FullQueue, Refusal
from dimml_server.http.connection.request_parser import PlainRequestParser
from dimml_server.observability.access_log import log_access
from dimml_server.observability.request_context import RequestContext, new_request_id
from dimml_server.settings.settings import ServerSettings

#: Time from an answer sent before the whole body arrived, or that the client does not read, until the connection is
#: cut. Closing at once would discard the answer if the client is still sending.
LINGER_S = 5.0

_REFUSALS = {
    HTTPStatus.BAD_REQUEST: ("invalid_request", "this is not an HTTP request"),
    HTTPStatus.REQUEST_TIMEOUT: ("header_timeout", "the request's head did not arrive in time (header_timeout_s)"),
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: ("headers_too_large", "the request's head is over max_header_bytes"),
    HTTPStatus.SERVICE_UNAVAILABLE: ("unavailable", "the server has too many connections; try again later"),
}


#: Pipelined requests that may wait for the one before them. Each takes kilobytes of memory for some forty bytes sent.
MAX_PIPELINED = 16


class _RefusedError(Exception):
    """Raised in a callback of the parser, which ends the connection."""


class LenientTransport:
    """A transport that hides its end from the application.

    Writes after the end are dropped, as asyncio's own transports do and uvloop's do not: a client that disconnects is
    not an error. ``close`` calls ``leave`` instead of the transport's own.

    The write after ``hold_next`` waits for the one after it, so that both leave in one piece.
    """

    def __init__(self, transport: asyncio.Transport, leave: Callable[[], None] | None = None) -> None:
        self._transport = transport
        self._leave = leave or transport.close
        self._holding = False
        self._held: list[bytes] = []
        #: Whether ``leave`` has been called, so that only the other side's end is awaited.
        self.leaving = False

    def write(self, data: bytes) -> None:
        """Send, unless the connection has ended."""
        if self.is_closing():
            return
        self._held.append(data)
        if self._holding:
            self._holding = False
            return
        if len(self._held) == 1:
            self._transport.write(data)
        else:
            self._transport.writelines(self._held)
        self._held = []

    def hold_next(self) -> None:
        """Keep the next write until another, or the end."""
        self._holding = True

    def close(self) -> None:
        """Send what is kept, and leave."""
        self._holding = False
        if self._held:
            self.write(b"")
        self._leave()

    def is_closing(self) -> bool:
        """Whether nothing more will be sent."""
        return self.leaving or self._transport.is_closing()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class BoundedConnection(HttpToolsProtocol):
    """uvicorn's protocol within the bounds of ``settings``; ``full_queue`` answers requests there is no room for."""

    def __init__(
        self, *arguments: Any, settings: ServerSettings, full_queue: FullQueue, open_connections: Count, **named: Any
    ) -> None:
        super().__init__(*arguments, **named)
        self.parser = PlainRequestParser(self)  # type: ignore[assignment]  # it behaves as one
        self._settings = settings
        self._full_queue = full_queue
        self._open_connections, self._counted = open_connections, False
        #: The answer of ``full_queue`` to the request that is being read.
        self._refusal: Refusal | None = None
        #: Number of refusals among the requests in the data received last.
        self._turned_away = 0
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._in_head = True
        self._in_body = False
        #: Bytes of the current head or trailers that the parser has passed on, and that it still keeps.
        self._head_bytes = self._kept_bytes = 0
        #: Bytes of any kind that it has passed on from the data received last, and whether a body was among them.
        self._given_bytes, self._body_came = 0, False
        #: Whether the client has gone, and what the request that is worked on wants called then.
        self._lost = False
        self._gone: Callable[[], None] | None = None
        #: Bytes received after the last answer on this connection.
        self._passed_over = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn does
        self._below = transport
        self._lenient = LenientTransport(transport, self._leave)
        super().connection_made(self._lenient)  # type: ignore[arg-type]  # it behaves as one
        self._counted = self._open_connections.take(self._settings.max_connections)
        if self._counted:
            self._start("head", self._settings.header_timeout_s, self._head_is_late)
        else:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE)

    def connection_lost(self, exc: Exception | None) -> None:
        for name in list(self._timers):
            self._stop(name)
        if self._counted:
            self._open_connections.give_back()
        super().connection_lost(exc)
        self._lost = True
        gone, self._gone = self._gone, None
        if gone is not None:
            gone()

    def data_received(self, data: bytes) -> None:
        if self._lenient.leaving:
            self._passed_over += len(data)
            if self._passed_over > self._settings.max_body_bytes:
                self._below.pause_reading()  # Ignored until the lingering time is over.
            return
        if self.transport.is_closing():
            return
        if self._in_head and "head" not in self._timers:
            # The next request on a kept connection; uvicorn bounds the wait for its first byte.
            self._start("head", self._settings.header_timeout_s, self._head_is_late)
        self._given_bytes, self._body_came = 0, False
        self._turned_away = 0
        super().data_received(data)
        if self._refusal is not None and not self.transport.is_closing():
            self._turn_away(self._refusal, keep=False)
        self._kept_bytes = 0 if self._body_came and self._in_body else self._kept_bytes + len(data) - self._given_bytes
        if self._kept_bytes > self._settings.max_header_bytes and not self.transport.is_closing():
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def send_400_response(self, msg: str) -> None:
        """Answer a request that the parser or one of our callbacks refuses; called by uvicorn."""
        if self.transport.is_closing():
            return
        too_large = self._head_bytes > self._settings.max_header_bytes
        self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE if too_large else HTTPStatus.BAD_REQUEST)

    def on_message_begin(self) -> None:
        self._in_head, self._in_body = True, False
        self._head_bytes = self._kept_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._stop("head")
        self._in_head, self._in_body = False, True
        self._kept_bytes = 0
        if len(self.pipeline) >= MAX_PIPELINED:
            # Without an answer of its own, which would end up in the middle of the previous answers.
            self.transport.close()
            self._start("unread", LINGER_S, self.transport.abort)
            raise _RefusedError
        idle = self.cycle is None or self.cycle.response_complete
        # A client that does not read must not be written to without bound, nor get a thousand answers in one turn of
        # the event loop: the remaining requests go to the application, where the number waiting is bounded.
        if idle and self._turned_away < MAX_PIPELINED and not self.transport.get_write_buffer_size():
            method = self.parser.get_method()
            self._refusal = self._full_queue.refusal(method, self.url, self.headers, self._client_host)
            if self._refusal is not None:
                return
        self._unset_keepalive_if_required()
        super().on_headers_complete()
        if self.cycle is not None:
            self._prepare_answer(self.cycle)

    def on_body(self, body: bytes) -> None:
        self._given_bytes += len(body)
        self._body_came = True
        if self._refusal is None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_head, self._in_body = True, False
        self._kept_bytes = 0
        if self._refusal is None:
            super().on_message_complete()
        else:
            keep = self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive()
            self._turn_away(self._refusal, keep=keep)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.pipeline:
            self.flow.pause_reading()  # uvicorn has just resumed reading.
        if self.transport.get_write_buffer_size() > 0:
            self._start("unread", self._settings.upload_timeout_s, self._nobody_reads)

    def pause_writing(self) -> None:
        self._start("unread", self._settings.upload_timeout_s, self._nobody_reads)
        super().pause_writing()

    def resume_writing(self) -> None:
        self._stop("unread")
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._start("unread", LINGER_S, self.transport.abort)

    def _prepare_answer(self, cycle: RequestResponseCycle) -> None:
        """Add ``Connection: close`` to an answer sent before the whole body has arrived (RFC 9112, 9.6).

        Its head and its body are sent in one piece: a client that reads only as far as the status, as
        ``tritonclient.http`` does with health, gives up a connection on which more arrives.
        """
        cycle.scope[WHEN_GONE] = self._when_gone  # type: ignore[typeddict-unknown-key]  # an extension of ours
        plain = cycle.send

        async def send(message: Any) -> None:
            if not cycle.response_started:
                if cycle.more_body:
                    cycle.keep_alive = False
                if cycle.scope["method"] != "HEAD":
                    self._lenient.hold_next()
            await plain(message)

        cycle.send = send  # type: ignore[method-assign]  # there is no other hook before the head is written

    def _when_gone(self, call: Callable[[], None] | None) -> None:
        """Have ``call`` called once the client has gone, now if it has; of the one request that is worked on."""
        self._gone = call
        if call is None:
            return
        if self._lost:
            self._gone = None
            call()
        else:
            # A large piece of the body may have paused it, and a connection that is not read is not seen to end.
            self.flow.resume_reading()

    def _leave(self) -> None:
        """Close the connection, but accept the rest of a body for a while.

        With unread data the kernel would reset the connection, and the client would never see its answer.
        """
        if self._lenient.is_closing() or not (
            self._in_body and self.cycle is not None and self.cycle.response_complete
        ):
            self._below.close()
        else:
            self._linger()

    def _linger(self) -> None:
        if self._below.can_write_eof():
            self._below.write_eof()
        self._lenient.leaving = True
        self.flow.resume_reading()
        self._start("body", LINGER_S, self._below.close)

    def _turn_away(self, refusal: Refusal, *, keep: bool) -> None:
        """Answer instead of the application; ``keep`` the connection for the next request."""
        self._refusal = None
        self._turned_away += 1
        response = refusal.response
        self.server_state.total_requests += 1
        headers = [*self.server_state.default_headers, *response.raw_headers]
        if not keep:
            headers.append((b"connection", b"close"))
        self._write(HTTPStatus(response.status_code), headers, bytes(response.body))
        self._full_queue.record(refusal)
        self._unset_keepalive_if_required()
        if keep:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        elif self._in_body:
            self._linger()
        else:
            self._below.close()

    @property
    def _client_host(self) -> str:
        return self.client[0] if self.client else ""

    def _write(self, status: HTTPStatus, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        head = [f"HTTP/1.1 {status.value} {status.phrase}".encode()]
        head += [name + b": " + value for name, value in headers]
        self.transport.write(b"\r\n".join([*head, b"", body]))

    def _count(self, size: int) -> None:
        self._head_bytes += size
        self._given_bytes += size
        if self._head_bytes > self._settings.max_header_bytes:
            raise _RefusedError

    def _head_is_late(self) -> None:
        if self._kept_bytes or self._head_bytes:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)
        else:
            self.transport.close()

    def _nobody_reads(self) -> None:
        if self.transport.get_write_buffer_size() > 0:
            self.transport.abort()

    def _refuse(self, status: HTTPStatus) -> None:
        """Answer without the application, which the request has not reached, and close."""
        code, message = _REFUSALS[status]
        request_context = RequestContext(
            new_request_id(), "http", "-", "", self._client_host, status=status.value, code=code
        )
        log_access(request_context)
        detail = {"code": code, "message": message, "request_id": request_context.request_id}
        body = json.dumps({"error": detail}).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        self._write(status, headers, body)
        self.transport.close()
        self._start("unread", LINGER_S, self.transport.abort)

    def _start(self, name: str, after_s: float, call: Callable[[], None]) -> None:
        self._stop(name)
        self._timers[name] = self.loop.call_later(after_s, call)

    def _stop(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()
