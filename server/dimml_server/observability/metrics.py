"""Prometheus metrics of requests and of this process; those of each bundle version are in ``bundle_metrics``.

``docs/metrics.md`` lists every metric.
"""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector
from prometheus_client.core import CounterMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from dimml import __version__
from dimml.errors import DimmlError
from dimml.metrics.buckets import SECONDS_BUCKETS
from dimml.monitoring.drift import DriftWindow
from dimml_server.observability.backlog import Backlog
from dimml_server.observability.batch_metrics import BatchMetrics
from dimml_server.observability.bundle_metrics import BundleMetrics
from dimml_server.observability.fetch_metrics import FetchMetrics
from dimml_server.observability.history.report import History
from dimml_server.observability.kserve_statistics import Statistics
from dimml_server.observability.merging import families_of
from dimml_server.observability.request_context import current_request
from dimml_server.observability.request_record import CANCELLED, DEGRADED, INTERNAL, OK, RequestRecord
from dimml_server.observability.series import counter, histogram
from dimml_server.observability.shadow_metrics import ShadowMetrics

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

#: Outcome of a load other than ok.
FAILED = "failed"


class Metrics:
    """All metrics of one server, in a registry of their own."""

    def __init__(self, window: DriftWindow | None = None) -> None:
        """Register the metrics; ``window`` is that of drift."""
        self.registry = CollectorRegistry()
        self._backlog = Backlog(self.registry)
        self.bundles = BundleMetrics(self.registry, self._backlog, window or DriftWindow())
        self.shadows = ShadowMetrics(self.registry, self._backlog, window or DriftWindow())
        self.fetches = FetchMetrics(self.registry)
        self.batches = BatchMetrics(self.registry, self._backlog)
        ProcessCollector(registry=self.registry)
        #: The last hour of them; empty unless ``history.keep`` runs.
        self.history = History(self.registry.collect)
        #: Counts for KServe's statistics call, over all transports that speak KServe v2.
        self.inference = Statistics()
        self._requests = counter(
            "dimml_requests",
            "Requests answered, by outcome: ok, degraded, cancelled, internal, or an error's code.",
            ("model", "version", "transport", "outcome"),
            registry=self.registry,
        )
        self._latency = histogram(
            "dimml_request_seconds",
            "Time from the first byte of a request to its answer.",
            ("model", "version", "transport"),
            buckets=SECONDS_BUCKETS,
            registry=self.registry,
        )
        self._in_flight = Gauge("dimml_requests_in_flight", "Requests being worked on.", registry=self.registry)
        self._queued = Gauge("dimml_requests_queued", "Requests that wait for their turn.", registry=self.registry)
        self._strays = Gauge(
            "dimml_stray_runs", "Encoder runs that were cancelled and have not ended yet.", registry=self.registry
        )
        self._in_flight_limit = Gauge(
            "dimml_requests_in_flight_limit", "Requests that can be worked on at once.", registry=self.registry
        )
        self._queued_limit = Gauge(
            "dimml_requests_queued_limit", "Requests that can wait; the next one is refused.", registry=self.registry
        )
        self._workers = Gauge("dimml_decode_workers", "Decoding processes that run.", registry=self.registry)
        self._loads = Counter(
            "dimml_bundle_loads",
            "Bundle versions that were loaded, or did not load: at the start, by a call, or by the watch.",
            ("model", "outcome"),
            registry=self.registry,
        )
        build = Gauge("dimml_build_info", "1; the version that runs.", ("version", "python"), registry=self.registry)
        build.labels(__version__, platform.python_version()).set(1)

    def limit(self, *, in_flight: int, queued: int) -> None:
        """Publish the limits on requests."""
        self._in_flight_limit.set(in_flight)
        self._queued_limit.set(queued)

    def loaded(self, name: str, *, ok: bool) -> None:
        """Count the loading of a bundle version, or its failure."""
        for outcome, counts in ((OK, ok), (FAILED, not ok)):
            self._loads.labels(name, outcome).inc(counts)

    def watch(
        self,
        *,
        in_flight: Callable[[], float],
        queued: Callable[[], float],
        stray_runs: Callable[[], float],
        decode_workers_lost: Callable[[], float],
        decode_workers: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """Register functions whose values are read at every scrape."""
        self._workers.set_function(decode_workers)
        self._in_flight.set_function(in_flight)
        self._queued.set_function(queued)
        self._strays.set_function(stray_runs)
        self.registry.register(
            _CounterFrom(
                "dimml_decode_workers_lost",
                "Decoding processes lost since start: crashed, timed out, or killed after their caller was cancelled.",
                decode_workers_lost,
            )
        )

    def exposition(self) -> bytes:
        """Format all metrics in Prometheus's text format."""
        return generate_latest(_WithoutCreated(self.registry))

    def snapshot(self) -> dict[str, Any]:
        """Return everything counted here as JSON, for ``dimml_server.observability.merging``."""
        return {
            "families": families_of(self.registry),
            "drift": self.bundles.drift_counts(),
            "accuracy": self.bundles.accuracy_sums(),
            "statistics": self.inference.all_stats(),
        }

    @contextmanager
    def request(self, transport: str) -> Iterator[RequestRecord]:
        """Record the outcome and latency of one request of a transport (``http``, ``kserve_http``, ``grpc``)."""
        record = RequestRecord()
        # Only the first record: work done beside a request, not for its answer, must not replace it.
        if (request_context := current_request()) is not None and request_context.record is None:
            request_context.record = record
        began = perf_counter()
        try:
            yield record
            record.outcome = record.outcome or (DEGRADED if record.degraded else OK)
        except DimmlError as error:
            record.outcome = error.code
            raise
        except asyncio.CancelledError:
            record.outcome = CANCELLED
            raise
        except BaseException:
            record.outcome = INTERNAL
            raise
        finally:
            record.total_s = perf_counter() - began
            self._backlog.put(self._observe, transport, record)

    def _observe(self, transport: str, record: RequestRecord) -> None:
        self._requests[record.model, record.version, transport, record.outcome].inc()
        self._latency[record.model, record.version, transport].observe(record.total_s)


class _WithoutCreated(CollectorRegistry):
    """Leaves out the ``_created`` time of each series: Prometheus ignores it, and it doubles the series."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__()
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric


class _CounterFrom(Collector):
    """A counter whose value is kept elsewhere."""

    def __init__(self, name: str, documentation: str, value: Callable[[], float]) -> None:
        self._name, self._documentation, self._value = name, documentation, value

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily(self._name, self._documentation, value=self._value())
