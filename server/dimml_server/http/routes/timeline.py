"""``POST /v1/timeline``: a long recording in, its windows' answers out, a line of JSON each, as they are judged."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from dimml.errors import DimmlError, UnsupportedError
from dimml.media.workers.pool import DecodePool
from dimml.prediction import Prediction
from dimml_server.fetch.targets import MEDIA_URL
from dimml_server.http.body.disconnect import CLIENT_CLOSED_REQUEST, unless_gone
from dimml_server.http.body.limits import Uploads
from dimml_server.http.body.query import check_query
from dimml_server.http.errors import DESCRIPTIONS, INTERNAL, error_detail, error_responses
from dimml_server.http.middleware.access import request_id
from dimml_server.http.routes.predict import body_of, media_prediction, number_field, read_media_form, request_body
from dimml_server.observability.metrics import Metrics
from dimml_server.observability.request_context import record_code, record_error
from dimml_server.observability.request_record import CANCELLED, RequestRecord
from dimml_server.prediction.request import MEDIA_PART
from dimml_server.prediction.service import PredictionService
from dimml_server.settings.settings import ServerSettings
from dimml_server.views.timeline import Judged, Timelines, window_plan

logger = logging.getLogger(__name__)

TRANSPORT: Final = "http_timeline"
PATH: Final = "/v1/timeline"
MEDIA_TYPE: Final = "application/x-ndjson"
#: Of a prediction's fields, those about one answer have no meaning for many.
BODY: Final = body_of(
    {MEDIA_URL, "explain", "damage"},
    window_s={"type": "number", "description": "Length of a window in seconds; by default the bundle's clip_s."},
    hop_s={"type": "number", "description": "Seconds from window to window; by default window_s."},
)
_FIELDS: Final = frozenset(BODY["properties"]) - {MEDIA_PART}
_LINES: Final[dict[str, Any]] = {
    "description": "A line of JSON for each window, as it is judged: start_s, end_s, and prediction or error. The last "
    "one is done with the number of windows, or the error that ended it.",
    "content": {MEDIA_TYPE: {"schema": {"type": "string"}}},
}


def router(service: PredictionService, metrics: Metrics, settings: ServerSettings, uploads: Uploads) -> APIRouter:
    """Build the route over one service, which ends the timelines' worker when it is closed."""
    routes = APIRouter(tags=["predict"])
    readable = None if uploads.folder is None else [uploads.folder]
    timelines = Timelines(
        settings, lambda: DecodePool(1, decode_memory_bytes=settings.decode_memory, readable=readable)
    )
    service.closing.callback(timelines.close)

    @routes.post(
        PATH,
        response_class=StreamingResponse,
        summary="Predict a long recording window by window",
        responses={200: _LINES, **error_responses(501, *DESCRIPTIONS)},
        openapi_extra=request_body(BODY),
    )
    async def timeline(request: Request) -> Response:
        if not settings.timeline_windows:
            raise UnsupportedError("this server gives no timelines (timeline_windows)")
        async with AsyncExitStack() as stack:
            record = stack.enter_context(metrics.request(TRANSPORT))
            service.check_accepting()
            check_query(request)
            try:
                form = await stack.enter_async_context(read_media_form(request, uploads, settings, _FIELDS))
                asked = media_prediction(form, request_id(request))
                key = asked.route_key or asked.request_id
                call = stack.enter_context(service.hold(asked.model, asked.version, key))
                record.model, record.version = call.bundle.name, str(call.bundle.version)
                window_s, hop_s = (number_field(form, name, float) for name in ("window_s", "hop_s"))
                opening = timelines.open(call, asked, window_plan(call.bundle, window_s, hop_s))
                windows = await unless_gone(request, stack.enter_async_context(opening))
            except ClientDisconnect:
                windows = None
            if windows is None:
                record.outcome = CANCELLED
                return Response(status_code=CLIENT_CLOSED_REQUEST)
            lines = _lines(service, windows, record, asked.request_id)
            # All that was entered, the upload and the turn among it, is left when the last line is sent.
            return _Lines(lines, request, record, stack.pop_all(), settings.max_timeout_s)
        raise AssertionError("an answer or an error ends the block")

    return routes


async def _lines(
    service: PredictionService, windows: AsyncIterator[Judged], record: RequestRecord, request_id: str
) -> AsyncIterator[bytes]:
    count = 0
    try:
        async for one in windows:
            yield _line(one, request_id)
            count += 1
            service.check_accepting()
    except DimmlError as error:
        record.outcome = error.code
        record_error(error)
        yield _json({"error": _error(error, request_id)})
    except Exception:
        logger.exception("request %s", request_id)
        record.outcome = INTERNAL
        record_code(INTERNAL)
        message = "internal error; the server's log has the details"
        yield _json({"error": {"code": INTERNAL, "message": message, "request_id": request_id}})
    else:
        yield _json({"done": True, "windows": count})


def _line(one: Judged, request_id: str) -> bytes:
    window = f'{{"start_s":{json.dumps(one.start_s)},"end_s":{json.dumps(one.end_s)},'
    if isinstance(one.result, Prediction):
        return f'{window}"prediction":{one.result.model_dump_json(exclude=one.result.not_asked_for)}}}\n'.encode()
    return f'{window}"error":{json.dumps(_error(one.result, request_id))}}}\n'.encode()


def _error(error: DimmlError, request_id: str) -> dict[str, Any]:
    return error_detail(error, request_id).model_dump(mode="json", exclude_none=True)


def _json(document: dict[str, Any]) -> bytes:
    return (json.dumps(document) + "\n").encode()


class _Lines(StreamingResponse):
    """Sends lines as they come, each within ``stall_s``, until the caller has gone; then leaves ``stack``."""

    def __init__(
        self,
        lines: AsyncIterator[bytes],
        request: Request,
        record: RequestRecord,
        stack: AsyncExitStack,
        stall_s: float,
    ) -> None:
        super().__init__(lines, media_type=MEDIA_TYPE)
        self._lines, self._request, self._record, self._stack, self._stall_s = lines, request, record, stack, stall_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._stack:
            if not await unless_gone(self._request, self._send_all(send)):
                self._record.outcome = CANCELLED
                record_code(CANCELLED)

    async def _send_all(self, send: Send) -> bool:
        """Send everything; False, with the answer cut off, if the caller stops reading."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            async for line in self._lines:
                async with asyncio.timeout(self._stall_s):
                    await send({"type": "http.response.body", "body": line, "more_body": True})
            async with asyncio.timeout(self._stall_s):
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            return False
        return True
