"""Prometheus metrics of each bundle version: its answers, its modalities, their drift, and its accuracy.

A modality's certainty and weight are observed exactly when its status is ``ok``, once per row, so that their
counts equal the status counter's. Label sets are bounded by bundles, their labels (the first hundred), their patterns
of modalities present, and enums.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from dimml.bundle import Bundle
from dimml.metrics.buckets import SECONDS_BUCKETS, SIZE_BUCKETS, UNIT_BUCKETS
from dimml.monitoring.drift import Drift, DriftWindow, SlidingCounts
from dimml.monitoring.observation import Observation, bundle_info, label_name, label_series, observations
from dimml.monitoring.reference import Reference
from dimml.prediction import AbstainReason
from dimml.prediction_sets.answers import AnswerSets
from dimml.status import OK, ModalityStatus, Reason
from dimml_server.observability.backlog import Backlog
from dimml_server.observability.estimated_accuracy import AccuracyCollector, AccuracyMonitor, sums_as_json
from dimml_server.observability.series import counter, histogram

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from dimml.ensemble import EnsembleResult

#: Label ``modality`` of stages that do not belong to a single modality.
NO_MODALITY = ""
BUNDLE: Final = ("model", "version")
MODALITY: Final = (*BUNDLE, "modality")


class BundleMetrics:
    """Metrics by bundle and version, in a given registry."""

    def __init__(
        self,
        registry: CollectorRegistry,
        backlog: Backlog,
        window: DriftWindow,
        prefix: str = "dimml",
        *,
        decodes: bool = True,
    ) -> None:
        """Register the metrics; ``prefix`` starts every metric's name. ``decodes``: whether recordings are counted."""
        self._backlog = backlog
        self._window = window
        self._watched: dict[tuple[str, str], _DriftMonitor] = {}
        self._accuracy: dict[tuple[str, str], AccuracyMonitor] = {}
        self._infos: dict[tuple[str, str], tuple[str, ...]] = {}
        self._statuses = counter(
            f"{prefix}_modality_status",
            "Rows by status and reason of a modality.",
            (*MODALITY, "status", "reason"),
            registry=registry,
        )
        self._certainty = histogram(
            f"{prefix}_modality_certainty_ratio",
            "Certainty of a head whose modality is ok, 0 to 1; modality 'fused' is the head on all features.",
            MODALITY,
            buckets=UNIT_BUCKETS,
            registry=registry,
        )
        self._weight = histogram(
            f"{prefix}_modality_weight_ratio",
            "Share of a head in the fused logits, 0 to 1, where its modality is ok.",
            MODALITY,
            buckets=UNIT_BUCKETS,
            registry=registry,
        )
        self._disagreement = histogram(
            f"{prefix}_disagreement_ratio",
            "Chance that two modalities' heads, drawing from their distributions, name different labels.",
            BUNDLE,
            buckets=UNIT_BUCKETS,
            registry=registry,
        )
        self._predictions = counter(
            f"{prefix}_predictions", "Rows that were answered, by label.", (*BUNDLE, "label"), registry=registry
        )
        self._degraded = counter(
            f"{prefix}_degraded",
            "Rows that were answered without a requested modality.",
            BUNDLE,
            registry=registry,
        )
        self._set_sizes = histogram(
            f"{prefix}_prediction_set_size",
            "Labels in the prediction set of a row that was answered, of bundles that have sets.",
            BUNDLE,
            buckets=SIZE_BUCKETS,
            registry=registry,
        )
        self._abstained = counter(
            f"{prefix}_abstained", "Rows whose answer abstained, by reason.", (*BUNDLE, "reason"), registry=registry
        )
        self._truncated = (
            None
            if not decodes
            else Counter(
                f"{prefix}_truncated",
                "Recordings whose track was cut off: the file holds less than its header promises.",
                MODALITY,
                registry=registry,
            )
        )
        self._stages = histogram(
            f"{prefix}_stage_seconds",
            "Time of one stage of a request: queue, decode, encode (by modality), fuse, explain.",
            (*BUNDLE, "stage", "modality"),
            buckets=SECONDS_BUCKETS,
            registry=registry,
        )
        self._info = Gauge(
            f"{prefix}_bundle_info",
            "1 for every bundle version that is served; whether it has a reference for drift.",
            (*BUNDLE, "created", "certainty", "reference"),
            registry=registry,
        )
        registry.register(_DriftCollector(self._watched, prefix))
        registry.register(AccuracyCollector(self._accuracy, prefix, window.minimum))

    def served(self, bundle: Bundle) -> None:
        """Record that a bundle version is served. Its counters start at 0, so that the first count is an increase."""
        self._backlog.work_off()
        labels = bundle.name, str(bundle.version)
        reference = bundle.reference
        self._infos[labels] = tuple(bundle_info(bundle).values())
        self._info.labels(*labels, *self._infos[labels]).set(1)
        if reference is not None:
            self._watched[labels] = _DriftMonitor(reference, self._window)
        self._accuracy[labels] = AccuracyMonitor(bundle, self._window)
        for modality in bundle.modalities:
            for status in (OK, *map(ModalityStatus.because, Reason)):
                self._statuses[(*labels, modality.name, *_words(status))]
            if self._truncated is not None:
                self._truncated.labels(*labels, modality.name)
        for label in label_series(bundle):
            self._predictions[(*labels, label)]
        self._degraded[labels]
        if bundle.prediction_sets is not None:
            for reason in AbstainReason:
                self._abstained[(*labels, reason.value)]

    def unserved(self, bundle: Bundle) -> None:
        """Record that a bundle version is no longer served; its counts stay."""
        self._backlog.work_off()
        labels = bundle.name, str(bundle.version)
        self._info.remove(*labels, *self._infos.pop(labels))
        self._watched.pop(labels, None)
        self._accuracy.pop(labels, None)

    def drift_counts(self) -> list[dict[str, Any]]:
        """Return the last rows' counts and what a reference expects, as JSON, by model, version and head."""
        return [
            {"labels": [*labels, *head], "counts": counts.counts.tolist(), "expected": list(expected)}
            for labels, watched in self._watched.items()
            for head, counts, expected in watched.counts()
        ]

    def accuracy_sums(self) -> list[dict[str, Any]]:
        """Return the sums behind the estimated accuracies, as JSON."""
        return sums_as_json(self._accuracy)

    def observe_stage(self, bundle: Bundle, stage: str, seconds: float, modality: str = NO_MODALITY) -> None:
        """Record the duration of one stage of one request."""
        self._backlog.put(self._observe_stage, bundle, stage, seconds, modality)

    def observe_truncations(self, bundle: Bundle, truncations: Iterable[str]) -> None:
        """Count the modalities of one recording whose track was cut off."""
        if self._truncated is not None:
            for modality in truncations:
                self._truncated.labels(bundle.name, str(bundle.version), modality).inc()

    def observe_statuses(self, bundle: Bundle, statuses: Mapping[str, Sequence[ModalityStatus]]) -> None:
        """Count the status of each modality, by row."""
        self._backlog.put(self._observe_statuses, bundle, statuses)

    def observe_result(self, bundle: Bundle, result: EnsembleResult, sets: AnswerSets | None = None) -> None:
        """Record all observations of one ensemble run's rows, their prediction sets, and its stage times."""
        self._backlog.put(self._observe_result, bundle, result, sets)

    def _observe_stage(self, bundle: Bundle, stage: str, seconds: float, modality: str = NO_MODALITY) -> None:
        self._stages[bundle.name, str(bundle.version), stage, modality].observe(seconds)

    def _observe_statuses(self, bundle: Bundle, statuses: Mapping[str, Sequence[ModalityStatus]]) -> None:
        for modality, column in statuses.items():
            for status in column:
                self._statuses[(bundle.name, str(bundle.version), modality, *_words(status))].inc()

    def _observe_result(self, bundle: Bundle, result: EnsembleResult, sets: AnswerSets | None) -> None:
        self._observe_statuses(bundle, result.statuses)
        for name, seconds in result.encode_s.items():
            if seconds > 0.0:
                self._observe_stage(bundle, "encode", seconds, name)
        self._observe_stage(bundle, "fuse", result.fuse_s)
        labels = bundle.name, str(bundle.version)
        watched, accuracy = self._watched.get(labels), self._accuracy.get(labels)
        for row in observations(bundle, result):
            for head, (certainty, weight) in row.heads.items():
                self._certainty[(*labels, head)].observe(certainty)
                self._weight[(*labels, head)].observe(weight)
            if row.disagreement is not None:
                self._disagreement[labels].observe(row.disagreement)
            self._predictions[(*labels, label_name(bundle, row.answer))].inc()
            self._degraded[labels].inc(row.degraded)
            if watched is not None:
                watched.observe(row)
            if accuracy is not None:
                accuracy.observe(row)
        for size, reason in () if sets is None else sets.answered():
            self._set_sizes[labels].observe(size)
            if reason is not None:
                self._abstained[(*labels, reason.value)].inc()


