"""KServe v2 over HTTP: routes, and Triton's ``{"error": …}`` for every error."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from dimml.errors import CapacityError, NotFoundError, RequestError, TooLargeError, UnsupportedError
from dimml_server.http.body.disconnect import CLIENT_CLOSED_REQUEST, unless_gone
from dimml_server.http.body.limits import Uploads
from dimml_server.http.body.query import check_query
from dimml_server.http.errors import error_headers
from dimml_server.http.middleware.access import request_id
from dimml_server.kserve.call_timing import CallerGoneError
from dimml_server.kserve.dataplane import DataPlane
from dimml_server.kserve.http.codec import (
    HEADER_LENGTH,
    MAX_JSON_BYTES,
    format_infer,
    parameters_of,
    parse_infer,
    parse_object,
)
from dimml_server.kserve.http.compression import accepted_encoding, compress, read_body
from dimml_server.kserve.http.openapi import (
    BODY_ERRORS,
    CONTROL_ERRORS,
    INFER_ANSWERS,
    INFER_BODY,
    MODEL_ERRORS,
    NOT_READY,
)
from dimml_server.observability.metrics import Metrics
from dimml_server.observability.request_context import record_code, record_error
from dimml_server.observability.request_record import INTERNAL
from dimml_server.prediction.error_status import http_status
from dimml_server.prediction.service import PredictionService
from dimml_server.prediction.spool import Spool
from dimml_server.settings.settings import ServerSettings
from dimml_server.versions.model_config import config_json

logger = logging.getLogger(__name__)

TRANSPORT: Final = "kserve_http"

#: Calls of Triton's extensions that this server does not offer.
UNSUPPORTED: Final = {
    "/models/{model}/trace/setting": "tracing is not supported",
    "/trace/setting": "tracing is not supported",
    "/logging": "dynamic logging is not supported",
    "/systemsharedmemory/{rest:path}": "system shared memory is not supported",
    "/cudasharedmemory/{rest:path}": "CUDA shared memory is not supported",
    "/models/{model}/generate": "the generate extension is not supported",
    "/models/{model}/generate_stream": "the generate extension is not supported",
}


def router(service: PredictionService, metrics: Metrics, settings: ServerSettings, uploads: Uploads) -> APIRouter:
    """Build the routes below ``/v2``."""
    plane = DataPlane(service, metrics, settings)
    described: dict[str, Any] = {"prefix": "/v2", "route_class": _Route, "tags": ["KServe v2"]}
    routes, checked = APIRouter(**described), APIRouter(**described, dependencies=[Depends(check_query)])
    _add_health(routes, plane)
    _add_metadata(checked, plane)
    _add_repository(checked, plane, uploads)
    _add_infer(routes, plane, uploads)
    _add_refusals(routes)
    whole = APIRouter()
    whole.include_router(checked)
    whole.include_router(routes)  # Last, for it takes every path.
    return whole


def _add_health(routes: APIRouter, plane: DataPlane) -> None:
    @routes.get("/health/live", summary="Whether the server runs")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @routes.get("/health/ready", summary="Whether the server takes requests", responses=NOT_READY)
    async def ready(response: Response) -> dict[str, bool]:
        response.status_code = 200 if plane.ready else 503
        return {"ready": plane.ready}

    @routes.get("/models/{model}/ready", summary="Whether a model takes requests", responses=MODEL_ERRORS | NOT_READY)
    @routes.get(
        "/models/{model}/versions/{version}/ready",
        summary="Whether a model version takes requests",
        responses=MODEL_ERRORS | NOT_READY,
    )
    async def model_ready(response: Response, model: str, version: str = "") -> dict[str, str | bool]:
        ready = plane.model_ready(model, version)
        response.status_code = 200 if ready else 503
        return {"name": model, "ready": ready}


def _add_metadata(routes: APIRouter, plane: DataPlane) -> None:
    catalog = plane.catalog

    @routes.get("", summary="Server metadata")
    async def server_metadata() -> JSONResponse:
        return JSONResponse(catalog.server_metadata(controlled=plane.repository.explicit))

    @routes.get("/models/stats", summary="Statistics of all models")
    async def all_statistics() -> JSONResponse:
        return JSONResponse(await catalog.statistics())

    @routes.get("/models/{model}", summary="Model metadata", responses=MODEL_ERRORS)
    @routes.get("/models/{model}/versions/{version}", summary="Metadata of a model version", responses=MODEL_ERRORS)
    async def model_metadata(model: str, version: str = "") -> JSONResponse:
        return JSONResponse(catalog.model_metadata(model, version))

    @routes.get("/models/{model}/config", summary="Model configuration", responses=MODEL_ERRORS)
    @routes.get(
        "/models/{model}/versions/{version}/config", summary="Configuration of a model version", responses=MODEL_ERRORS
    )
    async def model_config(model: str, version: str = "") -> JSONResponse:
        return JSONResponse(config_json(catalog.config(model, version)))

    @routes.get("/models/{model}/stats", summary="Statistics of a model", responses=MODEL_ERRORS)
    @routes.get(
        "/models/{model}/versions/{version}/stats", summary="Statistics of a model version", responses=MODEL_ERRORS
    )
    async def model_statistics(model: str, version: str = "") -> JSONResponse:
        return JSONResponse(await catalog.statistics(model, version))


def _add_repository(routes: APIRouter, plane: DataPlane, uploads: Uploads) -> None:
    async def document(request: Request) -> dict[str, Any]:
        body = await _body(request, uploads, plane)
        if len(body) > MAX_JSON_BYTES:
            raise TooLargeError(f"the JSON has {len(body)} bytes, at most {MAX_JSON_BYTES} are taken")
        return parse_object(body)

    @routes.post("/repository/index", summary="Models of the repository, and which are ready", responses=BODY_ERRORS)
    async def repository_index(request: Request) -> JSONResponse:
        ready = (await document(request)).get("ready", False)
        if not isinstance(ready, bool):
            raise RequestError("Unable to parse 'ready': it must be true or false")
        return JSONResponse(await plane.repository.index(ready=ready))

    @routes.post("/repository/models/{model}/load", summary="Load a bundle's versions", responses=CONTROL_ERRORS)
    async def load(request: Request, model: str) -> Response:
        await plane.repository.load(model, parameters_of(await document(request)))
        return Response()

    @routes.post("/repository/models/{model}/unload", summary="Unload a bundle", responses=CONTROL_ERRORS)
    async def unload(request: Request, model: str) -> Response:
        await plane.repository.unload(model, parameters_of(await document(request)))
        return Response()


def _add_infer(routes: APIRouter, plane: DataPlane, uploads: Uploads) -> None:
    described: dict[str, Any] = {"openapi_extra": INFER_BODY, "responses": INFER_ANSWERS}

    @routes.post("/models/{model}/infer", summary="Inference", **described)
    @routes.post("/models/{model}/versions/{version}/infer", summary="Inference with a model version", **described)
    async def infer(request: Request, model: str, version: str = "") -> Response:
        with plane.call(model, version, TRANSPORT) as call:
            check_query(request)
            body = await _body(request, uploads, plane)
            with call.timed("compute_input"):
                asked = parse_infer(body, request.headers.get(HEADER_LENGTH), model, version)
            answer = await unless_gone(request, plane.infer(call, asked.request))
            if answer is None:
                raise CallerGoneError
            with call.timed("compute_output"):
                content, header_length = format_infer(answer, asked)
                headers: dict[str, str] = {}
                if header_length is not None:
                    headers[HEADER_LENGTH] = str(header_length)
                encoding = accepted_encoding(request.headers.get("Accept-Encoding", ""))
                if encoding:
                    headers["Content-Encoding"] = encoding
                    content = compress(content, encoding)
            media_type = "application/json" if header_length is None else "application/octet-stream"
            return Response(content, headers=headers, media_type=media_type)
        return Response(status_code=CLIENT_CLOSED_REQUEST)


def _add_refusals(routes: APIRouter) -> None:
    def refuse(message: str) -> Callable[[], Coroutine[Any, Any, Response]]:
        async def refused() -> Response:
            raise UnsupportedError(message)

        return refused

    for path, message in UNSUPPORTED.items():
        routes.add_api_route(path, refuse(message), methods=["GET", "POST"], include_in_schema=False)

    async def unknown(request: Request) -> Response:
        raise NotFoundError(f"no such KServe v2 call: {request.method} {request.url.path[:200]}")

    methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]
    routes.add_api_route("/{rest:path}", unknown, methods=methods, include_in_schema=False)


async def _body(request: Request, uploads: Uploads, plane: DataPlane) -> bytes | memoryview:
    declared = request.headers.get("Content-Length", "")
    if declared.isdecimal() and int(declared) > plane.max_body_bytes:
        raise TooLargeError(
            f"request body of {declared} bytes exceeds max_body_bytes ({plane.max_body_bytes})", field="body"
        )
    encoding, spool = request.headers.get("Content-Encoding", ""), Spool(plane.spool_bytes, uploads.folder)
    try:
        async with uploads.reading():
            return await read_body(request.stream(), encoding, plane.max_body_bytes, spool)
    except ClientDisconnect as error:
        raise CallerGoneError from error


class _Route(APIRoute):
    """A route whose errors are worded as Triton's: ``{"error": "…"}``."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await handler(request)
            except (RequestError, CapacityError) as error:
                record_error(error)
                return JSONResponse({"error": error.message}, http_status(error), error_headers(error))
            except CallerGoneError:
                return Response(status_code=CLIENT_CLOSED_REQUEST)
            except Exception:
                identity = request_id(request)
                record_code(INTERNAL)
                logger.exception("request %s: %s %s", identity, request.method, request.url.path)
                return JSONResponse({"error": f"internal error; request id {identity}"}, 500)

        return handle
