"""Whole recordings over KServe v2 gRPC, through ``<bundle>_media`` and tritonclient's own stubs."""

from __future__ import annotations

import json
import struct
import time
from dataclasses import MISSING, fields
from threading import Lock
from typing import Any
from uuid import uuid4

import grpc
from tritonclient.grpc import service_pb2 as pb

from dimml.contract import END_S, MEDIA, START_S
from dimml.errors import (
    CapacityError,
    InvalidParameterError,
    NotFoundError,
    TooLargeError,
    UnavailableError,
)
from dimml.prediction import Prediction
from dimml.request_parameters import ABSTAIN_BELOW, DAMAGE, EXPLAIN, MAX_SET_SIZE, ROUTE_KEY
from dimml_client.transport.address import ServerAddress
from dimml_client.transport.credentials import Credentials
from dimml_client.transport.errors import no_answer, typed_error
from dimml_client.transport.grpc_channel import GrpcChannel
from dimml_client.transport.grpc_codec import Meaning, add_input, classes_to_list, media_sources, to_prediction
from dimml_client.transport.proxies import proxy_hint
from dimml_client.transport.request import MEDIA_PART, ModelDescription, PredictRequest
from dimml_client.transport.retry import TryAgainError
from dimml_client.transport.tls_errors import closed_hint, untrusted
from dimml_client.transport.trace_context import trace_context

