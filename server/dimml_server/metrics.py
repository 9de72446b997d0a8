"""What Prometheus sees. ``docs/metrics.md`` lists every metric; label sets are bounded by bundles and enums.

A modality's certainty and weight are observed exactly when its status is ``ok``, once per row, so that their
counts equal the status counter's.
"""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from dimml import __version__
from dimml.bundle import FUSED_HEAD, Bundle
from dimml.errors import DimmlError
from dimml.metric_buckets import SECONDS_BUCKETS, UNIT_BUCKETS
from dimml.status import ModalityStatus
from dimml_server.kserve.statistics import Statistics

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from dimml.ensemble import EnsembleResult

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

#: Outcomes that are not an error's code.
OK, DEGRADED, CANCELLED, INTERNAL = "ok", "degraded", "cancelled", "internal"
#: ``modality`` of the stages that belong to no single one.
NO_MODALITY = ""


@dataclass(slots=True)
class RequestRecord:
    """What a transport fills in while it answers one request.

    An exception sets the outcome by itself, and so does leaving it empty: ok, or degraded.
    """

    model: str = ""
    degraded: bool = False
    outcome: str = ""
    total_s: float = 0.0


class Metrics:
    """All metrics of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        #: What the KServe statistics call gives, counted over all transports that speak KServe v2.
        self.inference = Statistics()
        per_modality = ("model", "version", "modality")
        self._requests = Counter(
            "dimml_requests",
            "Requests answered, by outcome: ok, degraded, cancelled, internal, or an error's code.",
            ("model", "transport", "outcome"),
            registry=self.registry,
        )
        self._statuses = Counter(
            "dimml_modality_status",
            "Rows by what became of a modality in them.",
            (*per_modality, "status", "reason"),
            registry=self.registry,
        )
        self._certainty = Histogram(
            "dimml_modality_certainty_ratio",
            "Certainty of a head whose modality is ok, 0 to 1; modality 'fused' is the head on all features.",
            per_modality,
            buckets=UNIT_BUCKETS,
            registry=self.registry,
        )
        self._weight = Histogram(
            "dimml_modality_weight_ratio",
            "Share of a head in the fused logits, 0 to 1, where its modality is ok.",
            per_modality,
            buckets=UNIT_BUCKETS,
            registry=self.registry,
        )
        self._stages = Histogram(
            "dimml_stage_seconds",
            "Time of one stage of a request: queue, decode, encode (by modality), fuse.",
            ("model", "stage", "modality"),
            buckets=SECONDS_BUCKETS,
            registry=self.registry,
        )
        self._latency = Histogram(
            "dimml_request_seconds",
            "Time from the first byte of a request to its answer.",
            ("model", "transport"),
            buckets=SECONDS_BUCKETS,
            registry=self.registry,
        )
        self._in_flight = Gauge("dimml_requests_in_flight", "Requests being worked on.", registry=self.registry)
        self._queued = Gauge("dimml_requests_queued", "Requests that wait for their turn.", registry=self.registry)
        self._strays = Gauge(
            "dimml_stray_runs", "Encoder runs that were told to stop and still go on.", registry=self.registry
        )
        self._bundles = Gauge(
            "dimml_bundle_info",
            "1 for every bundle version that is served.",
            ("model", "version"),
            registry=self.registry,
        )
        build = Gauge("dimml_build_info", "1; the version that runs.", ("version", "python"), registry=self.registry)
        build.labels(__version__, platform.python_version()).set(1)

    def watch(
        self,
        *,
        in_flight: Callable[[], float],
        queued: Callable[[], float],
        stray_runs: Callable[[], float],
        decode_workers_lost: Callable[[], float],
    ) -> None:
        """Read these at every scrape."""
        self._in_flight.set_function(in_flight)
        self._queued.set_function(queued)
        self._strays.set_function(stray_runs)
        self.registry.register(
            _CounterFrom(
                "dimml_decode_workers_lost",
                "Decoding processes that died, or were killed for lateness or after their caller had gone.",
                decode_workers_lost,
            )
        )

    def exposition(self) -> bytes:
        """All metrics in Prometheus's text format."""
        return generate_latest(_WithoutCreated(self.registry))

    def served(self, bundle: Bundle) -> None:
        """Note that a bundle version is served."""
        self._bundles.labels(bundle.name, str(bundle.version)).set(1)

    def unserved(self, bundle: Bundle) -> None:
        """Note that a bundle version is served no more; what it counted stays."""
        self._bundles.remove(bundle.name, str(bundle.version))

    @contextmanager
    def request(self, transport: str) -> Iterator[RequestRecord]:
        """Around one request of a transport (``http``, ``kserve_http``, ``grpc``): its outcome and latency."""
        record = RequestRecord()
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
            self._requests.labels(record.model, transport, record.outcome).inc()
            self._latency.labels(record.model, transport).observe(record.total_s)

    def observe_stage(self, bundle: Bundle, stage: str, seconds: float, modality: str = NO_MODALITY) -> None:
        """One stage of one request took this long."""
        self._stages.labels(bundle.name, stage, modality).observe(seconds)

    def observe_statuses(self, bundle: Bundle, statuses: Mapping[str, Sequence[ModalityStatus]]) -> None:
        """What became of each modality, by row."""
        for modality, column in statuses.items():
            for status in column:
                reason = "" if status.reason is None else status.reason.value
                self._statuses.labels(bundle.name, str(bundle.version), modality, status.status.value, reason).inc()

    def observe_result(self, bundle: Bundle, result: EnsembleResult) -> None:
        """Statuses, certainty, weights and stage times of one ensemble's rows."""
        self.observe_statuses(bundle, result.statuses)
        for name, seconds in result.encode_s.items():
            if seconds > 0.0:
                self.observe_stage(bundle, "encode", seconds, name)
        self.observe_stage(bundle, "fuse", result.fuse_s)
        columns = list(result.statuses.values())
        for row in range(len(columns[0])):
            here = {name: column[row].ok for name, column in result.statuses.items()}
            here[FUSED_HEAD] = all(here.values())
            for head, name in enumerate(bundle.heads):
                if here[name]:
                    labels = (bundle.name, str(bundle.version), name)
                    self._certainty.labels(*labels).observe(float(result.fused.certainty_BH[row, head]))
                    self._weight.labels(*labels).observe(float(result.fused.weights_BH[row, head]))


class _WithoutCreated(CollectorRegistry):
    """Leaves out the time at which each series was made: Prometheus ignores it, and it doubles the series."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__()
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric


class _CounterFrom(Collector):
    """A counter that is kept elsewhere."""

    def __init__(self, name: str, documentation: str, value: Callable[[], float]) -> None:
        self._name, self._documentation, self._value = name, documentation, value

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily(self._name, self._documentation, value=self._value())
