"""What the prediction core asks of the workers that decode media."""

from __future__ import annotations

from typing import Protocol

from dimml.media.types import Decoded, DecodeRequest


class Decoder(Protocol):
    """Decodes media somewhere safe; ``dimml.media.workers.pool.DecodePool`` is one."""

    async def decode(self, request: DecodeRequest, *, timeout_s: float) -> Decoded:
        """Decode one request's media. Raises DimmlError."""
        ...

    def warm_up(self) -> None:
        """Block until the workers run. Raises UnavailableError where they do not."""
        ...

    def close(self) -> None:
        """End the workers; what they still work on is lost."""
        ...

    @property
    def workers_lost(self) -> int:
        """Workers that had to be replaced."""
        ...
