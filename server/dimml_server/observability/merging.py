"""Metrics of several processes as those of one server: what each process counts, put together for one exposition.

A snapshot is JSON: the metrics of one process, its counts for drift, its sums for estimated accuracy, and its
statistics of models. Counters and histograms are added up, those of processes that have ended included, so that none
ever goes back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest

from dimml.monitoring.drift import drift_of
from dimml_server.observability.estimated_accuracy import ANSWERS, HEADS, LABELS, REFERENCE, ROWS
from dimml_server.observability.kserve_statistics import merged_stats

Snapshot = Mapping[str, Any]
Merge = Callable[[float, float], float]

#: How a gauge of several processes becomes one, by its name; None: computed from counts instead.
GAUGES: Final[Mapping[str, Merge | None]] = {
    "dimml_requests_in_flight": float.__add__,
    "dimml_requests_queued": float.__add__,
    "dimml_stray_runs": float.__add__,
    "dimml_decode_workers": float.__add__,
    "dimml_requests_in_flight_limit": float.__add__,
    # One queue, of which each process knows the length.
    "dimml_requests_queued_limit": max,
    "dimml_media_fetches_in_flight": float.__add__,
    "dimml_bundle_info": max,
    "dimml_build_info": max,
    "dimml_modality_certainty_drift_ratio": None,
    "dimml_modality_certainty_drift_noise_ratio": None,
    "dimml_label_drift_ratio": None,
    "dimml_label_drift_noise_ratio": None,
    f"dimml_{ANSWERS}": None,
    f"dimml_{ROWS}": None,
    f"dimml_{HEADS}": None,
    # Of the manifest.
    f"dimml_{REFERENCE}": max,
    "dimml_processes": float.__add__,
    "process_resident_memory_bytes": float.__add__,
    "process_virtual_memory_bytes": float.__add__,
    "process_start_time_seconds": min,
    # So that their ratio is that of the process closest to its limit.
    "process_open_fds": max,
    "process_max_fds": min,
}
#: Gauges without a series as long as there is no shadow, which a server of several processes does not have.
OF_SHADOWS: Final = "dimml_shadow_"


def families_of(registry: CollectorRegistry) -> list[dict[str, Any]]:
    """Read all metrics of a registry into JSON, without the ``_created`` times."""
    return [
        {
            "name": metric.name,
            "documentation": metric.documentation,
            "type": metric.type,
            "samples": [[s.name, s.labels, s.value] for s in metric.samples if not s.name.endswith("_created")],
        }
        for metric in registry.collect()
    ]


class ServerMetrics:
    """Metrics of a server of several processes, kept where they are started."""

    def __init__(self, drift_minimum: int) -> None:
        """``drift_minimum``: rows, of all processes, below which no drift is reported."""
        self._drift_minimum = drift_minimum
        self._own = CollectorRegistry()
        ProcessCollector(registry=self._own)
        self._live = Gauge("dimml_processes", "Serving processes that take requests.", registry=self._own)
        self._lost = Counter(
            "dimml_processes_lost",
            "Serving processes that ended by themselves, each of which is replaced.",
            registry=self._own,
        )
        self._ended: Snapshot = {"families": [], "statistics": []}

    def watch(self, live: Callable[[], float]) -> None:
        """Register the function that returns how many processes take requests."""
        self._live.set_function(live)

    def lost(self, last: Snapshot | None) -> None:
        """Count a process that ended, and keep what it had counted by its ``last`` snapshot."""
        self._lost.inc()
        if last is not None:
            families = [*self._ended["families"], *last["families"]]
            kept = [family for family in families if family["type"] != "gauge"]
            self._ended = {
                "families": [_as_family(metric) for metric in _merged(kept)],
                "statistics": list(merged_stats([self._ended["statistics"], last["statistics"]]).values()),
            }

    def exposition(self, snapshots: Sequence[Snapshot]) -> bytes:
        """Format all metrics, of which the live processes' are in ``snapshots``, in Prometheus's text format."""
        own: Snapshot = {"families": families_of(self._own)}
        return generate_latest(_Collected(self.collect([*snapshots, {**own, "drift": [], "accuracy": []}])))

    def collect(self, snapshots: Sequence[Snapshot]) -> list[Metric]:
        """Merge the metrics of the live processes, in ``snapshots``, with those of processes that ended."""
        families = [family for snapshot in (*snapshots, self._ended) for family in snapshot["families"]]
        metrics = {metric.name: metric for metric in _merged(families)}
        self._add_drift(metrics, [entry for snapshot in snapshots for entry in snapshot["drift"]])
        self._add_accuracy(metrics, [entry for snapshot in snapshots for entry in snapshot["accuracy"]])
        return list(metrics.values())

    def statistics(self, snapshots: Sequence[Snapshot]) -> dict[tuple[str, str], dict[str, Any]]:
        """Return the ``ModelStatistics`` of every model, by name and version."""
        return merged_stats([self._ended["statistics"], *(snapshot["statistics"] for snapshot in snapshots)])

    def _add_drift(self, metrics: Mapping[str, Metric], entries: Iterable[Mapping[str, Any]]) -> None:
        counts: dict[tuple[str, ...], Any] = {}
        expected: dict[tuple[str, ...], Any] = {}
        for entry in entries:
            key = tuple(entry["labels"])
            counts[key] = counts.get(key, 0) + np.asarray(entry["counts"], np.int64)
            expected[key] = entry["expected"]
        for key, counts_K in counts.items():
            drift = drift_of(counts_K, expected[key], minimum=self._drift_minimum)
            if drift is not None:
                what = "label" if len(key) == 2 else "modality_certainty"
                labels = dict(zip(("model", "version", "modality"), key, strict=False))
                for suffix, value in (("drift_ratio", drift.distance), ("drift_noise_ratio", drift.noise)):
                    name = f"dimml_{what}_{suffix}"
                    metrics[name].add_sample(name, labels, value)

    def _add_accuracy(self, metrics: Mapping[str, Metric], entries: Iterable[Mapping[str, Any]]) -> None:
        """Divide the sums over all processes' last answers: a mean of their means would weigh an idle one as much."""
        sums: dict[tuple[str, tuple[str, ...]], tuple[float, int]] = {}
        for entry in entries:
            key = entry["metric"], tuple(entry["labels"])
            total, count = sums.get(key, (0.0, 0))
            sums[key] = total + entry["sum"], count + entry["count"]
        for (metric, values), (total, count) in sums.items():
            if count < self._drift_minimum:
                continue
            labels = dict(zip(LABELS[metric], values, strict=True))
            metrics[f"dimml_{metric}"].add_sample(f"dimml_{metric}", labels, total / count)
            if metric == ANSWERS:
                metrics[f"dimml_{ROWS}"].add_sample(f"dimml_{ROWS}", labels, count)


def _merged(families: Iterable[Mapping[str, Any]]) -> Iterator[Metric]:
    """Merge metrics of the same name, in the order in which they come."""
    metrics: dict[str, Metric] = {}
    values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for family in families:
        name = family["name"]
        if name not in metrics:
            metrics[name] = Metric(name, family["documentation"], family["type"])
            values[name] = {}
        merge = _rule(name) if family["type"] == "gauge" else float.__add__
        if merge is None:
            continue
        for sample, labels, value in family["samples"]:
            key = (sample, tuple(labels.items()))
            known = values[name].get(key)
            values[name][key] = float(value) if known is None else merge(known, float(value))
    for name, metric in metrics.items():
        for (sample, labels), value in values[name].items():
            metric.add_sample(sample, dict(labels), value)
        yield metric


def _rule(name: str) -> Merge | None:
    return max if name.startswith(OF_SHADOWS) else GAUGES[name]


def _as_family(metric: Metric) -> dict[str, Any]:
    samples = [[sample.name, sample.labels, sample.value] for sample in metric.samples]
    return {"name": metric.name, "documentation": metric.documentation, "type": metric.type, "samples": samples}


class _Collected(CollectorRegistry):
    """Metrics that have already been collected."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        super().__init__()
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        yield from self._metrics
