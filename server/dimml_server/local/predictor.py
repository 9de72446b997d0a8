"""Predictions in this process, without a server: the same core, behind plain blocking calls."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from dimml.bundle import Bundle
from dimml.media.track_choice import TrackChoice
from dimml.media.types import Source
from dimml.prediction import Prediction
from dimml.request_parameters import Abstention, Explain
from dimml.system.files import StrPath
from dimml.system.outbound import set_quiet_defaults
from dimml_server.observability.metrics import Metrics
from dimml_server.observability.request_context import new_request_id
from dimml_server.prediction.request import MEDIA_PART, MediaPrediction
from dimml_server.prediction.service import PredictionService
from dimml_server.process.wiring import build_service
from dimml_server.settings.settings import load_settings

T = TypeVar("T")


class LocalPredictor:
    """A context manager that loads a repository's bundles and predicts with them. Safe to call from many threads.

    ``settings`` are fields of ``ServerSettings``; what they do not name comes from the environment (``DIMML_…``). Calls
    beyond ``concurrency`` wait for their turn. Entering raises SetupError if the repository cannot be served.
    """

    def __init__(self, repository: StrPath, **settings: object) -> None:
        set_quiet_defaults()
        # The callers are threads of this process, which can wait: none is refused. It is all that there is, and who
        # asks for more of its time is who gives it.
        own: dict[str, object] = {"queue_length": sys.maxsize, "queue_wait_s": sys.float_info.max, "processes": 1}
        own |= {"explain": "occlusion", "what_if": True}
        self._settings = load_settings(repository=Path(repository), **{**own, **settings})
        self._service: PredictionService | None = None

    def __enter__(self) -> LocalPredictor:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="dimml-local", daemon=True)
        self._thread.start()
        self._stack = AsyncExitStack()
        try:
            self._service = self._call(self._open())
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()

    @property
    def bundles(self) -> list[Bundle]:
        """All loaded bundles."""
        return self._opened().registry.bundles()

    def predict(
        self,
        media: Source | Mapping[str, Source],
        *,
        model: str | None = None,
        version: int | None = None,
        start_s: float | None = None,
        end_s: float | None = None,
        top_k: int | None = None,
        timeout_s: float | None = None,
        modalities: Sequence[str] | None = None,
        audio_track: TrackChoice | None = None,
        video_track: TrackChoice | None = None,
        explain: Explain | None = None,
        damage: str | None = None,
        abstain_below: float | None = None,
        max_set_size: int | None = None,
    ) -> Prediction:
        """Predict one recording: a file's path, its bytes, or one of these per modality.

        ``explain`` and ``damage`` are those of ``POST /v1/predict`` (docs/explaining.md),
        ``abstain_below`` and ``max_set_size`` too (docs/abstention.md).

        Raises RequestError and CapacityError, as the server does.
        """
        request = MediaPrediction(
            request_id=new_request_id(),
            sources=media if isinstance(media, Mapping) else {MEDIA_PART: media},
            model=model,
            version=version,
            start_s=start_s,
            end_s=end_s,
            top_k=top_k,
            timeout_s=timeout_s,
            modalities=modalities,
            audio_track=audio_track,
            video_track=video_track,
            explain=explain,
            damage=damage,
            abstain=Abstention(abstain_below, max_set_size),
        )
        return self._call(_predict(self._opened(), request))

    async def _open(self) -> PredictionService:
        service = build_service(self._settings, Metrics())
        self._stack.push_async_callback(service.close)
        await service.start()
        return service

    def _opened(self) -> PredictionService:
        if self._service is None:
            raise RuntimeError("a LocalPredictor is used within its with statement")
        return self._service

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _stop(self) -> None:
        self._service = None
        self._call(self._stack.aclose())
        self._call(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _predict(service: PredictionService, request: MediaPrediction) -> Prediction:
    with service.hold(request.model, request.version, request.request_id) as call:
        return await call.predict(request)
