"""API keys over HTTP: callers without a valid key, or without permission, are refused before the body is read."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Final

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dimml.errors import DimmlError
from dimml_server.http.errors import error_headers, error_response
from dimml_server.observability.request_context import current_request, record_error
from dimml_server.prediction.error_status import http_status
from dimml_server.security.guard import Guard, presented_key
from dimml_server.settings.settings import ServerSettings

API_KEY_HEADER: Final = "X-API-Key"
_HEALTH: Final = ("/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready")
_METRICS: Final = ("/metrics", "/v1/now")
#: What the docs page consists of (``http/routes/pages.py``).
_DOCS: Final = ("/", "/docs", "/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css", "/openapi.json")
#: Calls below the first change what is served; so do calls below the second that are not GET, HEAD or OPTIONS.
_ADMIN_PREFIX: Final = "/v2/repository/models/"
_MODELS_PREFIX: Final = "/v1/models/"
_LOOKS: Final = ("GET", "HEAD", "OPTIONS")


class AuthenticationMiddleware:
    """Checks API keys. Plain ASGI, inside ``AccessMiddleware``, which has given the request its id.

    ``page_paths`` answer without a key, too: the files of the console.
    """

    def __init__(
        self, app: ASGIApp, guard: Guard, settings: ServerSettings, page_paths: frozenset[str] = frozenset()
    ) -> None:
        self._app = app
        self._guard = guard
        open_paths = (_HEALTH if settings.health_open else ()) + (_METRICS if settings.metrics_open else ())
        self._open_paths = frozenset(open_paths + (_DOCS if settings.docs_page else ())) | page_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self._guard.closed or scope["path"] in self._open_paths:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            key = self._guard.identify(headers_key(headers), admin=_changes(scope))
            if key is not None and (request_context := current_request()) is not None:
                request_context.key = key.name
            with ExitStack() as place:
                place.enter_context(self._guard.place(key))

                async def send_freeing(message: Message) -> None:
                    # Before the caller can know that it has its answer, and ask another process.
                    if message["type"] == "http.response.body" and not message.get("more_body", False):
                        place.close()
                    await send(message)

                await self._app(scope, receive, send_freeing)
        except DimmlError as error:
            # The application handles its own errors, so this one is the guard's.
            await _refusal(error, scope)(scope, receive, send)


def headers_key(headers: Headers) -> str | None:
    """Return the API key of a request, or None."""
    return presented_key(headers.get(API_KEY_HEADER), headers.get("Authorization"))


def _changes(scope: Scope) -> bool:
    path: str = scope["path"]
    return path.startswith(_ADMIN_PREFIX) or (path.startswith(_MODELS_PREFIX) and scope["method"] not in _LOOKS)


def _refusal(error: DimmlError, scope: Scope) -> JSONResponse:
    if scope["path"].startswith("/v2"):
        record_error(error)
        return JSONResponse({"error": error.message}, http_status(error), error_headers(error))
    return error_response(error, scope["state"]["request_id"])
