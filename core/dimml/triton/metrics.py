"""Metrics of an entry model, on Triton's own /metrics page under the embedded server's names (``docs/metrics.md``).

Every call to Triton is a message to another process, so observations are added up here and sent once per second. A
histogram is therefore sent as the counters that it consists of (``_bucket``, ``_sum``, ``_count``), which look the same
to Prometheus; Triton's own would take a message per observation. A faulty call has ended the whole server (2.51): only
positive steps are sent, and families live as long as their metrics.
"""

from __future__ import annotations

import logging
import math
import platform
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from dimml import __version__
from dimml.bundle import Bundle
from dimml.ensemble import EnsembleResult
from dimml.errors import DimmlError
from dimml.metrics.buckets import SECONDS_BUCKETS, SIZE_BUCKETS, UNIT_BUCKETS
from dimml.monitoring.observation import bundle_info, label_name, observations
from dimml.prediction_sets.answers import AnswerSets
from dimml.status import ModalityStatus

logger = logging.getLogger(__name__)

TRANSPORT: Final = "triton"
FLUSH_S: Final = 1.0
_HELP: Final = {
    "dimml_requests_total": "Requests answered, by outcome: ok, degraded, internal, or an error's code.",
    "dimml_request_seconds": "Time from a request's arrival at the entry model to its answer.",
    "dimml_modality_status_total": "Rows by status and reason of a modality.",
    "dimml_modality_certainty_ratio": "Certainty of a head whose modality is ok, 0 to 1.",
    "dimml_disagreement_ratio": "Chance that two modalities' heads, drawing from their distributions, differ.",
    "dimml_predictions_total": "Rows that were answered, by label.",
    "dimml_degraded_total": "Rows that were answered without a requested modality.",
    "dimml_prediction_set_size": "Labels in the prediction set of a row that was answered.",
    "dimml_abstained_total": "Rows whose answer abstained, by reason.",
    "dimml_truncated_total": "Recordings whose track was cut off: the file holds less than its header promises.",
    "dimml_modality_weight_ratio": "Share of a head in the fused logits, 0 to 1, where its modality is ok.",
    "dimml_stage_seconds": "Time of one stage of a request: decode, encode (by modality), fuse.",
    "dimml_decode_workers_lost_total": "Decoding processes lost since start: crashed or timed out.",
    "dimml_bundle_info": "1 for every bundle version that is served.",
    "dimml_build_info": "1; the version that runs.",
}

Labels = tuple[tuple[str, str], ...]
Series = tuple[str, Labels]


