"""The data plane: one inference request through validation, the prediction core and the choice of outputs.

Both transports call only this; it is independent of HTTP and gRPC.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import numpy as np

from dimml.contract import (
    END_S,
    EXPLANATION,
    FEATURES,
    LOGITS,
    MEDIA,
    PRESENT,
    START_S,
    STATUS,
    TRUNCATED,
    channel_parameter,
    damage_parameter,
    features_input,
    file_input,
    fused_outputs,
    logits_input,
    set_outputs,
    truncation_names,
)
from dimml.errors import InvalidParameterError, InvalidTensorError, UnusableMediaError
from dimml.media.types import Source
from dimml.request_parameters import ABSTAIN_BELOW, AS_BUNDLED, DAMAGE, EXPLAIN, MAX_SET_SIZE
from dimml_server.kserve.call_timing import CallerGoneError, InferCall, counted
from dimml_server.kserve.catalog import Catalog
from dimml_server.kserve.classification import top_classes
from dimml_server.kserve.messages import InferRequest, InferResponse
from dimml_server.kserve.repository import RepositoryCalls
from dimml_server.kserve.tensors import Array, OutputTensor
from dimml_server.kserve.validation import Inputs, checked_inputs, checked_outputs
from dimml_server.observability.metrics import Metrics
from dimml_server.observability.request_context import new_request_id
from dimml_server.observability.request_record import CANCELLED
from dimml_server.prediction.request import MEDIA_PART, MediaPrediction
from dimml_server.prediction.response import InferenceResult
from dimml_server.prediction.service import PredictionService
from dimml_server.prediction.spool import as_sources
from dimml_server.settings.settings import ServerSettings
from dimml_server.versions.registry import ServedModel

#: The beginning of base64: no container of recordings has sixteen such bytes there and nothing else.
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/\r\n]{16,}={0,2}[\r\n]*")
_LOOKED_AT: Final = 1024


class DataPlane:
    """KServe v2 over one prediction core."""

    def __init__(self, service: PredictionService, metrics: Metrics, settings: ServerSettings) -> None:
        self.catalog = Catalog(service.registry, settings.repository, service.whole.model_stats)
        self.max_body_bytes = settings.max_body_bytes
        self.spool_bytes = settings.spool_bytes
        self.max_timeout_s = settings.max_timeout_s
        self._service = service
        self._metrics = metrics
        self.repository = RepositoryCalls(service.control, service.whole, explicit=settings.model_control == "explicit")

    @property
    def ready(self) -> bool:
        """Whether the server takes requests, and has a model that would answer them."""
        return self._service.ready

    def model_ready(self, name: str, version: str) -> bool:
        """Whether this model would get an answer now. Raises NotFoundError, RequestError."""
        return self._service.model_ready(self.catalog.find(name, version))

    @contextmanager
    def call(self, name: str, version: str, transport: str) -> Iterator[InferCall]:
        """Find the model of one inference request, then count and time the block that serves it.

        Suppresses CallerGoneError. Raises NotFoundError, RequestError, UnavailableError.
        """
        with self._metrics.request(transport) as record:
            self._service.check_accepting()
            served = self.catalog.find(name, version)
            whole = served.spec.role in ("entry", "media")
            record.model = served.bundle.name if whole else served.spec.name
            record.version = str(served.version)
            try:
                with (
                    self._service.hold(served.bundle.name, served.version, None) as held,
                    counted(self._metrics.inference, served, held) as call,
                ):
                    call.chosen = whole and not version
                    try:
                        yield call
                    finally:
                        record.version = str(call.served.version)
                record.degraded = call.degraded
            except CallerGoneError:
                record.outcome = CANCELLED

    async def infer(self, call: InferCall, request: InferRequest) -> InferResponse:
        """Validate, run, and select the outputs. Raises RequestError and CapacityError."""
        if call.chosen:
            self._choose(call, request)
        served = call.served
        with call.timed("compute_input"):
            wanted = checked_outputs(request, served.spec)
            inputs = checked_inputs(request, served.spec)
        call.batch = inputs.batch
        with call.timed("compute_infer"):
            arrays, parameters = await self._run(call, request, inputs)
        with call.timed("compute_output"):
            datatypes = {tensor.name: tensor.datatype for tensor in served.spec.outputs}
            outputs = []
            for output in wanted:
                tensor = OutputTensor(output.name, datatypes[output.name], arrays[output.name])
                if output.class_count:
                    batched = served.spec.max_batch_size > 0
                    tensor = top_classes(tensor, output.class_count, served.bundle.labels, batched=batched)
                outputs.append(tensor)
        return InferResponse(served.spec.name, str(served.version), request.request_id, tuple(outputs), parameters)

    def _choose(self, call: InferCall, request: InferRequest) -> None:
        """Switch the call to the model version that the bundle's split gives this request."""
        call.held.choose(request.route_key or request.request_id or None)
        if call.held.bundle is not call.served.bundle:
            call.served = self._service.registry.model(call.served.spec.name, call.held.bundle.version)

    async def _run(
        self, call: InferCall, request: InferRequest, inputs: Inputs
    ) -> tuple[dict[str, Array], dict[str, bool | float | str]]:
        """Run the model; return its outputs and the answer's parameters."""
        served, held = call.served, call.held
        bundle, tensors, timeout_s = served.bundle, inputs.tensors, request.timeout_s
        if served.spec.role != "media":
            _refuse_explaining(request, bundle.media_model)
        if served.spec.role not in ("media", "entry") and request.abstain != AS_BUNDLED:
            raise InvalidParameterError(
                f"{ABSTAIN_BELOW} and {MAX_SET_SIZE} go with answers: ask '{bundle.name}' or '{bundle.media_model}'",
                field=MAX_SET_SIZE if request.abstain.abstain_below is None else ABSTAIN_BELOW,
            )
        if served.spec.modality is not None:
            (tensor,) = tensors.values()
            encoded, queue_s = await held.encode(served.spec.modality, tensor, timeout_s=timeout_s)
            call.queue_ns = _ns(queue_s)
            return {FEATURES: encoded.features, LOGITS: encoded.logits}, {}
        names = [modality.name for modality in bundle.modalities]
        if served.spec.role == "fusion":
            fused, queue_s = await held.fuse(
                {name: tensors[features_input(name)] for name in names},
                {name: tensors[logits_input(name)] for name in names},
                tensors[PRESENT],
                timeout_s=timeout_s,
            )
            call.queue_ns = _ns(queue_s)
            return fused_outputs(fused), {}
        if served.spec.role == "media":
            with as_sources(_recordings(served, inputs), self._service.upload_folder) as sources:
                try:
                    outcome = await held.predict_rows(_media_prediction(served, request, inputs, sources))
                except UnusableMediaError as error:
                    raise _with_hint(error, inputs) from error
        else:
            by_modality = {m.name: tensors[m.tensor] for m in bundle.modalities if m.tensor in tensors}
            outcome = await held.infer(by_modality, timeout_s=timeout_s, abstain=request.abstain)
        call.queue_ns, call.degraded = _ns(outcome.queue_s), outcome.degraded
        parameters: dict[str, bool | float | str] = {**_truncation_parameters(outcome)}
        parameters |= {channel_parameter(name): channel for name, channel in outcome.channels.items()}
        parameters |= {damage_parameter(name): done for name, done in outcome.damage.items()}
        if outcome.explanation is not None:
            parameters[EXPLANATION] = outcome.explanation.model_dump_json()
        arrays = {**fused_outputs(outcome.result.fused), STATUS: _statuses(outcome), **set_outputs(outcome.sets)}
        return arrays, parameters


