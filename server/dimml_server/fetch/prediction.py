"""Predictions of recordings that a request names by a URL: ``media_url`` in the place of ``media``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from dimml.errors import ConfigurationError, InvalidParameterError, QueueFullError
from dimml.prediction import Prediction
from dimml.system.installation import install_command
from dimml_server.fetch.targets import MEDIA_URL, Targets
from dimml_server.observability.fetch_metrics import FetchMetrics
from dimml_server.observability.tracer import Tracer
from dimml_server.prediction.call import HeldCall
from dimml_server.prediction.request import MEDIA_PART, MediaPrediction
from dimml_server.settings.settings import ServerSettings

if TYPE_CHECKING:
    from dimml_server.fetch.fetcher import Fetcher

#: Left of a request's time where its recording came at the last moment: too little for an answer, enough for its error.
_LEAST_S = 1e-3


class MediaUrls:
    """Fetches recordings and predicts them. Raises ConfigurationError if the settings want what is not there.

    ``folder`` is where large recordings are kept. ``queue_refusal`` returns why a request whose recording has come
    would be refused now, or None.
    """

    def __init__(
        self,
        settings: ServerSettings,
        metrics: FetchMetrics,
        tracer: Tracer,
        *,
        folder: Path | None,
        queue_refusal: Callable[[], QueueFullError | None],
    ) -> None:
        self._targets = Targets(settings.media_url_hosts, settings.media_url_buckets)
        self._most_s = settings.upload_timeout_s
        self._queue_refusal = queue_refusal
        self._fetcher: Fetcher | None = None
        if self._targets:
            try:
                from dimml_server.fetch.fetcher import Fetcher
            except ModuleNotFoundError as error:
                raise ConfigurationError(
                    f"media_url_hosts and media_url_buckets need {error.name}, which is not installed: "
                    f"{install_command('fetch')}",
                    field="media_url_hosts",
                ) from error
            self._fetcher = Fetcher(settings, self._targets, metrics, tracer, folder)

    async def predict(self, call: HeldCall, request: MediaPrediction, url: str) -> Prediction:
        """Predict what is at ``url`` as ``call.predict`` does what was sent as ``media``.

        Everything else about the request is checked first, and fetching takes of its time. Raises
        InvalidParameterError, as ``Fetcher.fetch`` does, and as ``call.predict``.
        """
        if self._fetcher is None:
            raise InvalidParameterError(
                f"{MEDIA_URL}: this server fetches no recordings (media_url_hosts); send the file as {MEDIA_PART!r}",
                field=MEDIA_URL,
            )
        target = self._targets.parse(url)
        if MEDIA_PART in request.sources:
            raise InvalidParameterError(f"send {MEDIA_PART!r} or {MEDIA_URL!r}, not both", field=MEDIA_URL)
        end = call.end(request.timeout_s)
        call.check(replace(request, sources={**request.sources, MEDIA_PART: b""}))
        if (full := self._queue_refusal()) is not None:
            raise full
        async with self._fetcher.fetch(target, min(end - perf_counter(), self._most_s)) as source:
            left_s = max(_LEAST_S, end - perf_counter())
            fetched = replace(request, sources={**request.sources, MEDIA_PART: source}, timeout_s=left_s)
            return await call.predict(fetched)
