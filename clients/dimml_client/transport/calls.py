"""Calls to one server with retries: what the blocking and the asyncio client share."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Mapping
from typing import ClassVar, Unpack

from dimml.errors import ConfigurationError
from dimml.prediction import Prediction
from dimml_client.transport.address import parse_address
from dimml_client.transport.blocking import sleep_blocking
from dimml_client.transport.credentials import Credentials, checked_credentials
from dimml_client.transport.request import (
    Media,
    ModelDescription,
    PredictOptions,
    PredictRequest,
    Transport,
    gather_parts,
)
from dimml_client.transport.retry import RetryPolicy, TryAgainError


class ServerCalls:
    """One server, its transport and the retries; ``dimml_client.Client`` describes the arguments."""

    #: Whether calls are awaited in an event loop; else their coroutines never suspend.
    _in_event_loop: ClassVar[bool]

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
        self._transport = _transport(url, credentials, in_event_loop=self._in_event_loop)

    async def _predict(
        self, media: Media | None, parts: Mapping[str, Media] | None, **options: Unpack[PredictOptions]
    ) -> Prediction:
        request = PredictRequest(parts=gather_parts(media, parts), **options)
        sleep = asyncio.sleep if self._in_event_loop else sleep_blocking
        return await self._policy.run(lambda left_s: self._transport.predict(request, left_s), sleep)

    async def _describe(self, model: str | None, version: int | None) -> ModelDescription:
        try:
            return await self._transport.describe(model, version, self._policy.timeout_s)
        except TryAgainError as again:
            raise again.error from None

    async def _ready(self) -> bool:
        return await self._transport.ready(self._policy.timeout_s)


def _transport(url: str, credentials: Credentials, *, in_event_loop: bool) -> Transport:
    """Make the transport of the URL's scheme; only its libraries are imported."""
    address = parse_address(url)
    if address.grpc:
        from dimml_client.transport.grpc import GrpcTransport
        from dimml_client.transport.grpc_channel import AsyncChannel, BlockingChannel

        channel = AsyncChannel if in_event_loop else BlockingChannel
        return GrpcTransport(address, credentials, channel(address, credentials))
    from dimml_client.transport.http import HttpTransport
    from dimml_client.transport.http_exchange import AsyncExchange, BlockingExchange

    exchange = AsyncExchange if in_event_loop else BlockingExchange
    return HttpTransport(exchange(url, credentials))