class _DriftMonitor:
    """The last rows of one bundle version, to compare with its reference."""

    def __init__(self, reference: Reference, window: DriftWindow) -> None:
        self._reference = reference
        self._minimum = window.minimum
        bins = len(reference.certainty_bounds)
        self._heads = {head: SlidingCounts(bins, window.rows) for head in reference.certainty}
        self._answers = SlidingCounts(len(reference.labels), window.rows)

    def observe(self, row: Observation) -> None:
        for head, (certainty, _) in row.heads.items():
            if head in self._heads:
                self._heads[head].add(self._reference.certainty_bin(certainty))
        self._answers.add(row.answer)

    def certainty(self) -> Iterator[tuple[str, Drift]]:
        """Compute the drift of every head that has enough rows."""
        for head, counts in self._heads.items():
            if drift := counts.drift(self._reference.certainty[head], minimum=self._minimum):
                yield head, drift

    def counts(self) -> Iterator[tuple[tuple[str, ...], SlidingCounts, Sequence[int]]]:
        """Yield counts and what is expected: of every head by its name, and of the labels without a name."""
        for head, counts in self._heads.items():
            yield (head,), counts, self._reference.certainty[head]
        yield (), self._answers, self._reference.labels

    def answers(self) -> Drift | None:
        return self._answers.drift(self._reference.labels, minimum=self._minimum)


