"""Fetches one recording into the spool, within its limits; every failure has the same answer."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import aiohttp
from yarl import URL

from dimml.errors import FetchError, InvalidParameterError, QueueFullError, TooLargeError
from dimml.media.types import Source
from dimml_server.fetch.connector import NotGlobalError, check_literal, open_session
from dimml_server.fetch.targets import MEDIA_URL, Target, Targets
from dimml_server.observability.fetch_metrics import FetchMetrics, FetchOutcome, FetchRecord
from dimml_server.observability.tracer import Tracer
from dimml_server.prediction.spool import Spool, SpooledSource
from dimml_server.settings.settings import ServerSettings

logger = logging.getLogger(__name__)

MAX_REDIRECTS: Final = 3
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_RETRY_AFTER_S: Final = 1.0
#: One text for all that fails at or on the way to a host: a caller must not learn what is there.
REFUSAL: Final = (
    f"{MEDIA_URL}: the recording could not be fetched; its host must answer in time, with status 200 and nothing else "
    "than the file"
)


class _FaultError(Exception):
    """A fetch that failed; ``str()`` says why in the log."""

    def __init__(self, outcome: FetchOutcome, why: str) -> None:
        super().__init__(why)
        self.outcome = outcome


class Fetcher:
    """Fetches recordings, a bounded number at once. Lives in one event loop.

    ``folder`` is where large ones are kept. Raises ConfigurationError if a library or a bucket's key is missing.
    """

    def __init__(
        self, settings: ServerSettings, targets: Targets, metrics: FetchMetrics, tracer: Tracer, folder: Path | None
    ) -> None:
        self._targets = targets
        self._metrics = metrics
        self._tracer = tracer
        self._spool = Spool(settings.spool_bytes, folder)
        self._max_bytes = settings.max_body_bytes
        self._limit = settings.media_url_fetches
        self._allow_private = settings.media_url_allow_private
        self._private_buckets = {name for name, bucket in settings.media_url_buckets.items() if bucket.private}
        self._own_headers: Callable[[Target], dict[str, str]] = lambda target: {}
        if settings.media_url_buckets:
            from dimml_server.fetch.s3 import Signer

            self._own_headers = Signer(settings.media_url_buckets).headers
        self._tls = ssl.create_default_context()
        self._tls.minimum_version = ssl.TLSVersion.TLSv1_2
        self._running = 0

    @asynccontextmanager
    async def fetch(self, target: Target, limit_s: float) -> AsyncIterator[Source]:
        """Fetch a recording within ``limit_s`` seconds, and keep it for the block.

        Raises QueueFullError at once if too many are under way, TooLargeError, UnavailableError if the disk is full,
        and FetchError, always with the same text.
        """
        if self._running >= self._limit:
            self._metrics.refused()
            raise QueueFullError(
                "the server is busy: too many recordings are being fetched; try again later",
                retry_after_s=_RETRY_AFTER_S,
            )
        with SpooledSource(self._spool) as spool:
            self._running += 1
            try:
                with (
                    self._tracer.span("fetch", {"server.address": target.origin.host}),
                    self._metrics.fetch() as record,
                ):
                    await self._receive_within(target, spool, limit_s, record)
            finally:
                self._running -= 1
            yield spool.source()

    async def _receive_within(self, target: Target, spool: SpooledSource, limit_s: float, record: FetchRecord) -> None:
        try:
            async with asyncio.timeout(limit_s):
                await self._receive(target, spool)
        except TooLargeError:
            record.outcome = FetchOutcome.TOO_LARGE
            raise
        except (_FaultError, NotGlobalError, aiohttp.ClientError, OSError, ValueError) as error:
            record.outcome = _outcome(error)
            # The host is one of the settings'; path and query are the caller's, and may hold a signature.
            why = str(error) if isinstance(error, _FaultError) else type(error).__name__
            logger.info("%s: %s: %s (%s)", MEDIA_URL, target.origin, record.outcome.value, why)
            raise FetchError(REFUSAL, field=MEDIA_URL) from None
        record.outcome = FetchOutcome.OK

    async def _receive(self, target: Target, spool: SpooledSource) -> None:
        private = self._allow_private or target.bucket in self._private_buckets
        async with open_session(self._tls, private=private) as session:
            for _ in range(MAX_REDIRECTS + 1):
                if not private:
                    check_literal(target.origin.host)
                # Encoded as it came: a signed URL is not valid in any other spelling.
                url, headers = URL(target.url, encoded=True), self._own_headers(target)
                async with session.get(url, allow_redirects=False, headers=headers) as response:
                    if response.status in _REDIRECTS:
                        target = self._redirected(target, response)
                        continue
                    await self._keep(response, spool)
                    return
        raise _FaultError(FetchOutcome.REDIRECT, f"more than {MAX_REDIRECTS} redirects")

    def _redirected(self, target: Target, response: aiohttp.ClientResponse) -> Target:
        locations = response.headers.getall("Location", [])
        # What is signed for one store goes to no other.
        if target.bucket is not None or len(locations) != 1:
            raise _FaultError(FetchOutcome.REDIRECT, "a redirect that is not followed")
        try:
            return self._targets.redirected(target, locations[0])
        except InvalidParameterError:
            raise _FaultError(FetchOutcome.REDIRECT, "a redirect to where nothing is fetched from") from None

    async def _keep(self, response: aiohttp.ClientResponse, spool: SpooledSource) -> None:
        if response.status != 200:
            raise _FaultError(FetchOutcome.STATUS, f"status {response.status}")
        if any(value.strip().lower() != "identity" for value in response.headers.getall("Content-Encoding", [])):
            raise _FaultError(FetchOutcome.ENCODING, "a Content-Encoding")
        if (response.content_length or 0) > self._max_bytes:
            raise self._too_large()
        room = self._max_bytes
        async for piece in response.content.iter_any():
            room -= len(piece)
            if room < 0:
                raise self._too_large()
            spool.write(piece)

    def _too_large(self) -> TooLargeError:
        return TooLargeError(
            f"{MEDIA_URL}: the recording is larger than {self._max_bytes} bytes, this server's limit (max_body_bytes)",
            field=MEDIA_URL,
        )


def _outcome(error: Exception) -> FetchOutcome:
    if isinstance(error, _FaultError):
        return error.outcome
    if isinstance(error, NotGlobalError):
        return FetchOutcome.NOT_GLOBAL
    return FetchOutcome.TIMEOUT if isinstance(error, TimeoutError) else FetchOutcome.UNREACHABLE
