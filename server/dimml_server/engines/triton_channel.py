"""One gRPC connection to a Triton server: inference in raw tensors, readiness, metadata, and reasons for failures."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import grpc
import numpy as np
import numpy.typing as npt
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from dimml.contract import NUMPY_TYPES, ModelSpec, TensorSpec
from dimml.engine import EngineError
from dimml.status import Reason

logger = logging.getLogger(__name__)

Array = npt.NDArray[Any]

#: For calls that ask about the server or a model; inference has its caller's time limit.
ASK_TIMEOUT_S: Final = 2.0
_KEEPALIVE_TIMEOUT_MS: Final = 5000
#: By default gRPC's waits between attempts to connect grow to two minutes; a Triton that is back must be found sooner.
_FIRST_BACKOFF_MS, _LAST_BACKOFF_MS, _CONNECT_MS = 100, 1000, 5000

#: Reason of a modality by its call's status code; any other code is ``encoder_error``. Triton uses UNAVAILABLE for a
#: model that is not loaded and for a server that is going down, gRPC for a server that cannot be reached.
REASONS: Final[dict[grpc.StatusCode, Reason]] = {
    grpc.StatusCode.UNAVAILABLE: Reason.ENCODER_GONE,
    grpc.StatusCode.NOT_FOUND: Reason.ENCODER_GONE,
    grpc.StatusCode.DEADLINE_EXCEEDED: Reason.DEADLINE,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Reason.ENCODER_BUSY,
}
#: How Triton refuses a request over a model's ``max_queue_size``, under the code of a model that is not loaded.
_QUEUE_FULL: Final = "Exceeds maximum queue size"
#: How gRPC itself refuses a message over ``triton_max_message_bytes``, under the code of a full queue.
_TOO_LARGE: Final = "larger than max"


class TritonChannel:
    """A channel that reconnects by itself. Used in one event loop, from the first call on.

    ``max_message_bytes`` bounds messages both ways; Triton itself accepts whatever protobuf can (2 GiB). ``metadata``
    returns the metadata of an inference call: trace context.
    """

    def __init__(
        self,
        url: str,
        *,
        max_message_bytes: int,
        keepalive_s: float,
        metadata: Callable[[], tuple[tuple[str, str], ...]] = tuple,
    ) -> None:
        self.url = url
        self._metadata = metadata
        self._options = (
            ("grpc.max_send_message_length", max_message_bytes),
            ("grpc.max_receive_message_length", max_message_bytes),
            # Only while a call is in flight: Triton disconnects clients that ping an idle connection more than once in
            # 5 min.
            ("grpc.keepalive_time_ms", int(keepalive_s * 1000)),
            ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
            ("grpc.keepalive_permit_without_calls", 0),
            ("grpc.initial_reconnect_backoff_ms", _FIRST_BACKOFF_MS),
            ("grpc.max_reconnect_backoff_ms", _LAST_BACKOFF_MS),
            ("grpc.min_reconnect_backoff_ms", _CONNECT_MS),
        )
        self._channel: grpc.aio.Channel | None = None
        self._stub: Any = None

    async def infer(self, spec: ModelSpec, version: int, tensors: Mapping[str, Array]) -> dict[str, Array]:
        """Run one model on ``[B, *dims]`` tensors by name; return outputs by name. Cancelling it cancels the call.

        Raises EngineError with the reason that ``REASONS`` gives.
        """
        request = pb.ModelInferRequest(model_name=spec.name, model_version=str(version))
        for tensor in spec.inputs:
            array = np.ascontiguousarray(tensors[tensor.name], NUMPY_TYPES[tensor.datatype])
            request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=array.shape)
            request.raw_input_contents.append(array.tobytes())
            batch = len(array)
        for tensor in spec.outputs:
            request.outputs.add(name=tensor.name)
        try:
            response = await self._connected().ModelInfer(request, metadata=self._metadata())
        except grpc.aio.AioRpcError as error:
            raise self._engine_error(error) from error
        raw = dict(zip((output.name for output in response.outputs), response.raw_output_contents, strict=False))
        return {tensor.name: _array(tensor, raw.get(tensor.name), batch) for tensor in spec.outputs}

    async def live(self) -> bool:
        """Whether the server answers. Raises AioRpcError, DEADLINE_EXCEEDED where it may only be busy."""
        return bool((await self._connected().ServerLive(pb.ServerLiveRequest(), timeout=ASK_TIMEOUT_S)).live)

    async def model_ready(self, name: str, version: int) -> bool:
        """Whether this version of a model is loaded. Raises AioRpcError."""
        request = pb.ModelReadyRequest(name=name, version=str(version))
        return bool((await self._connected().ModelReady(request, timeout=ASK_TIMEOUT_S)).ready)

    async def difference(self, spec: ModelSpec, version: int) -> str | None:
        """Describe the first difference between the server's model and the tensors of ``spec``. Raises AioRpcError."""
        request = pb.ModelMetadataRequest(name=spec.name, version=str(version))
        metadata = await self._connected().ModelMetadata(request, timeout=ASK_TIMEOUT_S)
        for what, there, wanted in (
            ("input", metadata.inputs, spec.inputs),
            ("output", metadata.outputs, spec.outputs),
        ):
            found = {tensor.name: tensor for tensor in there}
            for tensor in wanted:
                other = found.pop(tensor.name, None)
                shape = [-1, *tensor.dims]
                if other is None:
                    return f"it has no {what} {tensor.name}"
                if other.datatype != tensor.datatype or not _fits(list(other.shape), shape):
                    return (
                        f"its {what} {tensor.name} is {other.datatype} {list(other.shape)}, "
                        f"the manifest says {tensor.datatype} {shape}"
                    )
            if what == "input" and found:
                return f"it wants an input {min(found)} that the manifest does not have"
        return None

    async def close(self) -> None:
        """Close the connection; calls in flight end."""
        if self._channel is not None:
            await self._channel.close(None)

    def _connected(self) -> Any:
        # Made on first use: gRPC's asyncio channels belong to the event loop that runs when they are made.
        if self._channel is None:
            self._channel = grpc.aio.insecure_channel(self.url, options=self._options)
            self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        return self._stub

    def _engine_error(self, error: grpc.aio.AioRpcError) -> EngineError:
        said = error.details() or ""
        message = f"{self.url} says {error.code().name}: {said[:500]}"
        if _TOO_LARGE in said:
            return EngineError(Reason.ENCODER_ERROR, f"{message}; raise triton_max_message_bytes")
        if _QUEUE_FULL in said:
            return EngineError(Reason.ENCODER_BUSY, message)
        return EngineError(REASONS.get(error.code(), Reason.ENCODER_ERROR), message)


def _fits(there: list[int], wanted: list[int]) -> bool:
    return len(there) == len(wanted) and all(a in (b, -1) for a, b in zip(there, wanted, strict=True))


def _array(tensor: TensorSpec, raw: bytes | None, batch: int) -> Array:
    """Read an output's bytes as ``[B, *dims]``. Raises EngineError if they do not fit."""
    dtype, shape = NUMPY_TYPES[tensor.datatype], (batch, *tensor.dims)
    if raw is None or len(raw) != math.prod(shape) * dtype.itemsize:
        size = "nothing" if raw is None else f"{len(raw)} bytes"
        raise EngineError(Reason.ENCODER_ERROR, f"output {tensor.name} is {size}, not {tensor.datatype} {shape}")
    return np.frombuffer(raw, dtype).reshape(shape)
