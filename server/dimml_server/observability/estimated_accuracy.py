"""Accuracy of each bundle version's last answers, estimated without labels (``dimml.monitoring.accuracy``).

Computed at scrape time from a window for every pattern of modalities present that has been seen, at most ``2^M - 1``,
and for every head whose certainty is learned to be the probability that it is right.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from dimml.bundle import Bundle
from dimml.monitoring.accuracy import SlidingMean, pattern_of
from dimml.monitoring.drift import DriftWindow
from dimml.monitoring.observation import Observation

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

#: Metrics whose values are sums divided by counts, and their labels: what several processes report is merged so.
ANSWERS: Final = "estimated_accuracy_ratio"
HEADS: Final = "modality_estimated_accuracy_ratio"
#: Answers behind the first of them.
ROWS: Final = "estimated_accuracy_rows"
LABELS: Final[Mapping[str, tuple[str, ...]]] = {
    ANSWERS: ("model", "version", "modalities"),
    HEADS: ("model", "version", "modality"),
}
REFERENCE: Final = "estimated_accuracy_reference_ratio"


class AccuracyMonitor:
    """The last answers of one bundle version by pattern, and of its heads where their certainty is learned."""

    def __init__(self, bundle: Bundle, window: DriftWindow) -> None:
        self._rows = window.rows
        self.expected = dict({} if bundle.reference is None else bundle.reference.answer_probability)
        if bundle.accuracy_estimate is not None:
            self.expected |= {pattern_of(of.modalities): of.clean for of in bundle.accuracy_estimate.patterns}
        self._patterns: dict[str, SlidingMean] = {}
        self._heads: dict[str, SlidingMean] | None = {} if bundle.fusion.learned else None

    def observe(self, row: Observation) -> None:
        """Add an answer."""
        self._window(self._patterns, row.pattern).add(row.chance)
        if self._heads is not None:
            for head, (certainty, _) in row.heads.items():
                self._window(self._heads, head).add(certainty)

    def sums(self) -> Iterator[tuple[str, str, float, int]]:
        """Yield metric, pattern or head, and the sum and the number of its window's values."""
        for metric, windows in ((ANSWERS, self._patterns), (HEADS, self._heads or {})):
            for name, window in windows.items():
                yield metric, name, *window.sum_and_count()

    def _window(self, windows: dict[str, SlidingMean], name: str) -> SlidingMean:
        window = windows.get(name)
        if window is None:
            window = windows[name] = SlidingMean(self._rows)
        return window


class AccuracyCollector(Collector):
    """Series of the versions served now; none of a window with fewer than ``minimum`` answers."""

    def __init__(self, watched: Mapping[tuple[str, str], AccuracyMonitor], prefix: str, minimum: int) -> None:
        self._watched, self._prefix, self._minimum = watched, prefix, minimum

    def collect(self) -> Iterator[Metric]:
        """Compute all estimates."""
        answers = GaugeMetricFamily(
            f"{self._prefix}_{ANSWERS}",
            "Share of the last answers that is right, by the modalities present, estimated without labels: their mean "
            "chance of being right by the bundle's estimate, or their mean probability where it has none.",
            labels=LABELS[ANSWERS],
        )
        rows = GaugeMetricFamily(
            f"{self._prefix}_{ROWS}", "Answers that the estimate is the mean of.", labels=LABELS[ANSWERS]
        )
        reference = GaugeMetricFamily(
            f"{self._prefix}_{REFERENCE}",
            "The same on clean validation clips, from the manifest.",
            labels=LABELS[ANSWERS],
        )
        heads = GaugeMetricFamily(
            f"{self._prefix}_{HEADS}",
            "Mean learned reliability of a head in the last rows in which its modality is ok: the share of its votes "
            "that is right.",
            labels=LABELS[HEADS],
        )
        for version, watched in self._watched.items():
            for pattern, expected in watched.expected.items():
                reference.add_metric((*version, pattern), expected)
            for metric, name, total, count in watched.sums():
                if count < self._minimum:
                    continue
                (answers if metric == ANSWERS else heads).add_metric((*version, name), total / count)
                if metric == ANSWERS:
                    rows.add_metric((*version, name), count)
        yield from (answers, rows, reference, heads)


def sums_as_json(watched: Mapping[tuple[str, str], AccuracyMonitor]) -> list[dict[str, Any]]:
    """Return every window's metric, labels, sum and number of values, for the parent of several processes."""
    return [
        {"metric": metric, "labels": [*version, name], "sum": total, "count": count}
        for version, monitor in watched.items()
        for metric, name, total, count in monitor.sums()
    ]
