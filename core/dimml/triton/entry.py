"""Entry model of a bundle in Triton: each modality's tensor is an optional input, the fused answer the output.

``<bundle>/<version>/model.py`` gives this class to Triton under the name that Triton requires.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import perf_counter
from typing import Any

import numpy as np

from dimml import ensemble
from dimml.errors import InvalidTensorError
from dimml.request_parameters import Abstention
from dimml.triton.answering import Answering, degraded

#: Requests that can share one run of the ensemble have the same inputs and the same time limit.
_Kind = tuple[tuple[str, ...], float]


class EntryModel:
    """An instance, called by Triton from one thread with several requests at once."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the manifest. Raises TritonModelException, which Triton shows as the reason."""
        import triton_python_backend_utils as pb_utils

        self._answering = Answering(args, pb_utils, bundle_name=args["model_name"])
        self._modalities = {m.tensor: m.name for m in self._answering.bundle.modalities}

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Make one response for each request, errors included."""
        answers: list[Any] = self._answering.run(self._answers(requests))
        return answers

    def finalize(self) -> None:
        """Release all resources."""
        self._answering.close()

    async def _answers(self, requests: Sequence[Any]) -> list[Any]:
        answering = self._answering
        began = perf_counter()
        answers: list[Any] = [None] * len(requests)
        kinds: dict[_Kind, list[tuple[int, dict[str, Any]]]] = {}
        abstain: dict[int, Abstention] = {}
        for position, request in enumerate(requests):
            try:
                tensors = self._tensors(request)
                kind = (tuple(sorted(tensors)), answering.timeout_s(request))
                abstain[position] = answering.abstention(request)
            except Exception as error:
                answers[position] = self._refused(error, began)
            else:
                kinds.setdefault(kind, []).append((position, tensors))

        async def answer(kind: _Kind, members: list[tuple[int, dict[str, Any]]]) -> None:
            names, timeout_s = kind
            ends = np.cumsum([len(tensors[names[0]]) for _, tensors in members]).tolist()
            try:
                joined = {
                    self._modalities[name]: np.concatenate([tensors[name] for _, tensors in members]) for name in names
                }
                rows = ensemble.judged(answering.bundle, joined, ends[-1])
                result = await answering.fused(rows, end=began + timeout_s)
            except Exception as error:
                for position, _ in members:
                    answers[position] = self._refused(error, began)
                return
            for (position, _), start, end in zip(members, [0, *ends], ends, strict=False):
                try:
                    answers[position] = answering.response(result, rows, slice(start, end), abstain[position])
                    answering.metrics.observe_request(perf_counter() - began, degraded(result, slice(start, end)))
                except Exception as error:
                    answers[position] = self._refused(error, began)

        await asyncio.gather(*(answer(kind, members) for kind, members in kinds.items()))
        return answers

    def _tensors(self, request: Any) -> dict[str, Any]:
        tensors = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        if not tensors:
            raise InvalidTensorError(f"send at least one of {list(self._modalities)}")
        return tensors

    def _refused(self, error: Exception, began: float) -> Any:
        self._answering.metrics.observe_error(perf_counter() - began, error)
        return self._answering.refusal(error)
