"""Media model of a bundle in Triton: the input is the bytes of a recording, the output the fused answer.

``<bundle>_media/<version>/model.py`` gives this class to Triton under the name that Triton requires.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import perf_counter
from typing import Any

from dimml.contract import END_S, MEDIA, START_S, file_input
from dimml.errors import InvalidTensorError, UnsupportedError
from dimml.media.types import DecodeRequest
from dimml.media.workers.pool import DecodePool
from dimml.recording import decode_in_share, recording_rows
from dimml.request_parameters import DAMAGE, EXPLAIN
from dimml.triton.answering import Answering, degraded

_SUFFIX = "_media"


class MediaModel:
    """An instance with decoding processes of its own, so that a crashing decoder does not end Triton's process."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the manifest and start the decoders. Raises TritonModelException, which Triton shows as the reason."""
        import triton_python_backend_utils as pb_utils

        self._answering = Answering(args, pb_utils, bundle_name=args["model_name"].removesuffix(_SUFFIX))
        settings = self._answering.settings
        self._files = {file_input(m.tensor): m.name for m in self._answering.bundle.modalities}
        self._decoders = DecodePool(settings.decode_workers, decode_memory_bytes=settings.decode_memory, readable=())
        self._answering.metrics.watch_decoders(lambda: self._decoders.workers_lost)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Make one response for each request, errors included."""
        answers: list[Any] = self._answering.run(self._answers(requests))
        return answers

    def finalize(self) -> None:
        """Stop the decoders and release all resources."""
        self._answering.close()
        self._decoders.close()

    async def _answers(self, requests: Sequence[Any]) -> list[Any]:
        return list(await asyncio.gather(*(self._answer(request) for request in requests)))

    async def _answer(self, request: Any) -> Any:
        answering = self._answering
        metrics = answering.metrics
        began = perf_counter()
        try:
            end = began + answering.timeout_s(request)
            abstain = answering.abstention(request)
            decoding = self._decode_request(
                {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}, answering.parameters(request)
            )
            limit_s = answering.settings.decode_timeout_s
            decoded = await decode_in_share(self._decoders, decoding, end=end, limit_s=limit_s)
            metrics.observe_stage("decode", perf_counter() - began)
            metrics.observe_truncations(decoded.truncations)
            rows = recording_rows(answering.bundle, decoded)
            result = await answering.fused(rows, end=end)
            answer = answering.response(result, rows, slice(0, 1), abstain)
        except Exception as error:
            metrics.observe_error(perf_counter() - began, error)
            return answering.refusal(error)
        metrics.observe_request(perf_counter() - began, degraded(result, slice(0, 1)))
        return answer

    def _decode_request(self, tensors: dict[str, Any], parameters: dict[str, Any]) -> DecodeRequest:
        bundle = self._answering.bundle
        for name in (EXPLAIN, DAMAGE):
            if parameters.get(name):
                raise UnsupportedError(
                    f"'{name}' is not done inside Triton: ask a dimml server, which may run this repository on Triton "
                    "(dimml serve --engine triton)"
                )
        shared = tensors.get(MEDIA)
        sources = {}
        for name, modality in self._files.items():
            tensor = tensors.get(name, shared)
            if tensor is not None:
                sources[modality] = tensor[0]
        if not sources:
            names = [MEDIA, *self._files]
            raise InvalidTensorError(f"model '{bundle.media_model}' needs a recording: give one of {names}")
        return DecodeRequest(
            modalities=bundle.modalities,
            sources=sources,
            clip_s=bundle.clip_s,
            start_s=float(tensors[START_S][0]) if START_S in tensors else None,
            end_s=float(tensors[END_S][0]) if END_S in tensors else None,
            limits=self._answering.settings.media_limits,
            quality=bundle.quality,
            margin_s=bundle.margin_s,
            audio_track=parameters.get("audio_track"),
            video_track=parameters.get("video_track"),
        )
