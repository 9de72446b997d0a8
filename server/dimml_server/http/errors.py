"""The one table from domain errors to HTTP, and the JSON body of every error."""

from __future__ import annotations

import math
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from dimml.errors import (
    DimmlError,
    EncodingError,
    InvalidParameterError,
    NotFoundError,
    QueueFullError,
    RequestError,
    UnauthenticatedError,
    UnavailableError,
    UploadTimeoutError,
)
from dimml.status import Reason, Status
from dimml_server.observability.request_context import record_code, record_error
from dimml_server.prediction.error_status import HTTP_STATUS, http_status

INTERNAL = "internal"
#: Challenge for a caller without a known key (RFC 6750, section 3).
_CHALLENGE = 'Bearer realm="dimml"'


class ModalityFate(BaseModel):
    """Status of one modality of a request that has no answer."""

    status: Status
    reason: Reason | None = None


class ErrorDetail(BaseModel):
    """One error."""

    code: str = Field(description="Stable name of the kind of error.", examples=["unusable_media"])
    message: str = Field(description="What is wrong and what to do, for a person.")
    field: str | None = Field(default=None, description="The form field, part or parameter at fault.")
    request_id: str
    modalities: dict[str, ModalityFate] | None = Field(
        default=None, description="Status of each modality, where the request got that far."
    )


class ErrorBody(BaseModel):
    """Body of every error answer."""

    error: ErrorDetail


#: Error answers of calls that change what is served, in addition to those of a prediction, for OpenAPI.
CONTROL_DESCRIPTIONS: dict[int, str] = {
    400: "It cannot be done as asked (`invalid_request`).",
    403: "The key is not an admin key (`permission_denied`).",
    501: "The server does not let callers change what is served (`unsupported`).",
}
#: Error answers of a prediction, for OpenAPI.
DESCRIPTIONS: dict[int, str] = {
    401: "No API key, or not one of the server's (`unauthenticated`), where keys are configured.",
    404: "No such bundle or version (`not_found`).",
    408: "The body did not arrive in time (`upload_timeout`).",
    413: "Body, picture or time range of the media over a limit (`too_large`).",
    415: "The body's Content-Encoding is none that is undone (`unsupported_encoding`); Accept-Encoding names those.",
    422: "Nothing that was sent can be used (`unusable_media`), a parameter is wrong (`invalid_parameter`), or the "
    "recording at `media_url` could not be fetched (`fetch_failed`).",
    429: "The queue is full, too many bodies are being sent or fetched, or too much with this API key (`queue_full`), "
    "or another timeline is under way (`busy`); try again after Retry-After seconds.",
    500: "A fault of the server (`internal`); the request id finds it in the log.",
    503: "Every encoder failed, no decoder could be had, or the server is not ready (`unavailable`).",
    504: "Every encoder was late, or the request's time ran out (`deadline_exceeded`).",
}


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe these error answers for OpenAPI."""
    responses: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorBody, "description": (DESCRIPTIONS | CONTROL_DESCRIPTIONS)[status]}
        for status in statuses
    }
    if 429 in responses:
        seconds = {"description": "Seconds to wait before trying again.", "schema": {"type": "integer"}}
        responses[429]["headers"] = {"Retry-After": seconds}
    return responses


def error_headers(error: DimmlError) -> dict[str, str]:
    """Return the headers that accompany an error."""
    if isinstance(error, QueueFullError):
        return {"Retry-After": str(math.ceil(error.retry_after_s))}
    if isinstance(error, UnauthenticatedError):
        return {"WWW-Authenticate": _CHALLENGE}
    if isinstance(error, EncodingError):
        return {"Accept-Encoding": "gzip, deflate"}
    # The rest of the body may never arrive, so the connection cannot be reused.
    return {"Connection": "close"} if isinstance(error, UploadTimeoutError) else {}


def internal_error(request_id: str) -> JSONResponse:
    """Build the answer to an unexpected error: the request's id, and nothing internal."""
    return _response(500, INTERNAL, "internal error; the server's log has the details", request_id)


def stopping_error(request_id: str) -> JSONResponse:
    """Build the answer to a request that outlasts the server's grace period."""
    return _response(503, UnavailableError.code, "the server stopped before the request was done", request_id)


def error_response(error: DimmlError, request_id: str) -> JSONResponse:
    """Build the answer for a domain error."""
    record_error(error)
    detail = error_detail(error, request_id)
    return JSONResponse(
        {"error": detail.model_dump(mode="json", exclude_none=True)},
        status_code=http_status(error),
        headers=error_headers(error),
    )


def error_detail(error: DimmlError, request_id: str) -> ErrorDetail:
    """Describe a domain error."""
    return ErrorDetail(
        code=error.code,
        message=error.message,
        field=error.field,
        request_id=request_id,
        modalities={n: ModalityFate(status=s.status, reason=s.reason) for n, s in error.statuses.items()} or None,
    )


def domain_response(error: DimmlError, request_id: str) -> JSONResponse:
    """Build the answer for an error that ended a request. Raises RuntimeError for one of the server's own setup."""
    if http_status(error) == HTTP_STATUS[DimmlError]:
        raise RuntimeError("a setup error reached a request") from error
    return error_response(error, request_id)


def install_error_handlers(app: FastAPI) -> None:
    """Make the application answer errors as ``ErrorBody``."""

    @app.exception_handler(DimmlError)
    async def domain(request: Request, error: DimmlError) -> JSONResponse:
        return domain_response(error, request.state.request_id)

    @app.exception_handler(HTTPException)
    async def routing(request: Request, error: HTTPException) -> JSONResponse:
        codes = {404: NotFoundError.code, 405: "method_not_allowed"}
        code = codes.get(error.status_code, RequestError.code)
        headers = dict(error.headers or {})
        return _response(error.status_code, code, str(error.detail), request.state.request_id, headers=headers)

    @app.exception_handler(RequestValidationError)
    async def validation(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        field = str(first["loc"][-1])
        message = f"{field}: {first['msg']}"
        return _response(422, InvalidParameterError.code, message, request.state.request_id, field=field)


def _response(
    status: int,
    code: str,
    message: str,
    request_id: str,
    *,
    field: str | None = None,
    modalities: dict[str, ModalityFate] | None = None,
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    record_code(code)
    detail = ErrorDetail(code=code, message=message, field=field, request_id=request_id, modalities=modalities)
    return JSONResponse(
        {"error": detail.model_dump(mode="json", exclude_none=True)}, status_code=status, headers=headers
    )
