"""``POST /v1/predict`` through httpx."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import IO, Any, Final

import httpx
from pydantic import ValidationError

from dimml.errors import CapacityError, DeadlineExceededError, InvalidParameterError, RequestError, UnavailableError
from dimml.prediction import Prediction
from dimml_client.transport.credentials import Credentials
from dimml_client.transport.errors import typed_error
from dimml_client.transport.request import ModelDescription, PredictRequest, chosen
from dimml_client.transport.retry import TryAgainError
from dimml_client.transport.tls_errors import closed_hint, untrusted
from dimml_client.transport.trace_context import trace_context

_TRY_AGAIN = (429, 503)


class HttpTransport:
    """One server by its base URL; connections are kept open between calls."""

    def __init__(self, url: str, credentials: Credentials) -> None:
        self._url = url.rstrip("/")
        self._secure = self._url.startswith("https:")
        verify = credentials.ssl_context() if self._secure else True
        self._client = httpx.Client(base_url=self._url, headers=credentials.headers, verify=verify)

    def predict(self, request: PredictRequest, timeout_s: float) -> Prediction:
        """Predict once. Raises TryAgainError for 429 and 503, RequestError, CapacityError."""
        with ExitStack() as stack:
            files = {name: _opened(name, source, stack) for name, source in request.parts.items()}
            response = self._exchange("POST", "/v1/predict", timeout_s, data=_fields(request), files=files)
        if response.status_code != httpx.codes.OK:
            raise _error(response)
        try:
            return Prediction.model_validate_json(response.content)
        except ValidationError as error:
            raise UnavailableError(f"{self._url} did not answer like a dimml server") from error

    def describe(self, model: str | None, version: int | None, timeout_s: float) -> ModelDescription:
        """Describe a bundle, by ``GET /v1/models``."""
        response = self._exchange("GET", "/v1/models", timeout_s)
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
                )
                for one in served
            ]
        except (ValueError, KeyError, TypeError) as error:
            raise UnavailableError(f"{self._url} did not answer like a dimml server") from error
        return chosen(found, model, version)

    def ready(self, timeout_s: float) -> bool:
        """Whether the server takes requests, by ``GET /health/ready``."""
        try:
            return self._exchange("GET", "/health/ready", timeout_s).status_code == httpx.codes.OK
        except CapacityError:
            return False

    def close(self) -> None:
        """Close connections."""
        self._client.close()

    def _exchange(self, method: str, path: str, timeout_s: float, **content: Any) -> httpx.Response:
        # httpx bounds each read and write: a slow peer would get a new timeout with every byte.
        end = time.monotonic() + timeout_s
        try:
            request = self._client.build_request(method, path, timeout=timeout_s, headers=trace_context(), **content)
            bounds: dict[str, float] = request.extensions["timeout"]
            if isinstance(request.stream, httpx.SyncByteStream):
                request.stream = _Bounded(request.stream, end, bounds)
            response = self._client.send(request, stream=True)
            try:
                bounds["read"] = _left_s(end)
                body = b"".join(_until(end, response.iter_raw()))
            finally:
                response.close()
            # Read raw, as sent: the new response decodes the content encoding.
            headers = [(name, value) for name, value in response.headers.raw if name.lower() != b"transfer-encoding"]
            return httpx.Response(response.status_code, headers=headers, content=body, request=request)
        except httpx.TimeoutException as error:
            raise DeadlineExceededError(f"no answer from {self._url} within {timeout_s:.3g} s") from error
        except httpx.ConnectError as error:
            if why := untrusted(str(error)):
                raise UnavailableError(f"no trusted connection to {self._url}: {why}") from error
            raise UnavailableError(
                f"cannot connect to {self._url} ({error}); is the server running? `dimml serve` starts one"
            ) from error
        except httpx.TransportError as error:
            if why := untrusted(str(error)):
                raise UnavailableError(f"no trusted connection to {self._url}: {why}") from error
            hint = closed_hint(str(error), secure=self._secure)
            raise UnavailableError(f"the connection to {self._url} broke: {error}{hint}") from error
        except httpx.InvalidURL as error:
            raise InvalidParameterError(f"{self._url}: {error}", field="url") from error


class _Bounded(httpx.SyncByteStream):
    """A request body that stops at ``end``, and leaves the remaining time for the answer's head."""

    def __init__(self, stream: httpx.SyncByteStream, end: float, bounds: dict[str, float]) -> None:
        self._stream = stream
        self._end = end
        self._bounds = bounds

    def __iter__(self) -> Iterator[bytes]:
        yield from _until(self._end, self._stream)
        self._bounds["read"] = _left_s(self._end)

    def close(self) -> None:
        self._stream.close()


def _until(end: float, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the chunks. Raises httpx.TimeoutException before one that comes after ``end`` (of ``time.monotonic``)."""
    for chunk in chunks:
        _left_s(end)
        yield chunk


def _left_s(end: float) -> float:
    left_s = end - time.monotonic()
    if left_s <= 0.0:
        raise httpx.ReadTimeout("the whole exchange took too long")
    return left_s


_FIELDS: Final = ("model", "version", "start_s", "end_s", "top_k", "timeout_ms", "route_key")


def _fields(request: PredictRequest) -> dict[str, str]:
    given = {name: getattr(request, name) for name in _FIELDS}
    fields = {name: str(value) for name, value in given.items() if value is not None}
    if request.modalities is not None:
        # A field that is empty counts as not sent, but no modality at all is a mistake that the server names.
        fields["modalities"] = ",".join(request.modalities) or ","
    return fields


def _opened(name: str, source: Any, stack: ExitStack) -> tuple[str, IO[bytes] | bytes]:
    """Return a part's bytes, and the part's name as file name, since the server does not use the caller's."""
    if isinstance(source, bytes):
        return name, source
    try:
        return name, stack.enter_context(source.open("rb"))
    except OSError as error:
        raise InvalidParameterError(f"{name}: cannot read {source}: {error.strerror}", field=name) from error


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
