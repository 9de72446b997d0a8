"""Parameters in the URL: one that a route does not know is refused, as an unknown form field is."""

from __future__ import annotations

from fastapi import Request
from fastapi.routing import APIRoute

from dimml.errors import InvalidParameterError


def check_query(request: Request) -> None:
    """Refuse parameters that would silently be ignored; a dependency of routes. Raises InvalidParameterError."""
    if not request.scope["query_string"]:
        return
    route = request.scope["route"]
    known = {field.alias for field in route.dependant.query_params} if isinstance(route, APIRoute) else set()
    for name in request.query_params:
        if name not in known:
            way_out = f"it takes {sorted(known)} there" if known else "it takes none there"
            if request.method == "POST":
                way_out += "; the rest belongs into the body"
            raise InvalidParameterError(f"{name[:100]!r} is no parameter of this URL: {way_out}", field=name[:100])
