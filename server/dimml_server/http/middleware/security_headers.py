"""Headers that keep a browser from doing more with an answer than reading it."""

from __future__ import annotations

from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: Headers of an answer that no browser may show, run or frame.
_NOTHING: Final = "default-src 'none'; frame-ancestors 'none'"
_DEFAULTS: Final = {
    "X-Content-Type-Options": "nosniff",
    # Answers are about one recording of one caller, or about now.
    "Cache-Control": "no-store",
    "Content-Security-Policy": _NOTHING,
    "Referrer-Policy": "no-referrer",
}
_RAW_DEFAULTS: Final = tuple((name.lower().encode(), value.encode()) for name, value in _DEFAULTS.items())


class SecurityHeadersMiddleware:
    """Outermost, plain ASGI: adds the headers that an answer does not set itself, to errors too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                add_security_headers(MutableHeaders(scope=message))
            await send(message)

        await self._app(scope, receive, send_guarded)


def add_security_headers(headers: MutableHeaders) -> None:
    """Add the security headers that are not set."""
    present = {name for name, _ in headers.raw}
    headers.raw.extend(default for default in _RAW_DEFAULTS if default[0] not in present)
