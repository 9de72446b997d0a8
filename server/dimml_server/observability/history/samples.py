"""What is kept of the metrics: some values by key, taken every few seconds."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

#: Name of a value, then what tells it from others of the name.
Key = tuple[str, ...]
Values = dict[Key, float]
#: Labels of one sample of a metric; returns the key under which its value is added up, None to leave it out.
_KeyOf = Callable[[Mapping[str, str]], Key | None]

#: Transports whose requests do not end with an answer to a prediction, so that their times mean something else.
NOT_TIMED: Final = frozenset({"http_inputs", "http_timeline"})
REQUESTS, LATENCY, TOTAL = "requests", "latency", "total"
QUEUED, QUEUE_LIMIT, WORKERS, WORKERS_LOST = "queued", "queue_limit", "workers", "workers_lost"
PREDICTIONS, DEGRADED, STATUS, SERVED = "predictions", "degraded", "status", "served"
CERTAINTY, WEIGHT, DRIFT, DRIFT_NOISE = "certainty", "weight", "drift", "drift_noise"
ACCURACY, ACCURACY_REFERENCE = "accuracy", "accuracy_reference"
SUM, COUNT = "sum", "count"

#: Time between two samples, seconds.
INTERVAL_S: Final = 10.0
#: Samples are kept so long: an hour, and what an alert looks at before it.
KEPT_S: Final = 4500.0
#: Of the counts of requests, samples this far apart are kept for days: what spends the error budget slowly.
COARSE_S: Final = 300.0
COARSE_KEPT_S: Final = 3 * 86_400.0 + COARSE_S


def _named(name: str, *labels: str) -> _KeyOf:
    return lambda sample: (name, *(sample[label] for label in labels))


def _total(sample: Mapping[str, str]) -> Key | None:
    return None if sample["transport"] in NOT_TIMED else (LATENCY, TOTAL, sample["le"])


_VERSION: Final = ("model", "version")
_MODALITY: Final = (*_VERSION, "modality")
#: By the name of a metric's samples.
_KEYS: Final[Mapping[str, _KeyOf]] = {
    "dimml_requests_total": _named(REQUESTS, "outcome"),
    "dimml_request_seconds_bucket": _total,
    "dimml_stage_seconds_bucket": _named(LATENCY, "stage", "le"),
    "dimml_requests_queued": _named(QUEUED),
    "dimml_requests_queued_limit": _named(QUEUE_LIMIT),
    "dimml_decode_workers": _named(WORKERS),
    "dimml_decode_workers_lost_total": _named(WORKERS_LOST),
    "dimml_predictions_total": _named(PREDICTIONS, *_VERSION),
    "dimml_degraded_total": _named(DEGRADED, *_VERSION),
    "dimml_bundle_info": _named(SERVED, *_VERSION),
    "dimml_modality_status_total": _named(STATUS, *_MODALITY, "status", "reason"),
    "dimml_modality_certainty_ratio_sum": lambda sample: (CERTAINTY, SUM, *(sample[label] for label in _MODALITY)),
    "dimml_modality_certainty_ratio_count": lambda sample: (CERTAINTY, COUNT, *(sample[label] for label in _MODALITY)),
    "dimml_modality_weight_ratio_sum": lambda sample: (WEIGHT, SUM, *(sample[label] for label in _MODALITY)),
    "dimml_modality_weight_ratio_count": lambda sample: (WEIGHT, COUNT, *(sample[label] for label in _MODALITY)),
    "dimml_modality_certainty_drift_ratio": _named(DRIFT, *_MODALITY),
    "dimml_modality_certainty_drift_noise_ratio": _named(DRIFT_NOISE, *_MODALITY),
    "dimml_estimated_accuracy_ratio": _named(ACCURACY, *_VERSION, "modalities"),
    "dimml_estimated_accuracy_reference_ratio": _named(ACCURACY_REFERENCE, *_VERSION, "modalities"),
}
#: Metrics of which samples are kept: a metric's name lacks what its samples' names end in.
_METRICS: Final = frozenset(
    name.removesuffix("_total").removesuffix("_bucket").removesuffix("_sum").removesuffix("_count") for name in _KEYS
)


def values_of(metrics: Iterable[Metric]) -> Values:
    """Add up what is kept of the metrics, by key."""
    values: Values = {}
    for metric in metrics:
        if metric.name not in _METRICS:
            continue
        for sample in metric.samples:
            key_of = _KEYS.get(sample.name)
            if key_of is not None and (key := key_of(sample.labels)) is not None:
                values[key] = values.get(key, 0.0) + sample.value
    return values


class Samples:
    """Values by key over time, the oldest first: a row of numbers a sample, in columns that are added as keys come."""

    def __init__(self, kept_s: float) -> None:
        self._kept_s = kept_s
        self._columns: dict[Key, int] = {}
        self._rows: deque[tuple[float, npt.NDArray[np.float64]]] = deque()

    def add(self, time_s: float, values: Values) -> None:
        """Add a sample, which must be later than the last one, and drop those that are too old."""
        for key in values:
            self._columns.setdefault(key, len(self._columns))
        row = np.full(len(self._columns), np.nan)
        row[[self._columns[key] for key in values]] = list(values.values())
        self._rows.append((time_s, row))
        while self._rows[0][0] < time_s - self._kept_s:
            self._rows.popleft()

    def followed_by(self, time_s: float, values: Values) -> Samples:
        """Return a copy with one more sample."""
        copy = Samples(self._kept_s)
        copy._columns, copy._rows = dict(self._columns), deque(self._rows)
        copy.add(time_s, values)
        return copy

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def last_s(self) -> float | None:
        """Time of the last sample; None before the first."""
        return self._rows[-1][0] if self._rows else None

    def table(self) -> Table:
        """Return all samples as they are now."""
        rows = np.full((len(self._rows), len(self._columns)), np.nan)
        for number, (_, row) in enumerate(self._rows):
            rows[number, : len(row)] = row
        return Table(np.array([time_s for time_s, _ in self._rows]), dict(self._columns), rows)


class Table:
    """Samples at ``times_s`` (unix seconds, ascending): ``rows`` has a column for each key, NaN where it is absent."""

    def __init__(
        self, times_s: npt.NDArray[np.float64], columns: Mapping[Key, int], rows: npt.NDArray[np.float64]
    ) -> None:
        self.times_s = times_s
        self._columns, self._rows = columns, rows

    def keys(self, *prefix: str) -> list[Key]:
        """Return the keys that begin so, in the order in which they came."""
        return [key for key in self._columns if key[: len(prefix)] == prefix]

    def gauge(self, *key: str) -> npt.NDArray[np.float64]:
        """Return a value at every sample, NaN where it was absent."""
        column = self._columns.get(key)
        return np.full(len(self.times_s), np.nan) if column is None else self._rows[:, column]

    def counter(self, *key: str) -> npt.NDArray[np.float64]:
        """Return a count at every sample, 0 before it came."""
        return np.nan_to_num(self.gauge(*key))

    def total(self, keys: Iterable[Key]) -> npt.NDArray[np.float64]:
        """Return the sum of several counts at every sample."""
        return sum((self.counter(*key) for key in keys), np.zeros(len(self.times_s)))

    def increase(
        self,
        counts: npt.NDArray[np.float64],
        window_s: float,
        coarse: tuple[Table, npt.NDArray[np.float64]] | None = None,
    ) -> npt.NDArray[np.float64]:
        """Return by how much a count rose within ``window_s`` before each sample, or since the first one there is.

        ``coarse``, samples that go back further and the same count in them, serves windows that begin before this.
        """
        begins = self.times_s - window_s
        before = counts[np.maximum(0, np.searchsorted(self.times_s, begins + 1e-6, side="right") - 1)]
        if coarse is not None and len(coarse[0].times_s):
            older, older_counts = coarse
            places = np.maximum(0, np.searchsorted(older.times_s, begins + 1e-6, side="right") - 1)
            earlier = begins < self.times_s[0]
            before = np.where(earlier & (older.times_s[0] <= self.times_s[0]), older_counts[places], before)
        return counts - before
