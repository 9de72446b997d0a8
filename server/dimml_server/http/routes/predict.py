"""``POST /v1/predict``: a recording in, a fused answer out."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect

from dimml.errors import InvalidParameterError
from dimml.prediction import Prediction
from dimml.request_parameters import (
    ABSTAIN_BELOW,
    EXPLANATIONS,
    MAX_ROUTE_KEY,
    MAX_SET_SIZE,
    Abstention,
    damage_of,
    explain_of,
    route_key,
)
from dimml_server.fetch.prediction import MediaUrls
from dimml_server.fetch.targets import MEDIA_URL
from dimml_server.http.body.disconnect import CLIENT_CLOSED_REQUEST, unless_gone
from dimml_server.http.body.limits import Uploads
from dimml_server.http.body.multipart import Form, read_form
from dimml_server.http.body.query import check_query
from dimml_server.http.errors import DESCRIPTIONS, error_responses
from dimml_server.http.middleware.access import request_id
from dimml_server.observability.metrics import Metrics
from dimml_server.observability.request_record import CANCELLED
from dimml_server.prediction.request import MEDIA_PART, MediaPrediction
from dimml_server.prediction.service import PredictionService
from dimml_server.settings.settings import ServerSettings

TRANSPORT = "http"
PATH = "/v1/predict"
T = TypeVar("T", int, float)

ROUTE_KEY = "Of several versions, the same one answers the same key, such as a user's id; else X-Request-Id is the key."
_TRACK = "Which of several tracks: a number from 0, or a language as the recording states it, such as 'eng'"
_FILE = {"type": "string", "format": "binary"}
#: The multipart body, for OpenAPI; it is read as a stream, which FastAPI cannot describe by itself.
BODY: dict[str, Any] = {
    "type": "object",
    "properties": {
        MEDIA_PART: {**_FILE, "description": "A recording: video with sound, sound alone, or a picture."},
        MEDIA_URL: {
            "type": "string",
            "description": "In place of `media`: where to fetch it, if the server's settings allow.",
        },
        "model": {"type": "string", "description": "The bundle; may be left out where only one is served."},
        "version": {"type": "integer", "minimum": 1, "description": "By default as the bundle's split says."},
        "route_key": {"type": "string", "maxLength": MAX_ROUTE_KEY, "description": ROUTE_KEY},
        "start_s": {"type": "number", "minimum": 0, "description": "Start of the time range to predict, in seconds."},
        "end_s": {"type": "number", "minimum": 0, "description": "Its end; after start_s, not past the end."},
        "audio_track": {"type": "string", "description": f"{_TRACK}; or 'loudest'."},
        "video_track": {"type": "string", "description": f"{_TRACK}."},
        "top_k": {"type": "integer", "minimum": 1, "description": "How many classes to list; by default 5."},
        "abstain_below": {
            "type": "number",
            "minimum": 0,
            "maximum": 1,
            "description": "Abstain where the answer is less probable; by default as the bundle says. Of bundles with "
            "prediction sets.",
        },
        "max_set_size": {
            "type": "integer",
            "minimum": 1,
            "description": "Abstain where the prediction set has more labels; by default as the bundle says.",
        },
        "timeout_ms": {"type": "number", "exclusiveMinimum": 0, "description": "Time limit of this request."},
        "modalities": {"type": "string", "description": "Those to use, comma separated; by default all."},
        "explain": {
            "type": "string",
            "enum": ["", *EXPLANATIONS],
            "description": "Have the answer explained: what each modality contributed, or by stretches of time too.",
        },
        "damage": {
            "type": "string",
            "description": "Damage before the encoders, comma separated MODALITY:KIND:AMOUNT, as audio:noise:-10.",
        },
    },
    "additionalProperties": {
        **_FILE,
        "description": "A file for one modality, under the modality's name; it takes precedence over `media`.",
    },
}
FIELDS = frozenset(BODY["properties"]) - {MEDIA_PART}
for _name in FIELDS:
    # An empty field counts as not sent. Without this /docs fills each one with a value of its type, and asks for the
    # model "string".
    BODY["properties"][_name]["examples"] = [""]


def body_of(left_out: Collection[str], **added: dict[str, Any]) -> dict[str, Any]:
    """Describe a body like ``BODY``, without these fields and with others."""
    properties = {name: described for name, described in BODY["properties"].items() if name not in left_out}
    properties |= {name: {**described, "examples": [""]} for name, described in added.items()}
    return {**BODY, "properties": properties}


def request_body(body: dict[str, Any]) -> dict[str, Any]:
    """Describe a multipart body for OpenAPI."""
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": body}}}}


def router(service: PredictionService, metrics: Metrics, settings: ServerSettings, uploads: Uploads) -> APIRouter:
    """Build the route over one service. Raises ConfigurationError if it is to fetch recordings and cannot."""
    routes = APIRouter(tags=["predict"])
    media_urls = MediaUrls(
        settings, metrics.fetches, service.tracer, folder=uploads.folder, queue_refusal=service.queue_refusal
    )

    @routes.post(
        PATH,
        response_model=Prediction,
        summary="Predict a recording",
        responses=error_responses(*DESCRIPTIONS),
        openapi_extra=request_body(BODY),
    )
    async def predict(request: Request) -> Response:
        with metrics.request(TRANSPORT) as record:
            service.check_accepting()
            check_query(request)
            try:
                async with read_media_form(request, uploads, settings, FIELDS) as form:
                    prediction = media_prediction(form, request_id(request))
                    key = prediction.route_key or prediction.request_id
                    with service.hold(prediction.model, prediction.version, key) as call:
                        record.model, record.version = call.bundle.name, str(call.bundle.version)
                        url = form.fields.get(MEDIA_URL)
                        work = call.predict(prediction) if url is None else media_urls.predict(call, prediction, url)
                        answer = await unless_gone(request, work)
            except ClientDisconnect:
                answer = None
            if answer is None:
                record.outcome = CANCELLED
                return Response(status_code=CLIENT_CLOSED_REQUEST)
            record.degraded = answer.degraded
            return Response(answer.model_dump_json(exclude=answer.not_asked_for), media_type="application/json")

    return routes


def read_media_form(
    request: Request, uploads: Uploads, settings: ServerSettings, field_names: frozenset[str]
) -> AbstractAsyncContextManager[Form]:
    """Read a request's form within the bounds of the settings, as ``read_form`` does."""
    return read_form(
        request,
        uploads,
        field_names=field_names,
        max_body_bytes=settings.max_body_bytes,
        spool_bytes=settings.spool_bytes,
        max_parts=settings.max_parts,
    )


