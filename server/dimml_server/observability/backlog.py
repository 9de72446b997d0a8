"""Observations put off until there are several, or the metrics are read.

Each touches much code and memory for little work. Right after a request both must be fetched into the processor's
caches; for several requests in a row, once.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Final, ParamSpec

from prometheus_client import CollectorRegistry
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

logger = logging.getLogger(__name__)

P = ParamSpec("P")

#: Observations that wait, at most: those of about a dozen requests, a millisecond of work.
MOST: Final = 96


class Backlog(Collector):
    """Observations that wait, for the metrics registered after it in ``registry``. Lives in one event loop.

    A registry reads its collectors in the order of their registration, so that this one, which has no metrics of its
    own, works off what waits before any other is read.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._waiting: deque[Callable[[], object]] = deque()
        registry.register(self)

    def put(self, observe: Callable[P, object], *arguments: P.args, **named: P.kwargs) -> None:
        """Have ``observe`` called later, in order; an error is logged, since no request is left to raise it in."""
        self._waiting.append(partial(observe, *arguments, **named))
        if len(self._waiting) >= MOST:
            self.work_off()

    def work_off(self) -> None:
        """Make all observations that wait."""
        while self._waiting:
            try:
                self._waiting.popleft()()
            except Exception:
                logger.exception("an observation is missing in the metrics")

    def collect(self) -> Iterator[Metric]:
        """Work off what waits; there is nothing to report."""
        self.work_off()
        return iter(())
