"""Bound on request bodies being read, which happens before a request enters the queue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from dimml.errors import QueueFullError, UploadTimeoutError
from dimml_server.counts import READING, Counts, OwnCount

_RETRY_AFTER_S = 1.0


class Uploads:
    """Bodies being read: at most ``limit`` at once by ``counts``, each within ``timeout_s``. Lives in one event loop.

    ``folder`` is where large ones are kept, by default the system's folder for temporary files. ``queue_refusal``
    returns why a request whose body has been read would be refused now, or None.
    """

    def __init__(
        self,
        *,
        limit: int,
        timeout_s: float,
        folder: Path | None = None,
        queue_refusal: Callable[[], QueueFullError | None] = lambda: None,
        counts: Counts = OwnCount,
    ) -> None:
        self.folder = folder
        self._queue_refusal = queue_refusal
        self._limit = limit
        self._timeout_s = timeout_s
        self._reading = counts(READING)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        """Count the reading of one body. Raises QueueFullError at once, UploadTimeoutError after ``timeout_s``."""
        if (full := self._queue_refusal()) is not None:
            raise full
        if not self._reading.take(self._limit):
            raise QueueFullError(
                "the server is busy: too many bodies are being sent; try again later", retry_after_s=_RETRY_AFTER_S
            )
        try:
            async with asyncio.timeout(self._timeout_s):
                yield
        except TimeoutError:
            raise UploadTimeoutError(
                f"the body did not arrive within {self._timeout_s:g} s (upload_timeout_s)", field="body"
            ) from None
        finally:
            self._reading.give_back()
