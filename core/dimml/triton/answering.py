"""Common base of the two entry models: event loop, engine, ensemble, and responses in Triton's terms."""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from dimml import ensemble
from dimml.bundle import MANIFEST_NAME, Bundle, read_bundle
from dimml.contract import STATUS, fused_outputs, set_outputs
from dimml.ensemble import EnsembleResult, Rows
from dimml.errors import (
    CapacityError,
    DimmlError,
    InvalidParameterError,
    NotFoundError,
    RequestError,
    SetupError,
    UnsupportedError,
)
from dimml.prediction_sets.answers import answer_sets, check_abstention
from dimml.request_parameters import Abstention, abstention_of, timeout_of
from dimml.system.outbound import set_quiet_defaults
from dimml.triton.bls import BlsEngine
from dimml.triton.metrics import TritonMetrics
from dimml.triton.probe import refuse_corrupting_numpy
from dimml.triton.settings import EntrySettings, entry_settings

logger = logging.getLogger(__name__)


class Answering:
    """An instance of an entry model, except for the way from requests to rows."""

    def __init__(self, args: Mapping[str, str], pb_utils: Any, *, bundle_name: str) -> None:
        """``args`` are those of Triton's ``initialize``. Raises TritonModelException."""
        set_quiet_defaults()
        refuse_corrupting_numpy(pb_utils)
        self.pb_utils = pb_utils
        repository = Path(args["model_repository"]).parent
        try:
            self.bundle = _read(repository, bundle_name, args["model_version"])
            self.settings: EntrySettings = entry_settings(json.loads(args["model_config"]))
        except SetupError as error:
            raise pb_utils.TritonModelException(error.message) from error
        self._deadlines_s = {name: ms / 1000.0 for name, ms in self.settings.deadlines_ms.items()}
        self._engine = BlsEngine(pb_utils, max_stray_runs=self.settings.max_stray_runs)
        self.metrics = TritonMetrics(pb_utils, self.bundle)
        self._loop = asyncio.new_event_loop()

    def run(self, answers: Any) -> Any:
        """Run a coroutine to completion in this model's own event loop."""
        return self._loop.run_until_complete(answers)

    def close(self) -> None:
        """Stop threads and event loop; calls still running end by themselves."""
        self._engine.close()
        self._loop.close()
        self.metrics.close()

    @staticmethod
    def parameters(request: Any) -> dict[str, Any]:
        """Parameters of a request, as its sender gave them."""
        return dict(json.loads(request.parameters() or "{}"))

    def timeout_s(self, request: Any) -> float:
        """Time limit of a request in seconds: ``timeout_ms``, Triton's own ``timeout``, or the setting.

        Raises InvalidParameterError.
        """
        parameters = self.parameters(request)
        if request.timeout():
            parameters["timeout"] = request.timeout()
        asked_s = timeout_of(parameters)
        limit_s = self.settings.max_timeout_s
        if asked_s is None:
            return min(self.settings.timeout_s, limit_s)
        if not (math.isfinite(asked_s) and asked_s <= limit_s):
            raise InvalidParameterError(
                f"timeout_ms must be above 0 and at most {limit_s * 1000:g}, got {asked_s * 1000:g}", field="timeout_ms"
            )
        return asked_s

    async def fused(self, rows: Rows, *, end: float) -> EnsembleResult:
        """Run the ensemble on ``rows`` until ``end`` on ``perf_counter``'s clock. Raises DimmlError.

        Rows without any usable modality are refused before an encoder runs.
        """
        nothing = ensemble.no_answer_at_all(rows.statuses)
        if nothing is not None:
            self.metrics.observe_statuses(rows.statuses)
            raise nothing
        result = await ensemble.run(
            self._engine, self.bundle, rows, timeout_s=end - perf_counter(), deadlines_s=self._deadlines_s
        )
        self.metrics.observe_result(result)
        return result

    def abstention(self, request: Any) -> Abstention:
        """When the answers to a request are to abstain. Raises InvalidParameterError."""
        asked = abstention_of(self.parameters(request))
        check_abstention(self.bundle, asked)
        return asked

    def response(self, result: EnsembleResult, asked: Rows, rows: slice, abstain: Abstention) -> Any:
        """Cut one request's response out of the result of the batch ``asked``.

        Raises DimmlError if none of its rows has an answer.
        """
        statuses = {name: column[rows] for name, column in result.statuses.items()}
        nothing = ensemble.no_answer_at_all(statuses, {name: tensor[rows] for name, tensor in asked.tensors.items()})
        if nothing is not None:
            raise nothing
        arrays = {name: array[rows] for name, array in fused_outputs(result.fused).items()}
        arrays[STATUS] = _texts(list(statuses.values()))
        features = {name: array[rows] for name, array in result.features.items()}
        sets = answer_sets(self.bundle, result.fused.probabilities_BC[rows], statuses, features, abstain)
        arrays |= set_outputs(sets)
        self.metrics.observe_sets(sets)
        tensors = [self.pb_utils.Tensor(name, np.ascontiguousarray(array)) for name, array in arrays.items()]
        return self.pb_utils.InferenceResponse(output_tensors=tensors)

    def refusal(self, error: Exception) -> Any:
        """Make the response of an error. Unexpected ones are logged, and their text stays inside."""
        codes = self.pb_utils.TritonError
        if not isinstance(error, DimmlError):
            logger.error("entry model %s", self.bundle.name, exc_info=error)
            return self.pb_utils.InferenceResponse(
                error=self.pb_utils.TritonError("a fault of the entry model; its log says more", codes.INTERNAL)
            )
        code = codes.INTERNAL
        for kind, fitting in (
            (NotFoundError, codes.NOT_FOUND),
            (UnsupportedError, codes.UNSUPPORTED),
            (RequestError, codes.INVALID_ARG),
            # Triton has no code for a missed deadline.
            (CapacityError, codes.UNAVAILABLE),
        ):
            if isinstance(error, kind):
                code = fitting
                break
        return self.pb_utils.InferenceResponse(error=self.pb_utils.TritonError(error.message, code))


def degraded(result: EnsembleResult, rows: slice) -> bool:
    """Whether, in any of these rows, a requested modality is not ok."""
    return any(status.degrades for column in result.statuses.values() for status in column[rows])


def _texts(columns: Sequence[Sequence[Any]]) -> Any:
    """Array of statuses as bytes, ``[B, M]``, modalities in the order of PRESENT."""
    return np.array([[str(status).encode() for status in row] for row in zip(*columns, strict=True)], np.object_)


def _read(repository: Path, name: str, version: str) -> Bundle:
    return read_bundle(repository / name / version / MANIFEST_NAME)