class TritonMetrics:
    """Metrics of one instance. Triton adds instances up: the same name and labels are the same series."""

    def __init__(self, pb_utils: Any, bundle: Bundle) -> None:
        self._pb_utils = pb_utils
        self._bundle = bundle
        self._version = {"model": bundle.name, "version": str(bundle.version)}
        self._pending: defaultdict[Series, float] = defaultdict(float)
        self._lock = threading.Lock()
        self._families: dict[str, Any] = {}
        self._metrics: dict[Series, Any] = {}
        self._decoders_lost: Callable[[], int] = lambda: 0
        self._decoders_counted = 0
        self._closing = threading.Event()
        try:
            self._gauge("dimml_bundle_info", self._version | bundle_info(bundle))
            self._gauge("dimml_build_info", {"version": __version__, "python": platform.python_version()})
        except Exception as error:  # Triton was started without metrics.
            logger.warning("no metrics: %s", error)
            self._thread = None
            return
        self._thread = threading.Thread(target=self._flush_often, name="dimml-metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Send the rest and stop."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()

    def watch_decoders(self, lost: Callable[[], int]) -> None:
        """Count lost decoding processes by ``lost``, which returns their number since start."""
        self._decoders_lost = lost

    def observe_request(self, seconds: float, is_degraded: bool) -> None:
        """Count an answered request."""
        self._request(seconds, "degraded" if is_degraded else "ok")

    def observe_error(self, seconds: float, error: Exception) -> None:
        """Count a request that was refused or failed."""
        self._request(seconds, error.code if isinstance(error, DimmlError) else "internal")

    def observe_stage(self, stage: str, seconds: float, modality: str = "") -> None:
        """Observe the duration of one stage of a request."""
        labels = {"stage": stage, "modality": modality}
        self._observe("dimml_stage_seconds", self._version | labels, seconds, SECONDS_BUCKETS)

    def observe_statuses(self, statuses: Mapping[str, Sequence[ModalityStatus]]) -> None:
        """Count the status of each modality in each row."""
        for modality, column in statuses.items():
            for status in column:
                reason = "" if status.reason is None else status.reason.value
                labels = {"modality": modality, "status": status.status.value, "reason": reason}
                self._add("dimml_modality_status_total", self._version | labels, 1)

    def observe_truncations(self, truncations: Iterable[str]) -> None:
        """Count the modalities of one recording whose track was cut off."""
        for modality in truncations:
            self._add("dimml_truncated_total", self._version | {"modality": modality}, 1)

    def observe_result(self, result: EnsembleResult) -> None:
        """Observe statuses, heads and answers of one ensemble run, and its stage times."""
        self.observe_statuses(result.statuses)
        for name, seconds in result.encode_s.items():
            if seconds > 0.0:
                self.observe_stage("encode", seconds, name)
        self.observe_stage("fuse", result.fuse_s)
        for row in observations(self._bundle, result):
            for head, (certainty, weight) in row.heads.items():
                labels = self._version | {"modality": head}
                self._observe("dimml_modality_certainty_ratio", labels, certainty, UNIT_BUCKETS)
                self._observe("dimml_modality_weight_ratio", labels, weight, UNIT_BUCKETS)
            if row.disagreement is not None:
                self._observe("dimml_disagreement_ratio", self._version, row.disagreement, UNIT_BUCKETS)
            self._add("dimml_predictions_total", self._version | {"label": label_name(self._bundle, row.answer)}, 1)
            if row.degraded:
                self._add("dimml_degraded_total", self._version, 1)

    def observe_sets(self, sets: AnswerSets | None) -> None:
        """Observe the prediction sets of one request's answers, and how many of these abstained."""
        for size, reason in () if sets is None else sets.answered():
            self._observe("dimml_prediction_set_size", self._version, size, SIZE_BUCKETS)
            if reason is not None:
                self._add("dimml_abstained_total", self._version | {"reason": reason.value}, 1)

    def _request(self, seconds: float, outcome: str) -> None:
        labels = self._version | {"transport": TRANSPORT}
        self._add("dimml_requests_total", labels | {"outcome": outcome}, 1)
        self._observe("dimml_request_seconds", labels, seconds, SECONDS_BUCKETS)

    def _observe(self, name: str, labels: dict[str, str], value: float, bounds: Sequence[float]) -> None:
        for bound in (*bounds, math.inf):
            if value <= bound:
                text = "+Inf" if math.isinf(bound) else str(bound)
                self._add(f"{name}_bucket", labels | {"le": text}, 1)
        self._add(f"{name}_sum", labels, value)
        self._add(f"{name}_count", labels, 1)

    def _add(self, name: str, labels: dict[str, str], step: float) -> None:
        with self._lock:
            self._pending[name, tuple(labels.items())] += step

    def _flush_often(self) -> None:
        while not self._closing.wait(FLUSH_S):
            self._flush()
        self._flush()

    def _flush(self) -> None:
        lost = self._decoders_lost()
        if lost > self._decoders_counted:
            self._add("dimml_decode_workers_lost_total", {}, lost - self._decoders_counted)
            self._decoders_counted = lost
        with self._lock:
            pending, self._pending = self._pending, defaultdict(float)
        try:
            for series, step in pending.items():
                if math.isfinite(step) and step > 0:
                    self._metric(series, self._pb_utils.MetricFamily.COUNTER).increment(step)
        except Exception:
            logger.exception("metrics were lost")

    def _gauge(self, name: str, labels: dict[str, str]) -> None:
        self._metric((name, tuple(labels.items())), self._pb_utils.MetricFamily.GAUGE).set(1)

    def _metric(self, series: Series, kind: Any) -> Any:
        metric = self._metrics.get(series)
        if metric is None:
            name, labels = series
            if name not in self._families:
                base = name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count")
                self._families[name] = self._pb_utils.MetricFamily(name=name, description=_HELP[base], kind=kind)
            metric = self._metrics[series] = self._families[name].Metric(labels=dict(labels))
        return metric
