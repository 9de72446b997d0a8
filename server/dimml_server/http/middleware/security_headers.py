"""Headers that keep a browser from doing more with an answer than reading it, and the API's docs page."""

from __future__ import annotations

import base64
import hashlib
import inspect
import re
from typing import Final
from urllib.parse import urlsplit

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
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
_INLINE_SCRIPT: Final = re.compile(r"<script>(.*?)</script>", re.DOTALL)


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
    for name, value in _DEFAULTS.items():
        headers.setdefault(name, value)


def add_docs_page(app: FastAPI) -> None:
    """Add ``/docs``, with a policy that allows Swagger UI's own files and the page's only script, by its hash."""
    page = get_swagger_ui_html(
        openapi_url=str(app.openapi_url), title=f"{app.title} {app.version}", swagger_favicon_url="data:,"
    ).body
    html = bytes(page).decode()
    scripts = [hashlib.sha256(script.encode()).digest() for script in _INLINE_SCRIPT.findall(html)]
    hashes = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in scripts)
    # The host from which FastAPI loads Swagger UI, which depends on the installed version.
    defaults = inspect.signature(get_swagger_ui_html).parameters
    script, style = (_origin(defaults[name].default) for name in ("swagger_js_url", "swagger_css_url"))
    policy = (
        f"default-src 'none'; script-src {script} {hashes}; style-src {style} 'unsafe-inline'; img-src data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(html, headers={"Content-Security-Policy": policy, "Cache-Control": "no-cache"})


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
