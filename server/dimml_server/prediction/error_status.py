"""The one table from domain errors to HTTP status codes; gRPC's follow from it."""

from __future__ import annotations

from dimml.errors import (
    CapacityError,
    DeadlineExceededError,
    DimmlError,
    EncodingError,
    FetchError,
    InvalidParameterError,
    InvalidTensorError,
    NotFoundError,
    PermissionDeniedError,
    QueueFullError,
    RequestError,
    TooLargeError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
    UnusableMediaError,
    UploadTimeoutError,
)

#: docs/adr/0011. The closest base class of an error counts.
HTTP_STATUS: dict[type[DimmlError], int] = {
    RequestError: 400,
    InvalidParameterError: 422,
    InvalidTensorError: 400,
    UnusableMediaError: 422,
    TooLargeError: 413,
    EncodingError: 415,
    FetchError: 422,
    NotFoundError: 404,
    UnauthenticatedError: 401,
    PermissionDeniedError: 403,
    UnsupportedError: 501,
    UploadTimeoutError: 408,
    CapacityError: 503,
    QueueFullError: 429,
    UnavailableError: 503,
    DeadlineExceededError: 504,
    DimmlError: 500,
}


def http_status(error: DimmlError) -> int:
    """Return the HTTP status of a domain error."""
    return next(HTTP_STATUS[kind] for kind in type(error).__mro__ if kind in HTTP_STATUS)