def _recordings(served: ServedModel, inputs: Inputs) -> dict[str, bytes | memoryview]:
    """Collect the recordings by part or modality. Raises InvalidTensorError if there is none."""
    names = {MEDIA: MEDIA_PART} | {file_input(m.tensor): m.name for m in served.bundle.modalities}
    recordings = {part: inputs.tensors[name][0] for name, part in names.items() if name in inputs.tensors}
    if not recordings:
        raise InvalidTensorError(f"model '{served.spec.name}' needs a recording: give one of {list(names)}")
    return recordings


def _refuse_explaining(request: InferRequest, media_model: str) -> None:
    """Raise InvalidParameterError for parameters that only recordings have, and would silently be ignored here."""
    for name, value in ((EXPLAIN, request.explain), (DAMAGE, request.damage)):
        if value is not None:
            raise InvalidParameterError(f"'{name}' goes with recordings: send them to '{media_model}'", field=name)


def _with_hint(error: UnusableMediaError, inputs: Inputs) -> UnusableMediaError:
    """Add the way out where a recording that does not decode is base64 that does not say so."""
    for name, array in inputs.tensors.items():
        if array.dtype == np.object_ and _BASE64.fullmatch(bytes(memoryview(array[0])[:_LOOKED_AT])):
            hint = f"{name} looks like base64: give that input the parameter content_type 'base64'"
            return UnusableMediaError(f"{error.message}; {hint}", field=error.field, statuses=error.statuses)
    return error


def _media_prediction(
    served: ServedModel, request: InferRequest, inputs: Inputs, sources: Mapping[str, Source]
) -> MediaPrediction:
    tensors = inputs.tensors
    return MediaPrediction(
        request_id=request.request_id or new_request_id(),
        sources=sources,
        model=served.bundle.name,
        version=served.version,
        start_s=float(tensors[START_S][0]) if START_S in tensors else None,
        end_s=float(tensors[END_S][0]) if END_S in tensors else None,
        timeout_s=request.timeout_s,
        audio_track=request.audio_track,
        video_track=request.video_track,
        explain=request.explain,
        damage=request.damage,
        abstain=request.abstain,
    )


def _statuses(outcome: InferenceResult) -> Array:
    """Return the statuses ``[B, M]`` as UTF-8 bytes, modalities in the order of PRESENT."""
    columns = [outcome.result.statuses[modality.name] for modality in outcome.bundle.modalities]
    return np.array([[str(status).encode() for status in row] for row in zip(*columns, strict=True)], np.object_)


def _truncation_parameters(outcome: InferenceResult) -> dict[str, bool | float]:
    """Say how much there is of each track that was cut off; empty if none was."""
    parameters: dict[str, bool | float] = {}
    for modality, truncation in outcome.truncations.items():
        held, promised = truncation_names(modality)
        parameters |= {TRUNCATED: True, held: truncation.held_s, promised: truncation.promised_s}
    return parameters


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
