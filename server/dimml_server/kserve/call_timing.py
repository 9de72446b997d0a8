"""Timing and counting of one inference call, from its first byte to its last."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Literal

from dimml_server.observability.kserve_statistics import Durations, Statistics
from dimml_server.prediction.call import HeldCall
from dimml_server.versions.registry import ServedModel


class CallerGoneError(Exception):
    """The caller disconnected before it was answered."""


Stage = Literal["compute_input", "compute_infer", "compute_output"]


@dataclass(slots=True)
class InferCall:
    """A call of an existing model. Times of a stage add up; ``queue_ns`` is subtracted from ``compute_infer``."""

    served: ServedModel
    held: HeldCall
    #: Whether the server chooses the version, once it has read the request.
    chosen: bool = False
    batch: int = 1
    degraded: bool = False
    queue_ns: int = 0
    compute_input: int = 0
    compute_infer: int = 0
    compute_output: int = 0

    @contextmanager
    def timed(self, stage: Stage) -> Iterator[None]:
        """Add the duration of the block to ``stage``."""
        began = perf_counter_ns()
        try:
            yield
        finally:
            setattr(self, stage, getattr(self, stage) + perf_counter_ns() - began)


@contextmanager
def counted(statistics: Statistics, served: ServedModel, held: HeldCall) -> Iterator[InferCall]:
    """Count the block as one inference: as failed if it raises or is cancelled."""
    began = perf_counter_ns()
    call = InferCall(served, held)
    name = served.spec.name
    try:
        yield call
    except BaseException:
        statistics.failed(name, call.served.version, total_ns=perf_counter_ns() - began)
        raise
    durations = Durations(
        queue=call.queue_ns,
        compute_input=call.compute_input,
        compute_infer=max(0, call.compute_infer - call.queue_ns),
        compute_output=call.compute_output,
    )
    statistics.succeeded(
        name, call.served.version, batch=call.batch, durations=durations, total_ns=perf_counter_ns() - began
    )
