"""``/v1/models/{name}/routing``: a bundle's traffic split and its shadow version."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import ClientDisconnect

from dimml.errors import InvalidParameterError, RequestError, UnsupportedError
from dimml.validation import first_fault
from dimml_server.http.body.content_encoding import decoded
from dimml_server.http.body.limits import Uploads
from dimml_server.http.body.query import check_query
from dimml_server.http.errors import error_responses
from dimml_server.kserve.repository import NOT_ALLOWED
from dimml_server.prediction.service import PredictionService
from dimml_server.settings.settings import ServerSettings

MAX_BODY_BYTES: Final = 64 * 2**10


class RoutingChange(BaseModel):
    """Changes to a bundle's routing; a field that is left out stays as it is."""

    model_config = ConfigDict(extra="forbid")

    split: dict[int, float] | None = Field(
        default=None, description="Percent by version, 100 in all; empty or null: all to the newest that is loaded."
    )
    shadow: int | None = Field(default=None, description="The shadow's version; null: none.")


class RoutingState(BaseModel):
    """A bundle's traffic split and shadow version."""

    name: str
    loaded: list[int] = Field(description="Versions that are loaded.")
    default: int = Field(description="The version with the largest share, used where only one can be.")
    split: dict[int, float] = Field(description="Percent by version; empty where the newest answers, whichever it is.")
    shadow: int | None


def router(service: PredictionService, settings: ServerSettings, uploads: Uploads) -> APIRouter:
    """Build the routes over one service."""
    routes = APIRouter(prefix="/v1/models/{name}/routing", tags=["models"], dependencies=[Depends(check_query)])
    registry = service.registry

    def state(name: str) -> RoutingState:
        bundle, routing = registry.bundle(name), registry.routing(name)
        return RoutingState(
            name=bundle.name,
            loaded=registry.versions(name),
            default=bundle.version,
            split=dict(routing.split),
            shadow=routing.shadow,
        )

    @routes.get(
        "",
        summary="How a bundle's requests are spread over its versions",
        responses=error_responses(401, 404, 422, 503),
    )
    async def show(name: str) -> RoutingState:
        return state(name)

    @routes.patch(
        "",
        summary="Set default version, split and shadow of a bundle",
        responses=error_responses(400, 401, 403, 404, 408, 413, 415, 422, 429, 501, 503),
        openapi_extra=_BODY,
    )
    async def change(name: str, request: Request) -> RoutingState:
        if settings.model_control != "explicit":
            raise UnsupportedError(NOT_ALLOWED)
        asked = _parsed(await _body(request, uploads))
        changes: dict[str, Any] = asked.model_dump(include=asked.model_fields_set)
        if "split" in changes:
            changes["split"] = changes["split"] or {}
        await service.whole.change(name, **changes)
        return state(name)

    return routes


#: Read as a stream, so that its size is bounded; FastAPI cannot describe that by itself.
_BODY: Final[dict[str, Any]] = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": RoutingChange.model_json_schema()}}}
}


async def _body(request: Request, uploads: Uploads) -> bytes:
    body = bytearray()
    try:
        async with uploads.reading():
            encoding = request.headers.get("Content-Encoding", "")
            async for chunk in decoded(request.stream(), encoding, MAX_BODY_BYTES):
                body += chunk
    except ClientDisconnect as error:
        raise RequestError("the body ended early", field="body") from error
    return bytes(body)


def _parsed(body: bytes) -> RoutingChange:
    try:
        return RoutingChange.model_validate_json(body)
    except ValidationError as error:
        field, fault = first_fault(error, "body")
        raise InvalidParameterError(f"{field}: {fault}", field=field) from error
