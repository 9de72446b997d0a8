"""Conversion of a server's error answer back to the typed error."""

from __future__ import annotations

from collections.abc import Mapping

from dimml.errors import (
    BusyError,
    CapacityError,
    DeadlineExceededError,
    DimmlError,
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
from dimml.status import ModalityStatus

#: Without QueueFullError, which needs more than a message.
_BY_CODE: Mapping[str, type[DimmlError]] = {
    kind.code: kind
    for kind in (
        *(RequestError, InvalidParameterError, InvalidTensorError, UnusableMediaError, TooLargeError),
        *(UploadTimeoutError, NotFoundError, UnauthenticatedError, PermissionDeniedError, UnsupportedError),
        *(CapacityError, UnavailableError, DeadlineExceededError),
    )
}


def typed_error(
    code: str,
    message: str,
    *,
    field: str | None = None,
    statuses: Mapping[str, str] | None = None,
    retry_after_s: float | None = None,
    client_fault: bool = False,
) -> DimmlError:
    """Make the error with this stable ``code``; ``statuses`` such as ``"unusable:silent"``.

    An unknown code (from a newer server, or a proxy) becomes RequestError if the request is at fault
    (``client_fault``), else CapacityError.
    """
    for full in (QueueFullError, BusyError):
        if code == full.code:
            return full(message, retry_after_s=retry_after_s or 0.0)
    kind = _BY_CODE.get(code, RequestError if client_fault else CapacityError)
    return kind(message, field=field, statuses=_parsed(statuses or {}))


def _parsed(statuses: Mapping[str, str]) -> dict[str, ModalityStatus]:
    parsed = {}
    for name, text in statuses.items():
        try:
            parsed[name] = ModalityStatus.parse(text)
        except ValueError:
            continue  # A status of a newer server: the message still mentions it.
    return parsed


def no_answer(url: str, timeout_s: float) -> DeadlineExceededError:
    """Make the error of a call that got no answer in ``timeout_s``, of which a little had gone before it was made."""
    return DeadlineExceededError(f"no answer from {url} within {float(f'{timeout_s:.2g}'):g} s")
