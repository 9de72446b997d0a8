"""Counters and histograms that are counted many times for every request.

prometheus_client's own take a lock and check their arguments at every count, which costs more than the count; here
nothing but the event loop counts, and only a scrape makes samples of it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

Labels = tuple[str, ...]
_INFINITY: Final = float("inf")


class Tally:
    """One series of a counter."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1.0) -> None:
        """Count ``amount``."""
        self.value += amount


class Spread:
    """One series of a histogram; ``bounds`` are the upper ones, the last of them infinite."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0.0] * len(bounds)
        self.total = 0.0

    def observe(self, amount: float) -> None:
        """Count ``amount`` in the first bucket whose bound it does not exceed."""
        self.total += amount
        self.counts[bisect_left(self._bounds, amount)] += 1.0


def counter(name: str, documentation: str, labels: Labels, *, registry: CollectorRegistry) -> dict[Labels, Tally]:
    """Register a counter; return its series by the values of its labels, made at the first look-up, never removed."""
    series: dict[Labels, Tally] = defaultdict(Tally)

    def family() -> Metric:
        found = CounterMetricFamily(name, documentation, labels=labels)
        for values, one in series.items():
            found.add_metric(values, one.value)
        return found

    registry.register(_Families(family))
    return series


def histogram(
    name: str, documentation: str, labels: Labels, *, buckets: Sequence[float], registry: CollectorRegistry
) -> dict[Labels, Spread]:
    """Register a histogram; return its series as ``counter`` does. ``buckets`` are upper bounds."""
    bounds = [*(float(bound) for bound in buckets if bound != _INFINITY), _INFINITY]
    series: dict[Labels, Spread] = defaultdict(lambda: Spread(bounds))
    words: list[str] = [floatToGoString(bound) for bound in bounds]  # type: ignore[no-untyped-call]

    def family() -> Metric:
        found = HistogramMetricFamily(name, documentation, labels=labels)
        for values, one in series.items():
            found.add_metric(values, list(zip(words, accumulate(one.counts), strict=True)), one.total)
        return found

    registry.register(_Families(family))
    return series


class _Families(Collector):
    def __init__(self, family: Callable[[], Metric]) -> None:
        self._family = family

    def collect(self) -> Iterator[Metric]:
        yield self._family()