_MEDIA_SUFFIX = "_media"
#: Trailing metadata in which a dimml server gives an error's code, field and statuses.
_ERROR_DETAIL = "dimml-error-bin"
#: Meaning of a status code if that metadata is missing (from a proxy, or gRPC itself).
_CODES: dict[grpc.StatusCode, str] = {
    grpc.StatusCode.INVALID_ARGUMENT: "invalid_request",
    grpc.StatusCode.NOT_FOUND: "not_found",
    grpc.StatusCode.UNIMPLEMENTED: "unsupported",
    grpc.StatusCode.UNAUTHENTICATED: "unauthenticated",
    grpc.StatusCode.PERMISSION_DENIED: "permission_denied",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "queue_full",
    grpc.StatusCode.UNAVAILABLE: "unavailable",
    grpc.StatusCode.DEADLINE_EXCEEDED: "deadline_exceeded",
}
_CLIENT_FAULTS = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
)
#: CANCELLED, which this client never requests, means that the call arrived just as the server stopped, and was not run.
_TRY_AGAIN = (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
#: gRPC's own message for a refused message size, with the same code as a full queue.
_MESSAGE_TOO_LARGE = "larger than max"
#: gRPC's message when it could not reach a server, for which it has no status code of its own.
_NOT_CONNECTED = ("failed to connect", "DNS resolution failed", "Name resolution failure")


class GrpcTransport:
    """``dimml_client.transport.request.Transport`` over gRPC, by any ``GrpcChannel``."""

    def __init__(self, address: ServerAddress, credentials: Credentials, channel: GrpcChannel) -> None:
        self._url, self._secure = address.url, address.secure
        self._metadata = credentials.metadata
        self._channel = channel
        self._meanings: dict[tuple[str, str], Meaning] = {}
        self._lock = Lock()

    async def predict(self, request: PredictRequest, timeout_s: float) -> Prediction:
        """Predict once. Raises TryAgainError for ``_TRY_AGAIN``, RequestError, CapacityError."""
        end = time.monotonic() + timeout_s
        model = request.model or await self._only_bundle(timeout_s)
        version = "" if request.version is None else str(request.version)
        message = pb.ModelInferRequest(model_name=model + _MEDIA_SUFFIX, model_version=version, id=uuid4().hex)
        if request.modalities is None and request.top_k is None and set(request.parts) == {MEDIA_PART}:
            sources = {MEDIA: request.parts[MEDIA_PART]}
        else:
            meaning = await self._meaning(model, version, end - time.monotonic())
            # Before anything is sent: the server would run everything for an answer that is then rejected.
            classes_to_list(request, meaning)
            sources = media_sources(request, model, meaning)
        for tensor, source in sources.items():
            data = await self._channel.read(tensor, source)
            add_input(message, tensor, "BYTES", struct.pack("<I", len(data)) + data)
        for tensor, value in ((START_S, request.start_s), (END_S, request.end_s)):
            if value is not None:
                add_input(message, tensor, "FP64", struct.pack("<d", value))
        if request.timeout_ms is not None:
            message.parameters["timeout_ms"].double_param = request.timeout_ms
        if request.abstain_below is not None:
            message.parameters[ABSTAIN_BELOW].double_param = request.abstain_below
        if request.max_set_size is not None:
            message.parameters[MAX_SET_SIZE].int64_param = request.max_set_size
        for name, text in (
            (ROUTE_KEY, request.route_key),
            ("audio_track", request.audio_track),
            ("video_track", request.video_track),
            (EXPLAIN, request.explain),
            (DAMAGE, request.damage),
        ):
            if text is not None:
                message.parameters[name].string_param = str(text)
        response = await self._call("ModelInfer", message, end - time.monotonic())
        # Of the version that answered: labels may differ between versions.
        meaning = await self._meaning(model, response.model_version, end - time.monotonic())
        return to_prediction(response, model, meaning, request)

    async def describe(self, model: str | None, version: int | None, timeout_s: float) -> ModelDescription:
        """Describe a bundle, by ``RepositoryIndex`` and ``ModelConfig``."""
        end = time.monotonic() + timeout_s
        name = model or await self._only_bundle(timeout_s)
        index = await self._call("RepositoryIndex", pb.RepositoryIndexRequest(ready=True), end - time.monotonic())
        versions = [int(one.version or 1) for one in index.models if one.name == name + _MEDIA_SUFFIX]
        if not versions or version not in (None, *versions):
            wanted = name if version is None else f"{name} version {version}"
            raise NotFoundError(f"{self._url} does not serve {wanted}", field="model")
        newest = version or max(versions)
        meaning = await self._meaning(name, str(newest), end - time.monotonic())
        sets = meaning.prediction_sets is not None
        return ModelDescription(name, newest, meaning.labels, meaning.modalities, meaning.heads, sets=sets)

    async def ready(self, timeout_s: float) -> bool:
        """Whether the server takes requests, by ``ServerReady``."""
        try:
            return bool((await self._call("ServerReady", pb.ServerReadyRequest(), timeout_s)).ready)
        except (CapacityError, TryAgainError):
            return False

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()

    async def _only_bundle(self, timeout_s: float) -> str:
        index = await self._call("RepositoryIndex", pb.RepositoryIndexRequest(ready=True), timeout_s)
        names = {model.name for model in index.models}
        bundles = sorted(
            name.removesuffix(_MEDIA_SUFFIX)
            for name in names
            if name.endswith(_MEDIA_SUFFIX) and name.removesuffix(_MEDIA_SUFFIX) in names
        )
        if len(bundles) == 1:
            return str(bundles[0])
        if not bundles:
            raise NotFoundError(f"{self._url} serves no bundle", field="model")
        raise InvalidParameterError(f"name the model, one of {bundles}", field="model")

    async def _meaning(self, model: str, version: str, timeout_s: float) -> Meaning:
        """Look up what a bundle's tensors mean, once per version.

        An empty version is the newest, whose tensors all versions share.
        """
        with self._lock:
            known = self._meanings.get((model, version))
        if known is not None:
            return known
        asked = pb.ModelConfigRequest(name=model + _MEDIA_SUFFIX, version=version)
        parameters = (await self._call("ModelConfig", asked, timeout_s)).config.parameters
        try:
            values = {
                field.name: json.loads(parameters[field.name].string_value)
                for field in fields(Meaning)
                if field.default is MISSING or field.name in parameters
            }
        except ValueError as error:
            raise UnavailableError(
                f"{self._url} does not say what the tensors of {model!r} mean; predict over HTTP instead"
            ) from error
        meaning = Meaning(**values)
        with self._lock:
            self._meanings[model, version] = meaning
        return meaning

    async def _call(self, method: str, message: Any, timeout_s: float) -> Any:
        try:
            metadata = (*self._metadata, *trace_context().items())
            return await self._channel.call(method, message, max(timeout_s, 0.0), metadata)
        except grpc.RpcError as error:
            raise self._typed(error, timeout_s) from error

    def _typed(self, error: Any, timeout_s: float) -> Exception:
        status, text = error.code(), error.details() or error.code().name
        metadata = dict(tuple(error.trailing_metadata() or ()))
        if _ERROR_DETAIL not in metadata:
            if why := untrusted(text):
                return UnavailableError(f"no trusted connection to {self._url}: {why}")
            if any(sign in text for sign in _NOT_CONNECTED):
                return UnavailableError(
                    f"cannot connect to {self._url}; is the server running? `dimml serve` starts one"
                    f"{closed_hint(text, secure=self._secure)}{proxy_hint(self._url)}"
                )
            if _MESSAGE_TOO_LARGE in text:
                return TooLargeError(f"{self._url} takes no recording of this size: {text}")
            if status is grpc.StatusCode.DEADLINE_EXCEEDED:
                return no_answer(self._url, timeout_s)
        detail = json.loads(metadata.get(_ERROR_DETAIL, b"{}"))
        wait_s = float(metadata["retry-after"]) if "retry-after" in metadata else None
        typed = typed_error(
            detail.get("code") or _CODES.get(status, ""),
            text,
            field=detail.get("field"),
            statuses=detail.get("modalities"),
            retry_after_s=wait_s,
            client_fault=status in _CLIENT_FAULTS,
        )
        if status in _TRY_AGAIN and isinstance(typed, CapacityError):
            return TryAgainError(typed, wait_s)
        return typed
