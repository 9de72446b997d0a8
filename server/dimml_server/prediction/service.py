"""The prediction core: every transport, and the in-process predictor, call this and only this.

It knows nothing of HTTP or gRPC, and raises only errors of ``dimml.errors``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol, TypeVar

import numpy.typing as npt

from dimml import ensemble
from dimml.bundle import Bundle
from dimml.engine import Encoded, EngineError
from dimml.ensemble import Rows
from dimml.errors import (
    DeadlineExceededError,
    DimmlError,
    InvalidParameterError,
    InvalidTensorError,
    QueueFullError,
    UnavailableError,
)
from dimml.fusion import BoolArray, FloatArray, Fused
from dimml.media.types import Decoded, DecodeRequest
from dimml.prediction import Prediction
from dimml.recording import decode_in_share, recording_rows
from dimml.signing import read_public_keys
from dimml.spans import bundle_attributes, status_attribute
from dimml_server.engines.protocol import ServingEngine
from dimml_server.observability.metrics import Metrics
from dimml_server.observability.request_context import note_statuses
from dimml_server.observability.tracer import NO_TRACER, Tracer
from dimml_server.prediction.admission import Gate
from dimml_server.prediction.request import MediaPrediction
from dimml_server.prediction.response import Outcome, build_prediction
from dimml_server.settings.settings import ServerSettings
from dimml_server.shadow.shadow import Runner, Shadows
from dimml_server.versions.control import ModelControl
from dimml_server.versions.registry import BundleRegistry, ServedModel
from dimml_server.versions.repository_watch import RepositoryWatch
from dimml_server.versions.traffic import Traffic
from dimml_server.versions.traffic_split import Route

logger = logging.getLogger(__name__)

T = TypeVar("T")


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


class PredictionService:
    """Bundles of one repository, ready to predict. Lives in one event loop.

    ``shadow_runner`` makes what runs a shadow version.
    ``upload_folder`` is the only one from which the decoder can read files; None means that it can from anywhere.
    """

    def __init__(
        self,
        engine: ServingEngine,
        decoder: Decoder,
        metrics: Metrics,
        settings: ServerSettings,
        *,
        shadow_runner: Callable[[Bundle], Runner],
        upload_folder: Path | None = None,
        tracer: Tracer = NO_TRACER,
    ) -> None:
        self.upload_folder = upload_folder
        self.tracer = tracer
        self.registry = BundleRegistry()
        self.registry.loading = True
        self.traffic = Traffic(
            self.registry,
            Shadows(shadow_runner, metrics.shadows, settings.shadow_queue),
            splits=settings.splits,
            shadow_versions=settings.shadows,
            file=settings.routing_file,
        )
        self.control = ModelControl(
            engine,
            self.registry,
            metrics,
            settings.repository,
            traffic=self.traffic,
            signers=read_public_keys(settings.bundle_public_keys),
        )
        self.metrics = metrics
        #: Whether to take requests: false before warm-up is done and once the server is stopping.
        self.accepting = False
        self._watching: asyncio.Task[None] | None = None
        self._engine = engine
        self._decoder = decoder
        self._settings = settings
        self._gate = Gate(
            concurrency=settings.concurrency,
            queue_length=settings.queue_length,
            queue_wait_s=settings.queue_wait_s,
        )
        self._deadlines_s = {name: ms / 1000.0 for name, ms in settings.deadlines_ms.items()}
        metrics.limit(in_flight=settings.concurrency, queued=settings.queue_length)
        metrics.watch(
            in_flight=lambda: self._gate.running,
            queued=lambda: self._gate.waiting,
            stray_runs=lambda: engine.stray_runs,
            decode_workers_lost=lambda: decoder.workers_lost,
        )

    async def start(self) -> None:
        """Load and warm up the settings' bundles and the decode workers, then take requests.

        Raises BundleError, or UnavailableError where the decode workers do not start.
        """
        watch = None
        if self._settings.watch:
            names, interval_s = self._settings.models, self._settings.watch_interval_s
            watch = RepositoryWatch(self.control, self._settings.repository, names, interval_s)
            await watch.begin()
        try:
            async with asyncio.TaskGroup() as group:
                explicit = self._settings.model_control == "explicit"
                group.create_task(self.control.start(self._settings.models, may_be_empty=explicit))
                group.create_task(asyncio.to_thread(self._decoder.warm_up))
        except* DimmlError as errors:
            raise errors.exceptions[0] from None  # One thing to mend at a time.
        self.registry.loading = False
        self.accepting = True
        if watch is not None:
            self._watching = asyncio.get_running_loop().create_task(watch.run())

    async def close(self) -> None:
        """Take no more requests, and stop what still runs."""
        self.accepting = False
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching
        await self.traffic.close()
        await self._engine.close()
        self._decoder.close()

    @property
    def ready(self) -> bool:
        """Whether requests are taken and, where bundles are served, at least one of them would get an answer now."""
        bundles = self.registry.bundles()
        return self.accepting and (not bundles or any(self._engine.ready(bundle) for bundle in bundles))

    def model_ready(self, served: ServedModel) -> bool:
        """Whether this model would get an answer now."""
        part = served.spec.name if served.spec.role in ("encoder", "fusion") else None
        return self.accepting and self._engine.ready(served.bundle, part)

    def queue_refusal(self) -> QueueFullError | None:
        """Why a request would be refused that asked for its turn now, where it would."""
        return self._gate.refusal()

    def route(self, request: MediaPrediction) -> Route:
        """The bundle version that answers a request. Raises as ``BundleRegistry.bundle`` does."""
        return self.registry.route(request.model, request.version, request.route_key or request.request_id)

    async def predict_media(self, request: MediaPrediction, route: Route) -> Prediction:
        """Decode a recording and predict. Raises RequestError and CapacityError (design, section 6).

        Between ``route`` and this, the caller holds ``control.using`` of its bundle.
        """
        began = perf_counter()
        top_k = request.top_k_of(route.bundle)
        outcome = await self.predict_media_rows(request, route)
        return build_prediction(outcome, request_id=request.request_id, top_k=top_k, total_s=perf_counter() - began)

    async def predict_media_rows(self, request: MediaPrediction, route: Route) -> Outcome:
        """As ``predict_media``, but the ensemble's own arrays, of one row."""
        end = self._end(request.timeout_s)
        bundle = route.bundle
        decode_request = request.decode_request(bundle, self._settings.media_limits)
        async with self._permit(bundle, end) as queue_s:
            began = perf_counter()
            with self.tracer.span("decode", bundle_attributes(bundle)) as span:
                decoded = await decode_in_share(
                    self._decoder, decode_request, end=end, limit_s=self._settings.decode_timeout_s
                )
                for name, track in decoded.tracks.items():
                    span.set(status_attribute(name), str(track.status))
            decode_s = perf_counter() - began
            self.metrics.bundles.observe_stage(bundle, "decode", decode_s)
            rows = recording_rows(bundle, decoded)
            outcome = await self._ensemble(route, rows, end, queue_s)
        return replace(outcome, decode_s=decode_s, start_s=decoded.start_s, end_s=decoded.end_s)

    async def infer_tensors(
        self, route: Route, tensors: Mapping[str, npt.NDArray[Any]], *, timeout_s: float | None = None
    ) -> Outcome:
        """The entry model: ``[B, *shape]`` by modality name, already checked against the contract.

        Every row is in the outcome. Raises the error of the first row only where no row has an answer.
        """
        bundle = route.bundle
        if not tensors:
            raise InvalidTensorError(f"send at least one of {[m.tensor for m in bundle.modalities]}")
        end = self._end(timeout_s)
        async with self._permit(bundle, end) as queue_s:
            rows = ensemble.judged(bundle, tensors, len(next(iter(tensors.values()))))
            return await self._ensemble(route, rows, end, queue_s)

    async def infer_encoder(
        self, bundle: Bundle, modality: str, tensor: npt.NDArray[Any], *, timeout_s: float | None = None
    ) -> tuple[Encoded, float]:
        """One encoder alone, as it is: no signal check, NaN passed on; and the seconds spent waiting for a turn."""
        end = self._end(timeout_s)
        async with self._permit(bundle, end) as queue_s:
            attributes = {**bundle_attributes(bundle), "dimml.modality": modality, "dimml.rows": len(tensor)}
            with self.tracer.span(f"encode {modality}", attributes):
                return await _bounded(self._engine.encode(bundle, modality, tensor), end), queue_s

    async def infer_fusion(
        self,
        bundle: Bundle,
        features: Mapping[str, FloatArray],
        logits: Mapping[str, FloatArray],
        present_BM: BoolArray,
        *,
        timeout_s: float | None = None,
    ) -> tuple[Fused, float]:
        """The fusion graph alone, and the seconds spent waiting for a turn."""
        end = self._end(timeout_s)
        async with self._permit(bundle, end) as queue_s:
            with self.tracer.span("fuse", {**bundle_attributes(bundle), "dimml.rows": len(present_BM)}):
                return await _bounded(self._engine.fuse(bundle, features, logits, present_BM), end), queue_s

    def _end(self, timeout_s: float | None) -> float:
        """When a request that asks for ``timeout_s`` must be done, on ``perf_counter``'s clock."""
        limit_s = self._settings.max_timeout_s
        if timeout_s is None:
            timeout_s = min(self._settings.timeout_s, limit_s)
        elif not (math.isfinite(timeout_s) and 0.0 < timeout_s <= limit_s):
            raise InvalidParameterError(
                f"timeout_ms must be above 0 and at most {limit_s * 1000:g}, got {timeout_s * 1000:g}",
                field="timeout_ms",
            )
        return perf_counter() + timeout_s

    @asynccontextmanager
    async def _permit(self, bundle: Bundle, end: float) -> AsyncIterator[float]:
        # From before the wait on: a version that is unloaded meanwhile answers whom it has taken.
        with self.control.using(bundle):
            async with AsyncExitStack() as stack:
                with self.tracer.span("queue", bundle_attributes(bundle)):
                    queue_s = await stack.enter_async_context(self._gate.permit(end - perf_counter()))
                self.metrics.bundles.observe_stage(bundle, "queue", queue_s)
                yield queue_s

    async def _ensemble(self, route: Route, rows: Rows, end: float, queue_s: float) -> Outcome:
        bundle = route.bundle
        nothing = ensemble.no_answer_at_all(rows.statuses)
        if nothing is not None:
            self.metrics.bundles.observe_statuses(bundle, rows.statuses)
            note_statuses(bundle, rows.statuses)
            raise nothing
        result = await ensemble.run(
            self._engine,
            bundle,
            rows,
            timeout_s=end - perf_counter(),
            deadlines_s=self._deadlines_s,
            spans=self.tracer,
        )
        self.metrics.bundles.observe_result(bundle, result)
        note_statuses(bundle, result.statuses)
        nothing = ensemble.no_answer_at_all(result.statuses)
        if nothing is not None:
            raise nothing
        if route.chosen:
            self.traffic.shadows.offer(bundle, rows, result)
        return Outcome(bundle, result, queue_s)


async def _bounded(call: Awaitable[T], end: float) -> T:
    """An engine call made directly: a caller's error in place of the engine's."""
    try:
        async with asyncio.timeout(end - perf_counter()):
            return await call
    except TimeoutError:
        raise DeadlineExceededError("the model was late") from None
    except EngineError as error:
        logger.warning("%s", error)
        raise UnavailableError(f"the model failed: {error.reason.value}") from error
