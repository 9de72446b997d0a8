"""``GET /``, which points on, and ``GET /docs``: Swagger UI with its files from a package, so that it works offline."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any, Final

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse

from dimml.errors import NotFoundError

_INLINE_SCRIPT: Final = re.compile(r"<script>(.*?)</script>", re.DOTALL)
#: Files of Swagger UI in the package ``fastapi-offline``, with their media types.
_ASSETS: Final = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}
#: Paths that ``GET /`` points to, relative to it, so that they hold behind any prefix.
_LINKS: Final = {
    "predict": "v1/predict",
    "models": "v1/models",
    "kserve": "v2",
    "live": "health/live",
    "ready": "health/ready",
    "metrics": "metrics",
}
_LINKS_OF_CONSOLE: Final = {"console": "console/"}
_LINKS_OF_DOCS: Final = {"docs": "docs", "openapi": "openapi.json"}
_NO_SCRIPT_POLICY: Final = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_HTML: Final = "text/html"


def router(app: FastAPI, *, docs_page: bool, console: bool) -> APIRouter:
    """Build the routes; without ``docs_page`` only ``/``. ``console``: whether ``/`` points to it."""
    routes = APIRouter(include_in_schema=False)
    links = {**(_LINKS_OF_CONSOLE if console else {}), **_LINKS, **(_LINKS_OF_DOCS if docs_page else {})}

    @routes.get("/")
    async def root(request: Request) -> Response:
        headers = {"Vary": "Accept", "Content-Security-Policy": _NO_SCRIPT_POLICY}
        if _prefers_html(request.headers.get("Accept", "")):
            return HTMLResponse(_root_page(app, links), headers=headers)
        return JSONResponse({"name": app.title, "version": app.version, "links": links}, headers=headers)

    if docs_page:
        _add_docs(routes, app)
    return routes


def _add_docs(routes: APIRouter, app: FastAPI) -> None:
    @cache
    def page() -> tuple[str, str]:
        return _docs_page(app)

    @routes.get("/docs")
    async def docs() -> HTMLResponse:
        html, policy = page()
        return HTMLResponse(html, headers={"Content-Security-Policy": policy, "Cache-Control": "no-cache"})

    @routes.get("/docs/{name}")
    async def asset(name: str) -> Response:
        if name not in _ASSETS:
            raise NotFoundError("no such file of the docs page")
        path = str(files("fastapi_offline") / "static" / name)
        return FileResponse(path, media_type=_ASSETS[name], headers={"Cache-Control": "no-cache"})


def _docs_page(app: FastAPI) -> tuple[str, str]:
    """Build the page and its policy, which allows this server's own files and the page's only script, by its hash."""
    page = get_swagger_ui_html(
        openapi_url="openapi.json",
        title=f"{app.title} {app.version}",
        swagger_js_url="docs/swagger-ui-bundle.js",
        swagger_css_url="docs/swagger-ui.css",
        swagger_favicon_url="data:,",
    ).body
    html = bytes(page).decode().replace("</body>", f"<noscript>{_operations(app.openapi())}</noscript></body>")
    scripts = [hashlib.sha256(script.encode()).digest() for script in _INLINE_SCRIPT.findall(html)]
    hashes = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in scripts)
    policy = (
        f"default-src 'none'; script-src 'self' {hashes}; style-src 'self' 'unsafe-inline'; img-src data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return html, policy


def _operations(document: dict[str, Any]) -> str:
    """List the API's calls, for a browser without scripts."""
    rows = [
        f"<li><code>{method.upper()} {escape(path)}</code> {escape(operation.get('summary', ''))}</li>"
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    return (
        '<h1>dimml</h1><p>Without scripts this is a list only; <a href="openapi.json">openapi.json</a> has it all.</p>'
        f"<ul>{''.join(rows)}</ul>"
    )


def _root_page(app: FastAPI, links: dict[str, str]) -> str:
    title = escape(f"{app.title} {app.version}")
    rows = "".join(f'<li><a href="{path}">{escape(name)}</a></li>' for name, path in links.items() if name != "predict")
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>'
        f"<body><h1>{title}</h1><ul>{rows}</ul></body></html>"
    )


def _prefers_html(accept: str) -> bool:
    """Whether an Accept header names HTML, and JSON no higher (RFC 9110, section 12.5.1)."""
    quality: dict[str, float] = {}
    for item in accept.split(","):
        kind, *parameters = (part.strip().lower() for part in item.split(";"))
        weight = next((text[2:] for text in parameters if text.startswith("q=")), "1")
        try:
            quality[kind] = float(weight)
        except ValueError:
            quality[kind] = 0.0
    html = quality.get(_HTML, 0.0)
    return html > 0.0 and html >= quality.get("application/json", 0.0)
