"""Interface between the prediction core and the workers that decode media."""

from __future__ import annotations

from typing import Protocol

from dimml.media.types import Decoded, DecodeRequest


class Decoder(Protocol):
    """Decodes media in isolation; implemented by ``dimml.media.workers.pool.DecodePool``."""

    async def decode(self, request: DecodeRequest, *, timeout_s: float) -> Decoded:
        """Decode one request's media. Raises DimmlError."""
        ...

    def warm_up(self) -> None:
        """Block until the workers run. Raises UnavailableError if they do not start."""
        ...

    def close(self) -> None:
        """End the workers; their jobs in progress are lost."""
        ...

    @property
    def workers_lost(self) -> int:
        """Number of workers that had to be replaced."""
        ...

    @property
    def workers_running(self) -> int:
        """Number of workers whose process runs."""
        ...
