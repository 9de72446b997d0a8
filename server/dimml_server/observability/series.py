"""Series of a metric that are looked up for every request."""

from __future__ import annotations

from typing import Any

from prometheus_client import Counter, Histogram


class Series(dict[tuple[str, ...], Any]):
    """Series of one metric by the values of its labels, made at the first look-up and never removed.

    ``metric.labels(…)`` converts and counts its arguments and takes a lock each time, which costs more than the
    observation itself.
    """

    def __init__(self, metric: Counter | Histogram) -> None:
        super().__init__()
        self._metric = metric

    def __missing__(self, values: tuple[str, ...]) -> Any:
        series = self[values] = self._metric.labels(*values)
        return series
