"""The path below which a proxy shows this server (``root_path``), taken off before anything reads a request's path."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send


class PrefixMiddleware:
    """Outermost, plain ASGI. Proxies that take the prefix off by themselves, as most do, need nothing of this.

    Keys, routes and logs must agree on the path, so that it is changed here and Starlette's ``root_path`` stays empty.
    """

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self._app = app
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path: str = scope["path"]
            if path == self._root_path or path.startswith(f"{self._root_path}/"):
                scope["path"] = path[len(self._root_path) :] or "/"
                scope["raw_path"] = scope.get("raw_path", b"")[len(self._root_path) :] or b"/"
        await self._app(scope, receive, send)
