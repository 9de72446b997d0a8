"""HEAD wherever GET is: the same answer without its body (RFC 9110, section 9.3.2)."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: What routing adds to a request's scope, for the spans and logs of the middleware outside.
_OF_ROUTING = ("route", "endpoint", "path_params")


class HeadMiddleware:
    """Innermost, plain ASGI: routes see GET, while keys, spans and the access log see HEAD."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_head = scope["method"] == "HEAD"

        async def send_answer(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 405:
                headers = MutableHeaders(scope=message)
                allowed = [method.strip() for method in headers.get("Allow", "").split(",")]
                if "GET" in allowed and "HEAD" not in allowed:
                    headers["Allow"] = ", ".join([*allowed, "HEAD"])
            elif message["type"] == "http.response.body" and is_head:
                message = {**message, "body": b""}
            await send(message)

        # A copy: the server itself must go on to see HEAD.
        inner = {**scope, "method": "GET"} if is_head else scope
        try:
            await self._app(inner, receive, send_answer)
        finally:
            scope.update({name: inner[name] for name in _OF_ROUTING if name in inner})