class _DriftCollector(Collector):
    """Computes drift at scrape time for the versions served now; no series while there are too few rows."""

    def __init__(self, watched: Mapping[tuple[str, str], _DriftMonitor], prefix: str) -> None:
        self._watched, self._prefix = watched, prefix

    def collect(self) -> Iterator[Metric]:
        certainty = GaugeMetricFamily(
            f"{self._prefix}_modality_certainty_drift_ratio",
            "Jensen-Shannon distance, 0 to 1, of a head's last certainties from those on validation clips.",
            labels=MODALITY,
        )
        certainty_noise = GaugeMetricFamily(
            f"{self._prefix}_modality_certainty_drift_noise_ratio",
            "The distance that as many rows without drift exceed about once in a thousand times.",
            labels=MODALITY,
        )
        answers = GaugeMetricFamily(
            f"{self._prefix}_label_drift_ratio",
            "Jensen-Shannon distance, 0 to 1, of the last answers' labels from those of validation clips.",
            labels=BUNDLE,
        )
        answers_noise = GaugeMetricFamily(
            f"{self._prefix}_label_drift_noise_ratio",
            "The distance that as many rows without drift exceed about once in a thousand times.",
            labels=BUNDLE,
        )
        for labels, watched in self._watched.items():
            for head, drift in watched.certainty():
                certainty.add_metric((*labels, head), drift.distance)
                certainty_noise.add_metric((*labels, head), drift.noise)
            if drift_of_answers := watched.answers():
                answers.add_metric(labels, drift_of_answers.distance)
                answers_noise.add_metric(labels, drift_of_answers.noise)
        yield from (certainty, certainty_noise, answers, answers_noise)


def _words(status: ModalityStatus) -> tuple[str, str]:
    return status.status.value, "" if status.reason is None else status.reason.value
