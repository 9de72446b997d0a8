"""Early refusal: predictions that the queue has no room for are answered from their headers alone.

Under overload most requests are refused, and the processor time of refusals is taken from answers. So this refusal
happens before the application, its middleware and a task of its own; it answers, counts and logs exactly as they would.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from starlette.datastructures import Headers
from starlette.responses import Response

from dimml.errors import DimmlError, QueueFullError, RequestError
from dimml_server.http.body.multipart import checked_head
from dimml_server.http.errors import error_response
from dimml_server.http.middleware.access import new_request_context
from dimml_server.http.middleware.authentication import headers_key
from dimml_server.http.middleware.security_headers import add_security_headers
from dimml_server.http.routes.predict import PATH, TRANSPORT
from dimml_server.observability.access_log import log_access
from dimml_server.observability.metrics import Metrics
from dimml_server.observability.request_context import REQUEST_ID_HEADER, RequestContext
from dimml_server.observability.tracer import NO_TRACER
from dimml_server.prediction.service import PredictionService
from dimml_server.security.guard import Guard
from dimml_server.settings.settings import ServerSettings

_METHOD: Final = b"POST"


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer given instead of the application's; ``of_queue`` is None if the caller itself is refused."""

    response: Response
    request_context: RequestContext
    of_queue: QueueFullError | None


class FullQueue:
    """Checks the headers of every request, for the connections of one server."""

    def __init__(self, service: PredictionService, metrics: Metrics, settings: ServerSettings, guard: Guard) -> None:
        self._service = service
        self._metrics = metrics
        self._max_body_bytes = settings.max_body_bytes
        self._paths = frozenset({PATH.encode(), (settings.root_path + PATH).encode()})
        self._guard = guard

    def refusal(self, method: bytes, url: bytes, raw: list[tuple[bytes, bytes]], client: str) -> Refusal | None:
        """Return the refusal of a request for which there is no room; None for any the application is to answer.

        The application also answers requests that are traced, that come from a web page, or that would be refused
        anyway.
        """
        service = self._service
        if method != _METHOD or url.partition(b"?")[0] not in self._paths:
            return None
        full = service.early_refusal()
        if full is None or service.tracer is not NO_TRACER:
            return None
        headers = Headers(raw=raw)
        if "origin" in headers:
            return None
        try:
            checked_head(headers, self._max_body_bytes)
        except RequestError:
            return None
        request_context = new_request_context(_METHOD.decode(), PATH, headers, client)
        why: DimmlError = full
        try:
            key = self._guard.identify(headers_key(headers))
            request_context.key = "" if key is None else key.name
            self._guard.check_place(key)
        except DimmlError as error:
            why = error
        with request_context.current():
            response = error_response(why, request_context.request_id)
        request_context.status = response.status_code
        response.headers[REQUEST_ID_HEADER] = request_context.request_id
        add_security_headers(response.headers)
        return Refusal(response, request_context, full if why is full else None)

    def record(self, refusal: Refusal) -> None:
        """Count and log a refusal that was sent."""
        with refusal.request_context.current():
            if refusal.of_queue is not None:
                with suppress(QueueFullError), self._metrics.request(TRANSPORT):
                    raise refusal.of_queue
            log_access(refusal.request_context)
