"""``POST /v1/predict`` and what else is asked over HTTP, by any ``HttpExchange``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import httpx
from pydantic import ValidationError

from dimml.errors import CapacityError, RequestError, UnavailableError
from dimml.prediction import Prediction
from dimml_client.transport.errors import typed_error
from dimml_client.transport.http_exchange import HttpExchange
from dimml_client.transport.request import ModelDescription, PredictRequest, chosen
from dimml_client.transport.retry import TryAgainError

_TRY_AGAIN = (429, 503)


class HttpTransport:
    """``dimml_client.transport.request.Transport`` over HTTP; connections are kept open between calls."""

    def __init__(self, exchange: HttpExchange) -> None:
        self._exchange = exchange

    async def predict(self, request: PredictRequest, timeout_s: float) -> Prediction:
        """Predict once. Raises TryAgainError for 429 and 503, RequestError, CapacityError."""
        response = await self._exchange("POST", "/v1/predict", timeout_s, fields=_fields(request), parts=request.parts)
        if response.status_code != httpx.codes.OK:
            raise _error(response)
        try:
            return Prediction.model_validate_json(response.content)
        except ValidationError as error:
            raise self._other_server() from error

    async def describe(self, model: str | None, version: int | None, timeout_s: float) -> ModelDescription:
        """Describe a bundle, by ``GET /v1/models``."""
        response = await self._exchange("GET", "/v1/models", timeout_s)
        if response.status_code != httpx.codes.OK:
            raise _error(response)
        try:
            served = response.json()["models"]
            found = [
                ModelDescription(
                    name=one["name"],
                    version=one["version"],
                    labels=one["labels"],
                    modalities=[modality["name"] for modality in one["modalities"]],
                    heads=one["heads"],
                    sha256=one.get("sha256"),
                    sets=one.get("prediction_sets") is not None,
                )
                for one in served
            ]
        except (ValueError, KeyError, TypeError) as error:
            raise self._other_server() from error
        return chosen(found, model, version)

    async def ready(self, timeout_s: float) -> bool:
        """Whether the server takes requests, by ``GET /health/ready``."""
        try:
            return (await self._exchange("GET", "/health/ready", timeout_s)).status_code == httpx.codes.OK
        except CapacityError:
            return False

    async def close(self) -> None:
        """Close connections."""
        await self._exchange.close()

    def _other_server(self) -> UnavailableError:
        return UnavailableError(f"{self._exchange.url} did not answer like a dimml server")


_FIELDS: Final = (
    *("model", "version", "start_s", "end_s", "audio_track", "video_track"),
    *("top_k", "timeout_ms", "route_key", "explain", "damage"),
    *("abstain_below", "max_set_size"),
)


def _fields(request: PredictRequest) -> dict[str, str]:
    given = {name: getattr(request, name) for name in _FIELDS}
    fields = {name: str(value) for name, value in given.items() if value is not None}
    if request.modalities is not None:
        # A field that is empty counts as not sent, but no modality at all is a mistake that the server names.
        fields["modalities"] = ",".join(request.modalities) or ","
    return fields


def _error(response: httpx.Response) -> Exception:
    status = response.status_code
    try:
        detail = response.json()["error"]
        code, message = str(detail["code"]), str(detail["message"])
    except (ValueError, KeyError, TypeError):
        # Not an error of a dimml server: a proxy's page, or another server altogether.
        detail, code, message = {}, "", f"the server answered {status} {response.reason_phrase}"
    wait_s = retry_after_s(response.headers.get("Retry-After"))
    error = typed_error(
        code
        or {
            401: "unauthenticated",
            403: "permission_denied",
            429: "queue_full",
            503: "unavailable",
            504: "deadline_exceeded",
            413: "too_large",
        }.get(status, ""),
        message,
        field=detail.get("field"),
        statuses=_statuses(detail.get("modalities") or {}),
        retry_after_s=wait_s,
        client_fault=status < httpx.codes.INTERNAL_SERVER_ERROR,
    )
    if status in _TRY_AGAIN and isinstance(error, CapacityError):
        return TryAgainError(error, wait_s)
    return error if isinstance(error, (RequestError, CapacityError)) else CapacityError(message)


def _statuses(modalities: Mapping[str, Mapping[str, str | None]]) -> dict[str, str]:
    return {
        name: ":".join(filter(None, (status.get("status"), status.get("reason"))))
        for name, status in modalities.items()
    }


def retry_after_s(header: str | None) -> float | None:
    """Parse a Retry-After header, given as seconds or as a date (RFC 9110, section 10.2.3), into seconds."""
    if not header:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            date = parsedate_to_datetime(header)
        except ValueError:
            return None
        aware = date if date.tzinfo else date.replace(tzinfo=UTC)
        seconds = (aware - datetime.now(UTC)).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None
