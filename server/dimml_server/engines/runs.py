"""Runs of one model, their cancellation, and when those that go on nevertheless keep others from beginning."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any

import numpy.typing as npt

from dimml.engine import EngineError
from dimml.status import Reason

Tensors = Mapping[str, npt.NDArray[Any]]
Outputs = dict[str, npt.NDArray[Any]]


class StrayRuns:
    """Runs of one model that were cancelled and have not ended, and whether it may be run beside them.

    It may not beyond ``most`` of them, nor while it stalls: a stray run has outlasted ``late_after_s``, and no run that
    began after it has ended well. What begins then would be as late. A run whose client left is younger, as a rule.
    """

    def __init__(self, most: int, late_after_s: float | None) -> None:
        self.going: set[Run] = set()
        self._most, self._late_after_s = most, late_after_s
        self._newest_good = 0.0

    def check_room(self) -> None:
        """Raise EngineError if the model may not be run now."""
        if not self.going:
            return
        if len(self.going) >= self._most:
            raise EngineError(Reason.ENCODER_BUSY, f"{len(self.going)} stalled runs are still going")
        if self._late_after_s is not None:
            latest = perf_counter() - self._late_after_s
            if any(self._newest_good < run.began <= latest for run in self.going):
                raise EngineError(Reason.ENCODER_BUSY, "a run is late and still going, and none has ended since")

    def outran(self, run: Run) -> None:
        """Note in a run's own thread that it has ended well; of two threads at once either may be forgotten."""
        self._newest_good = max(self._newest_good, run.began)


class Run:
    """One run of a model. ``stop`` and ``end`` are for the event loop's thread."""

    __slots__ = ("_ended", "_options", "_outputs", "_session", "_strays", "began")

    def __init__(self, session: Any, outputs: list[str], options: Any, strays: StrayRuns) -> None:
        self._session, self._outputs, self._options, self._strays = session, outputs, options, strays
        self._ended = False
        self.began = perf_counter()

    def here(self, tensors: Tensors | Callable[[], Tensors]) -> Outputs | EngineError:
        """Run in this thread, which also makes the tensors if that is left to it; return outputs, or the error."""
        try:
            inputs = dict(tensors() if callable(tensors) else tensors)
            results = self._session.run(self._outputs, inputs, self._options)
        except Exception as error:
            return EngineError(Reason.ENCODER_ERROR, _first_line(error))
        self._strays.outran(self)
        return dict(zip(self._outputs, results, strict=True))

    def stop(self) -> None:
        """Ask the run to stop; it is a stray run until ``end`` is called."""
        if not self._ended:
            self._options.terminate = True
            self._strays.going.add(self)

    def end(self) -> None:
        """Note that the run has ended."""
        self._ended = True
        self._strays.going.discard(self)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:500]
