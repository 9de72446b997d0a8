"""Hand the requests of one route straight to its endpoint: FastAPI's way there costs more than reading the form."""

from __future__ import annotations

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from dimml.errors import DimmlError
from dimml_server.http.errors import domain_response


class DirectMiddleware:
    """Inside all other middleware, plain ASGI: takes the place of routing, dependencies and response models.

    ``route`` must need none of them: a path without parameters, and an endpoint that takes the request and
    returns the response. It stays in the application, which describes it, and answers other methods on its path.
    """

    def __init__(self, app: ASGIApp, route: APIRoute) -> None:
        self._app = app
        self._route = route
        self._methods = frozenset(route.methods or ())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._route
        if scope["type"] != "http" or scope["path"] != route.path or scope["method"] not in self._methods:
            await self._app(scope, receive, send)
            return
        scope["route"] = route
        request = Request(scope, receive, send)
        try:
            response = await route.endpoint(request)
        except DimmlError as error:
            response = domain_response(error, request.state.request_id)
        await response(scope, receive, send)
