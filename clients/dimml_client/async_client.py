"""The client for asyncio programs, for both transports."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Unpack

from dimml.prediction import Prediction
from dimml_client.transport.calls import ServerCalls
from dimml_client.transport.request import Media, ModelDescription, PredictOptions


class AsyncClient(ServerCalls):
    """``dimml_client.Client`` for asyncio: the same arguments, addresses, answers, errors and retries.

    Calls may run concurrently, in one event loop. Cancelling one ends it on the wire: over HTTP its connection is
    closed, over gRPC its call is cancelled. An asynchronous context manager, which closes the connections.
    """

    _in_event_loop = True

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def predict(
        self,
        media: Media | None = None,
        *,
        parts: Mapping[str, Media] | None = None,
        **options: Unpack[PredictOptions],
    ) -> Prediction:
        """Predict one recording; ``options`` are the other arguments of ``Client.predict``, and so are the errors.

        Files are read in threads, so that a slow disk does not hold up the event loop.
        """
        return await self._predict(media, parts, **options)

    async def describe(self, model: str | None = None, version: int | None = None) -> ModelDescription:
        """Describe a bundle, as ``Client.describe`` does."""
        return await self._describe(model, version)

    async def ready(self) -> bool:
        """Whether the server takes requests now; False if it cannot be reached. Never retried."""
        return await self._ready()

    async def close(self) -> None:
        """Close connections."""
        await self._transport.close()
