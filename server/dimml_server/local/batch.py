"""One bundle in this process, for batches of recordings that are already decoded: used by the batch scorer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from dimml import ensemble
from dimml.bundle import Bundle
from dimml.ensemble import Rows
from dimml.errors import DimmlError
from dimml.media.types import Decoded
from dimml.prediction import Prediction
from dimml.prediction_sets.answers import answer_sets
from dimml.repository import load_bundle, only_bundle
from dimml.status import ModalityStatus, Reason
from dimml.system.files import StrPath
from dimml_server.engines.onnxruntime import OnnxRuntimeEngine
from dimml_server.prediction.response import InferenceResult, build_prediction

T = TypeVar("T")

#: Generous, since no caller waits for a single answer of a batch: it ends a run that hangs, not a slow one.
RUN_LIMIT_S: Final = 600.0

#: Result of one recording: an answer, or the error that says why there is none.
PredictionResult = Prediction | DimmlError


class LocalBundle:
    """A context manager that loads one bundle and answers batches, from many threads at once.

    ``model`` may be None where the repository holds one bundle; ``version`` None is the newest. Up to ``concurrency``
    batches run at a time, each encoder with ``intra_op_threads``. Raises BundleError, also on entering, and
    ConfigurationError if the machine lacks the device.
    """

    def __init__(
        self,
        repository: StrPath,
        model: str | None = None,
        version: int | None = None,
        *,
        device: str = "auto",
        concurrency: int = 1,
        intra_op_threads: int = 1,
    ) -> None:
        self._repository = Path(repository)
        self._engine = OnnxRuntimeEngine(concurrency=concurrency, device=device, intra_op_threads=intra_op_threads)
        self.bundle: Bundle = load_bundle(repository, model or only_bundle(repository), version)

    def __enter__(self) -> LocalBundle:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="dimml-local-batch", daemon=True)
        self._thread.start()
        try:
            self._call(self._engine.load(self.bundle, self._repository))
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()

    def predict(self, batch: Sequence[Decoded]) -> list[PredictionResult]:
        """Return an answer or an error for each recording, in order; all classes are listed.

        A run that fails is repeated row by row, so that a row that makes an encoder fail affects no other row.
        """
        results = self._call(self._answers(batch))
        if len(batch) > 1 and any(_broke(result) for result in results):
            return [self._call(self._answers([one]))[0] for one in batch]
        return results

    async def _answers(self, batch: Sequence[Decoded]) -> list[PredictionResult]:
        rows = _rows(self.bundle, batch)
        began = perf_counter()
        try:
            result = await ensemble.run(
                self._engine,
                self.bundle,
                rows,
                timeout_s=RUN_LIMIT_S,
                deadlines_s=dict.fromkeys((m.name for m in self.bundle.modalities), RUN_LIMIT_S),
            )
        except DimmlError as error:
            return [error] * len(batch)
        spent_s = (perf_counter() - began) / len(batch)
        sets = answer_sets(self.bundle, result.fused.probabilities_BC, result.statuses, result.features)
        results: list[PredictionResult] = []
        for row, decoded in enumerate(batch):
            outcome = InferenceResult(self.bundle, result, queue_s=0.0, sets=sets).of_recording(decoded)
            inputs = {name: tensor[row] for name, tensor in rows.tensors.items()}
            nothing = ensemble.no_answer(outcome.statuses(row), inputs)
            results.append(
                nothing or build_prediction(outcome, request_id="", top_k=self.bundle.classes, total_s=spent_s, row=row)
            )
        return results

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _stop(self) -> None:
        self._call(self._engine.close())
        self._call(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _broke(result: PredictionResult) -> bool:
    """Whether a run failed: of this row alone, or of the batch it was in."""
    if isinstance(result, Prediction):
        return any(answer.reason is Reason.ENCODER_ERROR for answer in result.modalities.values())
    # Fusion failed or was late: its errors carry no statuses.
    return not result.statuses or any(status.reason is Reason.ENCODER_ERROR for status in result.statuses.values())


def _rows(bundle: Bundle, batch: Sequence[Decoded]) -> Rows:
    """Make a batch for the ensemble; rows of a modality that is not ok hold zeros."""
    statuses: dict[str, list[ModalityStatus]] = {}
    tensors: dict[str, npt.NDArray[Any]] = {}
    for modality in bundle.modalities:
        tracks = [decoded.tracks.get(modality.name) for decoded in batch]
        statuses[modality.name] = [
            ModalityStatus.because(Reason.NOT_REQUESTED) if track is None else track.status for track in tracks
        ]
        rows = [None if track is None else track.row for track in tracks]
        if any(row is not None for row in rows):
            tensor = np.zeros((len(batch), *modality.shape), modality.dtype)
            for position, row in enumerate(rows):
                if row is not None:
                    tensor[position] = row
            tensors[modality.name] = tensor
    return Rows(tensors, statuses)
