"""``POST /v1/inputs``: what the encoders would see of a recording."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect

from dimml.bundle import Bundle
from dimml.errors import UnsupportedError
from dimml.media.types import Decoded
from dimml.request_parameters import ABSTAIN_BELOW, MAX_SET_SIZE
from dimml_server.fetch.targets import MEDIA_URL
from dimml_server.http.body.disconnect import CLIENT_CLOSED_REQUEST, unless_gone
from dimml_server.http.body.limits import Uploads
from dimml_server.http.body.query import check_query
from dimml_server.http.errors import DESCRIPTIONS, error_responses
from dimml_server.http.middleware.access import request_id
from dimml_server.http.routes.predict import body_of, media_prediction, read_media_form, request_body
from dimml_server.observability.metrics import Metrics
from dimml_server.observability.request_record import CANCELLED
from dimml_server.prediction.request import MEDIA_PART
from dimml_server.prediction.service import PredictionService
from dimml_server.settings.settings import ServerSettings
from dimml_server.views.inputs import Inputs, build_inputs

TRANSPORT: Final = "http_inputs"
PATH: Final = "/v1/inputs"
#: Of a prediction's fields, those that say how to judge or to answer have no meaning here.
BODY: Final = body_of({MEDIA_URL, "top_k", "explain", ABSTAIN_BELOW, MAX_SET_SIZE})
_FIELDS: Final = frozenset(BODY["properties"]) - {MEDIA_PART}
#: Answers drawn at a time; others wait, within their deadline. Drawing takes some 0.1 s of a core.
_DRAWN_TOGETHER: Final = 2


def router(service: PredictionService, metrics: Metrics, settings: ServerSettings, uploads: Uploads) -> APIRouter:
    """Build the route over one service."""
    routes = APIRouter(tags=["predict"])
    threads = ThreadPoolExecutor(_DRAWN_TOGETHER, "dimml-inputs")

    async def draw(bundle: Bundle, decoded: Decoded) -> bytes:
        return await asyncio.get_running_loop().run_in_executor(threads, _drawn, bundle, decoded)

    @routes.post(
        PATH,
        response_model=Inputs,
        summary="Show what the encoders would see of a recording",
        responses=error_responses(501, *DESCRIPTIONS),
        openapi_extra=request_body(BODY),
    )
    async def inputs(request: Request) -> Response:
        if not settings.show_inputs:
            raise UnsupportedError("this server shows no inputs (show_inputs)")
        with metrics.request(TRANSPORT) as record:
            service.check_accepting()
            check_query(request)
            try:
                async with read_media_form(request, uploads, settings, _FIELDS) as form:
                    asked = media_prediction(form, request_id(request))
                    with service.hold(asked.model, asked.version, asked.route_key or asked.request_id) as call:
                        record.model, record.version = call.bundle.name, str(call.bundle.version)
                        answer = await unless_gone(request, call.show(asked, draw))
            except ClientDisconnect:
                answer = None
            if answer is None:
                record.outcome = CANCELLED
                return Response(status_code=CLIENT_CLOSED_REQUEST)
            return Response(answer, media_type="application/json")

    return routes


def _drawn(bundle: Bundle, decoded: Decoded) -> bytes:
    return build_inputs(bundle, decoded).model_dump_json().encode()