def media_prediction(form: Form, request_id: str) -> MediaPrediction:
    """Read a request from its form. Raises InvalidParameterError for a field that is no number."""
    timeout_ms = number_field(form, "timeout_ms", float)
    modalities = form.fields.get("modalities")
    return MediaPrediction(
        request_id=request_id,
        sources=form.files,
        model=form.fields.get("model") or None,
        version=number_field(form, "version", int),
        start_s=number_field(form, "start_s", float),
        end_s=number_field(form, "end_s", float),
        audio_track=form.fields.get("audio_track"),
        video_track=form.fields.get("video_track"),
        top_k=number_field(form, "top_k", int),
        timeout_s=None if timeout_ms is None else timeout_ms / 1000.0,
        route_key=route_key(form.fields),
        modalities=None if modalities is None else [name.strip() for name in modalities.split(",") if name.strip()],
        explain=explain_of(form.fields),
        damage=damage_of(form.fields),
        abstain=Abstention(number_field(form, ABSTAIN_BELOW, float), number_field(form, MAX_SET_SIZE, int)),
    )


def number_field(form: Form, name: str, kind: Callable[[str], T]) -> T | None:
    """Read a field as a number; None where it was not sent. Raises InvalidParameterError."""
    text = form.fields.get(name)
    if text is None:
        return None
    try:
        return kind(text)
    except ValueError as error:
        what = "a whole number" if kind is int else "a number"
        raise InvalidParameterError(f"{name} must be {what}, got {text[:40]!r}", field=name) from error
