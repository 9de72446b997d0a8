"""A held call: one request on a bundle version that stays in memory until the request is done."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import Any, Final, TypeVar

import numpy.typing as npt

from dimml import ensemble
from dimml.bundle import Bundle
from dimml.engine import Encoded
from dimml.ensemble import Rows
from dimml.errors import (
    DeadlineExceededError,
    InvalidParameterError,
    InvalidTensorError,
    QueueFullError,
)
from dimml.explanation.damage import damaged, described
from dimml.fusion import BoolArray, FloatArray, Fused
from dimml.media.types import Decoded, DecodeRequest
from dimml.prediction import Explanation, Prediction
from dimml.prediction_sets.answers import answer_sets, check_abstention
from dimml.recording import decode_in_share, recording_rows
from dimml.request_parameters import AS_BUNDLED, Abstention
from dimml.spans import bundle_attributes, status_attribute
from dimml_server.engines.protocol import ServingEngine
from dimml_server.observability.metrics import Metrics
from dimml_server.observability.request_context import record_statuses
from dimml_server.observability.tracer import Tracer
from dimml_server.prediction.admission import Admission, Permit
from dimml_server.prediction.call_steps import bounded, damage_in_time, damage_tracks, span_of
from dimml_server.prediction.decoder import Decoder
from dimml_server.prediction.explaining import Explainer
from dimml_server.prediction.request import NO_SIGNAL, MediaPrediction, unchecked
from dimml_server.prediction.response import InferenceResult, build_prediction
from dimml_server.settings.settings import ServerSettings
from dimml_server.versions.control import ModelControl
from dimml_server.versions.registry import BundleRegistry
from dimml_server.versions.traffic import Traffic
from dimml_server.versions.traffic_split import Route

T = TypeVar("T")

#: Pause before another try for a place in a full queue, of work that can wait.
_QUEUE_PAUSE_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Resources:
    """Resources that all calls of one service share."""

    engine: ServingEngine
    decoder: Decoder
    admission: Admission
    registry: BundleRegistry
    control: ModelControl
    traffic: Traffic
    metrics: Metrics
    settings: ServerSettings
    tracer: Tracer
    #: Deadlines of encoders by modality; for others the bundle's own hold.
    deadlines_s: Mapping[str, float]


class HeldCall:
    """One request, from its routing to its answer; ``PredictionService.hold`` creates and ends it.

    ``predict``, ``infer``, ``encode`` and ``fuse`` wait for a permit, and raise QueueFullError if the queue has no
    room.
    """

    def __init__(self, resources: Resources, route: Route, uses: ExitStack) -> None:
        """``uses`` keeps the version of ``route`` in memory; it ends with the call."""
        self._resources = resources
        self._route = route
        self._uses = uses

    @property
    def bundle(self) -> Bundle:
        """The bundle version that answers."""
        return self._route.bundle

    def choose(self, route_key: str | None) -> None:
        """Let the bundle's split choose the version, for a request whose key was not known earlier.

        If the bundle was unloaded in the meantime, the version already held answers.
        """
        name, registry = self.bundle.name, self._resources.registry
        if not registry.versions(name):
            self._route = replace(self._route, chosen=True)
            return
        self._route = registry.route(name, None, route_key)
        self._uses.enter_context(self._resources.control.using(self.bundle))

    async def predict(self, request: MediaPrediction) -> Prediction:
        """Decode a recording and predict. Raises RequestError and CapacityError (docs/adr/0011)."""
        began = perf_counter()
        top_k = request.top_k_of(self.bundle)
        outcome = await self.predict_rows(request)
        return build_prediction(outcome, request_id=request.request_id, top_k=top_k, total_s=perf_counter() - began)

    def check(self, request: MediaPrediction) -> None:
        """Raise the InvalidParameterError that ``predict`` would raise before it decodes; contents do not count."""
        settings = self._resources.settings
        request.top_k_of(self.bundle)
        check_abstention(self.bundle, request.abstain)
        request.check_explain(self.bundle, settings.explain)
        request.damage_of(self.bundle, allowed=settings.what_if)
        request.decode_request(self.bundle, settings.media_limits)

    async def predict_rows(self, request: MediaPrediction) -> InferenceResult:
        """Predict as ``predict`` does, but return the ensemble's own arrays, of one row."""
        resources, bundle = self._resources, self.bundle
        end = self.end(request.timeout_s)
        check_abstention(bundle, request.abstain)
        request.check_explain(bundle, resources.settings.explain)
        damages = request.damage_of(bundle, allowed=resources.settings.what_if)
        decode_request = request.decode_request(bundle, resources.settings.media_limits)
        with await self._permit(end) as permit:
            decoded, decode_s = await self._decode(decode_request, end)
            rows = recording_rows(bundle, decoded)
            if damages:
                tensors = await damage_in_time(partial(damaged, rows.tensors, damages), end)
                rows = replace(rows, tensors=tensors)
            else:
                resources.metrics.bundles.observe_truncations(bundle, decoded.truncations)
            outcome = await self._ensemble(rows, end, permit.queue_s, counted=not damages, abstain=request.abstain)
            outcome = outcome.of_recording(decoded, decode_s)
            if damages:
                outcome = replace(outcome, damage=described(damages, rows.tensors))
            if request.explain is not None:
                span_s = span_of(decoded) if request.explain == "occlusion" else None
                outcome = replace(outcome, explanation=await self._explain(rows, outcome, span_s, end))
        return outcome

    async def show(self, request: MediaPrediction, draw: Callable[[Bundle, Decoded], Awaitable[T]]) -> T:
        """Decode a recording as ``predict`` does, and return what ``draw`` makes of it; no encoder runs.

        Rows without a signal are there too, with their status. Raises as ``predict`` does while it decodes, and
        DeadlineExceededError if drawing is late.
        """
        resources, bundle = self._resources, self.bundle
        end = self.end(request.timeout_s)
        damages = request.damage_of(bundle, allowed=resources.settings.what_if)
        decode_request = request.decode_request(bundle, resources.settings.media_limits)
        with await self._permit(end):
            decoded, _ = await self._decode(decode_request, end)
            without_signal = [name for name, track in decoded.tracks.items() if track.status.reason in NO_SIGNAL]
            if without_signal:
                again, _ = await self._decode(unchecked(decode_request, without_signal), end)
                for name, track in again.tracks.items():
                    decoded.tracks[name] = replace(track, status=decoded.tracks[name].status)
            record_statuses(bundle, {name: [track.status] for name, track in decoded.tracks.items()})
            if damages:
                await damage_in_time(partial(damage_tracks, decoded, damages), end)
            try:
                async with asyncio.timeout(end - perf_counter()):
                    return await draw(bundle, decoded)
            except TimeoutError:
                raise DeadlineExceededError("the request's time ran out while its inputs were drawn") from None

    async def judge(self, decoded: Decoded, request: MediaPrediction) -> Prediction:
        """Predict one window of a recording, which is decoded, within ``request``'s time limit.

        Waits for its turn while the queue is full, instead of failing, and counts in no metric: the windows of one
        recording would drown those of all others. Raises as ``predict`` does.
        """
        resources, bundle = self._resources, self.bundle
        began, end = perf_counter(), self.end(request.timeout_s)
        rows = recording_rows(bundle, decoded)
        nothing = ensemble.no_answer_at_all(rows.statuses)
        if nothing is not None:
            raise nothing
        with await self._patient_permit(end) as permit:
            result = await ensemble.run(
                resources.engine, bundle, rows, timeout_s=end - perf_counter(), deadlines_s=resources.deadlines_s
            )
        nothing = ensemble.no_answer_at_all(result.statuses, rows.tensors)
        if nothing is not None:
            raise nothing
        sets = answer_sets(bundle, result.fused.probabilities_BC, result.statuses, result.features, request.abstain)
        outcome = InferenceResult(bundle, result, permit.queue_s, sets=sets).of_recording(decoded)
        return build_prediction(
            outcome,
            request_id=request.request_id,
            top_k=request.top_k_of(bundle),
            total_s=perf_counter() - began,
        )

    async def infer(
        self,
        tensors: Mapping[str, npt.NDArray[Any]],
        *,
        timeout_s: float | None = None,
        abstain: Abstention = AS_BUNDLED,
    ) -> InferenceResult:
        """Run the entry model on ``[B, *shape]`` by modality name, already checked against the contract.

        Every row is in the result. Raises the error of the first row only if no row has an answer.
        """
        if not tensors:
            raise InvalidTensorError(f"send at least one of {[m.tensor for m in self.bundle.modalities]}")
        check_abstention(self.bundle, abstain)
        end = self.end(timeout_s)
        with await self._permit(end) as permit:
            rows = ensemble.judged(self.bundle, tensors, len(next(iter(tensors.values()))))
            return await self._ensemble(rows, end, permit.queue_s, abstain=abstain)

    async def encode(
        self, modality: str, tensor: npt.NDArray[Any], *, timeout_s: float | None = None
    ) -> tuple[Encoded, float]:
        """Run one encoder alone, without signal check; also return the seconds waited for a permit.

        NaN is passed through.
        """
        resources, bundle = self._resources, self.bundle
        end = self.end(timeout_s)
        with await self._permit(end) as permit:
            attributes = {**bundle_attributes(bundle), "dimml.modality": modality, "dimml.rows": len(tensor)}
            with resources.tracer.span(f"encode {modality}", attributes):
                return await bounded(resources.engine.encode(bundle, modality, tensor), end), permit.queue_s

    async def fuse(
        self,
        features: Mapping[str, FloatArray],
        logits: Mapping[str, FloatArray],
        present_BM: BoolArray,
        *,
        timeout_s: float | None = None,
    ) -> tuple[Fused, float]:
        """Run the fusion graph alone; also return the seconds waited for a permit."""
        resources, bundle = self._resources, self.bundle
        end = self.end(timeout_s)
        attributes = {**bundle_attributes(bundle), "dimml.rows": len(present_BM)}
        with await self._permit(end) as permit, resources.tracer.span("fuse", attributes):
            return await bounded(resources.engine.fuse(bundle, features, logits, present_BM), end), permit.queue_s

    def end(self, timeout_s: float | None) -> float:
        """Compute when a request that asks for ``timeout_s`` must be done, on ``perf_counter``'s clock.

        Raises InvalidParameterError.
        """
        settings = self._resources.settings
        limit_s = settings.max_timeout_s
        if timeout_s is None:
            timeout_s = min(settings.timeout_s, limit_s)
        elif not (math.isfinite(timeout_s) and 0.0 < timeout_s <= limit_s):
            raise InvalidParameterError(
                f"timeout_ms must be above 0 and at most {limit_s * 1000:g}, got {timeout_s * 1000:g}",
                field="timeout_ms",
            )
        return perf_counter() + timeout_s

    async def _decode(self, request: DecodeRequest, end: float) -> tuple[Decoded, float]:
        """Decode within the request's share of time; also return the seconds that it took."""
        resources, bundle = self._resources, self.bundle
        began = perf_counter()
        with resources.tracer.span("decode", bundle_attributes(bundle)) as span:
            decoded = await decode_in_share(
                resources.decoder, request, end=end, limit_s=resources.settings.decode_timeout_s
            )
            for name, track in decoded.tracks.items():
                span.set(status_attribute(name), str(track.status))
        decode_s = perf_counter() - began
        resources.metrics.bundles.observe_stage(bundle, "decode", decode_s)
        return decoded, decode_s

    async def _permit(self, end: float) -> Permit:
        resources, bundle = self._resources, self.bundle
        with resources.tracer.span("queue", bundle_attributes(bundle)):
            permit = await resources.admission.permit(end - perf_counter())
        resources.metrics.bundles.observe_stage(bundle, "queue", permit.queue_s)
        return permit

    async def _patient_permit(self, end: float) -> Permit:
        while True:
            try:
                return await self._resources.admission.permit(end - perf_counter())
            except QueueFullError:
                if end - perf_counter() <= _QUEUE_PAUSE_S:
                    raise
                await asyncio.sleep(_QUEUE_PAUSE_S)

    async def _explain(
        self, rows: Rows, outcome: InferenceResult, span_s: tuple[float, float] | None, end: float
    ) -> Explanation:
        """Explain the one row of an answer, with an occlusion curve over ``span_s`` if that is not None."""
        resources, bundle = self._resources, self.bundle
        began = perf_counter()
        with resources.tracer.span("explain", bundle_attributes(bundle)):
            explanation = await Explainer(resources.engine, bundle, outcome.result, end).explain(rows.tensors, span_s)
        resources.metrics.bundles.observe_stage(bundle, "explain", perf_counter() - began)
        return explanation

    async def _ensemble(
        self, rows: Rows, end: float, queue_s: float, *, counted: bool = True, abstain: Abstention = AS_BUNDLED
    ) -> InferenceResult:
        """Run the ensemble. Unless ``counted``, the metrics of answers and the shadow get nothing of it."""
        resources, bundle = self._resources, self.bundle
        nothing = ensemble.no_answer_at_all(rows.statuses)
        if nothing is not None:
            if counted:
                resources.metrics.bundles.observe_statuses(bundle, rows.statuses)
            record_statuses(bundle, rows.statuses)
            raise nothing
        result = await ensemble.run(
            resources.engine,
            bundle,
            rows,
            timeout_s=end - perf_counter(),
            deadlines_s=resources.deadlines_s,
            spans=resources.tracer,
        )
        sets = answer_sets(bundle, result.fused.probabilities_BC, result.statuses, result.features, abstain)
        if counted:
            resources.metrics.bundles.observe_result(bundle, result, sets)
        record_statuses(bundle, result.statuses)
        nothing = ensemble.no_answer_at_all(result.statuses, rows.tensors)
        if nothing is not None:
            raise nothing
        if self._route.chosen and counted:
            resources.traffic.shadows.offer(bundle, rows, result)
        return InferenceResult(bundle, result, queue_s, sets=sets)
