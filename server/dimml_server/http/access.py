"""Around every HTTP request: its id in and out, one access line, and nothing internal in an unexpected error."""

from __future__ import annotations

import asyncio
import logging
import re
from time import perf_counter

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dimml_server.http.errors import internal_error, stopping_error
from dimml_server.media_request import new_request_id

access_logger = logging.getLogger("dimml_server.access")
logger = logging.getLogger(__name__)

REQUEST_ID_HEADER = "X-Request-Id"
#: What a caller's id may be; anything else is replaced, so that no caller can forge log lines.
_ACCEPTED_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")


def request_id(request: Request) -> str:
    """The id of a request that came through ``AccessMiddleware``."""
    return str(request.state.request_id)


class AccessMiddleware:
    """Outermost middleware; plain ASGI, so that a handler still hears of a client that hangs up."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        identity = given if _ACCEPTED_ID.fullmatch(given) else new_request_id()
        scope.setdefault("state", {})["request_id"] = identity
        began, status = perf_counter(), 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = identity
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            logger.exception("request %s", identity)
            if status:
                raise  # The answer has begun; only cutting it off can say that it is not whole.
            await internal_error(identity)(scope, receive, send_with_id)
        except asyncio.CancelledError:
            # Nobody but the server cancels a request here, at the end of its grace period. Answering is the way out.
            if not status:
                await stopping_error(identity)(scope, receive, send_with_id)
        finally:
            access_logger.info(
                "%s %s %d %.1fms request_id=%s%s",
                scope["method"],
                scope["path"].encode("unicode_escape").decode("ascii"),
                status,
                (perf_counter() - began) * 1000.0,
                identity,
                _key_of(scope),
            )


def _key_of(scope: Scope) -> str:
    """The name, never more, of the API key that a request came with."""
    name = scope["state"].get("key_name")
    return f" key={name}" if name else ""
