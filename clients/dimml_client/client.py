"""One client for both transports."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from types import TracebackType

from dimml.errors import ConfigurationError
from dimml.prediction import Prediction
from dimml_client.transport.address import parse_address
from dimml_client.transport.credentials import Credentials, checked_credentials
from dimml_client.transport.request import Media, ModelDescription, PredictRequest, Transport, gather_parts
from dimml_client.transport.retry import RetryPolicy, TryAgainError


class Client:
    """Predicts recordings on a dimml server, over ``http://host:port``, ``https://…``, ``grpc://host:port`` or ``grpcs://…``.

    ``timeout_s`` bounds one call in total, including retries. A call is retried at most ``retries`` times, and only if
    the server is full (429, RESOURCE_EXHAUSTED) or cannot answer now (503, UNAVAILABLE). ``api_key`` defaults to that
    of ``DIMML_API_KEY``. ``ca`` is a PEM file of authorities to trust instead of the machine's, ``certificate`` and
    ``certificate_key`` the client's own for mutual TLS. Safe to share between threads. Raises ConfigurationError for an
    address, key or file it cannot use.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 30.0,
        retries: int = 2,
        api_key: str | None = None,
        ca: str | os.PathLike[str] | None = None,
        certificate: str | os.PathLike[str] | None = None,
        certificate_key: str | os.PathLike[str] | None = None,
    ) -> None:
        if not (math.isfinite(timeout_s) and timeout_s > 0.0):
            raise ConfigurationError(f"timeout_s must be above 0, got {timeout_s}", field="timeout_s")
        if retries < 0:
            raise ConfigurationError(f"retries must be 0 or more, got {retries}", field="retries")
        self.url = url
        self._policy = RetryPolicy(retries=retries, timeout_s=timeout_s)
        credentials = checked_credentials(
            api_key=api_key, ca=ca, certificate=certificate, certificate_key=certificate_key
        )
        self._transport = _transport(url, credentials)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def predict(
        self,
        media: Media | None = None,
        *,
        parts: Mapping[str, Media] | None = None,
        model: str | None = None,
        version: int | None = None,
        start_s: float | None = None,
        end_s: float | None = None,
        top_k: int | None = None,
        timeout_ms: float | None = None,
        modalities: Sequence[str] | None = None,
        route_key: str | None = None,
    ) -> Prediction:
        """Predict one recording.

        ``media`` is a path or bytes, read for every modality that has no file of its own in ``parts``. ``model`` may be
        left out if only one bundle is served. ``start_s`` and ``end_s`` are the time range to predict; ``top_k`` how
        many classes to list; ``timeout_ms`` the server's time limit; ``modalities`` those to use. If several versions
        answer, the same ``route_key``, such as a user's id, always gets the same one. Over gRPC an answer has no
        timings, no time range, and no votes of single modalities.

        Raises RequestError (the request is at fault; UnusableMediaError carries a status per modality, and
        UnauthenticatedError means that the server wants another API key) and
        CapacityError (QueueFullError, UnavailableError, DeadlineExceededError: try again later).
        """
        request = PredictRequest(
            parts=gather_parts(media, parts),
            model=model,
            version=version,
            start_s=start_s,
            end_s=end_s,
            top_k=top_k,
            timeout_ms=timeout_ms,
            modalities=modalities,
            route_key=route_key,
        )
        return self._policy.run(lambda left_s: self._transport.predict(request, left_s))

    def describe(self, model: str | None = None, version: int | None = None) -> ModelDescription:
        """Describe a bundle (by default the only one, in its newest version): labels, modalities and heads.

        Raises NotFoundError, InvalidParameterError, CapacityError. Never retried.
        """
        try:
            return self._transport.describe(model, version, self._policy.timeout_s)
        except TryAgainError as again:
            raise again.error from None

    def ready(self) -> bool:
        """Whether the server takes requests now; False if it cannot be reached. Never retried."""
        return self._transport.ready(self._policy.timeout_s)

    def close(self) -> None:
        """Close connections."""
        self._transport.close()


def _transport(url: str, credentials: Credentials) -> Transport:
    address = parse_address(url)
    if address.grpc:
        from dimml_client.transport.grpc import GrpcTransport

        return GrpcTransport(address, credentials)
    from dimml_client.transport.http import HttpTransport

    return HttpTransport(url, credentials)
