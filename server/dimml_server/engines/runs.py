"""Runs of one model, their cancellation, and when those that go on nevertheless keep others from beginning."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any, Final

import numpy.typing as npt

from dimml.engine import EngineError
from dimml.errors import first_line
from dimml.status import Reason

Tensors = Mapping[str, npt.NDArray[Any]]
Outputs = dict[str, npt.NDArray[Any]]


#: While a model stalls, one run is let through in as many of its deadlines, to see whether it still does.
PROBE_AFTER: Final = 5.0


class StrayRuns:
    """Runs of one model that were cancelled and have not ended, and whether it may be run beside them.

    It may not beyond ``most`` of them, nor while it stalls: a stray run has outlasted ``late_after_s``, and no run has
    ended well since it began. What begins then would be as late. Under load, where runs are late and others end, it
    does not stall; a run whose client left is younger, as a rule. While it stalls, one run in ``PROBE_AFTER``
    deadlines is let through: a run that never ends must not keep the model from being found well again.
    """

    def __init__(self, most: int, late_after_s: float | None) -> None:
        self.going: set[Run] = set()
        self._most, self._late_after_s = most, late_after_s
        self._ended_well = 0.0
        self._probe_at: float | None = None

    def check_number(self) -> None:
        """Raise EngineError if there are as many as there may be."""
        if len(self.going) >= self._most:
            raise EngineError(Reason.ENCODER_BUSY, f"{len(self.going)} stalled runs are still going")

    def check_room(self) -> None:
        """Raise EngineError if the model may not be run now. Once without is one run, begun at once."""
        if not self.going:
            return
        self.check_number()
        if self._late_after_s is None:
            return
        now = perf_counter()
        latest = now - self._late_after_s
        if not any(self._ended_well < run.began <= latest for run in self.going):
            self._probe_at = None
            return
        if self._probe_at is None or now < self._probe_at:
            self._probe_at = self._probe_at or now + PROBE_AFTER * self._late_after_s
            raise EngineError(
                Reason.ENCODER_BUSY, "it stalls: a run is past its deadline, and none has ended since that began"
            )
        self._probe_at = now + PROBE_AFTER * self._late_after_s

    def run_ended_well(self) -> None:
        """Note it, in the run's own thread."""
        self._ended_well = perf_counter()


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
            return EngineError(Reason.ENCODER_ERROR, first_line(error))
        self._strays.run_ended_well()
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
