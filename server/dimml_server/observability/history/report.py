"""The last hour as ``GET /v1/now`` answers it: rates, shares and times between samples, and alerts."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from dimml_server.observability.history.alerts import FAILED, NOT_JUDGED, Floats, firing, ratio
from dimml_server.observability.history.samples import (
    ACCURACY,
    ACCURACY_REFERENCE,
    CERTAINTY,
    COARSE_KEPT_S,
    COARSE_S,
    COUNT,
    DEGRADED,
    DRIFT,
    INTERVAL_S,
    KEPT_S,
    LATENCY,
    PREDICTIONS,
    QUEUE_LIMIT,
    QUEUED,
    REQUESTS,
    SERVED,
    STATUS,
    SUM,
    TOTAL,
    WEIGHT,
    WORKERS,
    WORKERS_LOST,
    Samples,
    Table,
    Values,
    values_of,
)

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

logger = logging.getLogger(__name__)

_HOUR_S: Final = 3600.0
STAGES: Final = ("queue", "decode", "encode", "fuse", TOTAL)
#: Outcomes that are no errors: of the rest, those that are not the server's are its callers'.
_FINE: Final = ("ok", "degraded", "cancelled")
#: Head that is no modality.
_FUSED: Final = "fused"
#: A report has a point for the time since the last sample if that is so long.
_LEAST_S: Final = 1.0
#: Largest share of a core that samples take: where there is much to read, they are further apart.
_SHARE: Final = 0.001
_DECIMALS: Final = 6


class History:
    """The last hour of metrics, which ``read`` returns. Lives in one event loop."""

    def __init__(self, read: Callable[[], Iterable[Metric]], clock: Callable[[], float] = time.time) -> None:
        self._read, self._clock = read, clock
        self._samples, self._days = Samples(KEPT_S), Samples(COARSE_KEPT_S)

    async def keep(self) -> None:
        """Take a sample at once, and then every ``INTERVAL_S`` or less often, until cancelled."""
        while True:
            began_s = time.thread_time()
            try:
                self.sample()
            except Exception:
                logger.exception("a sample of the metrics is missing")
            await asyncio.sleep(max(INTERVAL_S, (time.thread_time() - began_s) / _SHARE))

    def sample(self) -> None:
        """Take a sample."""
        self.add(self._clock(), values_of(self._read()))

    def add(self, time_s: float, values: Values) -> None:
        """Keep a sample; one that is not later than the last, as after a clock was set back, begins anew."""
        if self._samples.last_s is not None and time_s <= self._samples.last_s:
            self._samples, self._days = Samples(KEPT_S), Samples(COARSE_KEPT_S)
        self._samples.add(time_s, values)
        if self._days.last_s is None or time_s - self._days.last_s >= COARSE_S:
            self._days.add(time_s, {key: value for key, value in values.items() if key[0] == REQUESTS})

    async def report(self) -> dict[str, Any]:
        """Return the answer of ``GET /v1/now``, with a point for the time since the last sample, which is not kept."""
        last_s, now_s = self._samples.last_s, self._clock()
        if last_s is None or now_s < last_s:
            self.sample()
        samples = self._samples
        if last_s is not None and now_s - last_s >= _LEAST_S:
            samples = samples.followed_by(now_s, values_of(self._read()))
        # Milliseconds of arithmetic on copies, for which no request has to wait.
        return await asyncio.to_thread(_report, samples.table(), self._days.table())


def _report(table: Table, days: Table) -> dict[str, Any]:
    return {**_points(table), "alerts": firing(table, days), "not_judged": list(NOT_JUDGED)}


def _points(table: Table) -> dict[str, Any]:
    """Compute the points of the last hour: each is about the time since the sample before it."""
    recent = slice(max(1, int(np.searchsorted(table.times_s, table.times_s[-1] - _HOUR_S, side="right"))), None)
    seconds = np.diff(table.times_s)[recent.start - 1 :]

    def rose(counts: Floats) -> Floats:
        return np.diff(counts)[recent.start - 1 :]

    def rate(outcomes: Iterable[str]) -> list[float | None]:
        return _numbers(rose(table.total((REQUESTS, outcome) for outcome in outcomes)) / seconds)

    outcomes = [key[1] for key in table.keys(REQUESTS)]
    limit = table.gauge(QUEUE_LIMIT)[-1]
    return {
        "interval_s": INTERVAL_S,
        "times": [round(time_s, 3) for time_s in table.times_s[recent].tolist()],
        "requests_per_s": rate(outcomes),
        "errors_per_s": rate(FAILED),
        "rejected_per_s": rate(outcome for outcome in outcomes if outcome not in (*_FINE, *FAILED)),
        "degraded_share": _numbers(
            ratio(rose(table.total(table.keys(DEGRADED))), rose(table.total(table.keys(PREDICTIONS))))
        ),
        "queue": _numbers(table.gauge(QUEUED)[recent]),
        "queue_limit": 0 if np.isnan(limit) else int(limit),
        "latency_ms": {stage: _quantiles(table, stage, rose) for stage in STAGES},
        "decode_workers": {
            "running": _numbers(table.gauge(WORKERS)[recent]),
            "lost": _numbers(rose(table.counter(WORKERS_LOST))),
        },
        "models": {
            f"{model}:{version}": _model(table, model, version, recent, rose)
            for _, model, version in table.keys(SERVED)
            if table.gauge(SERVED, model, version)[-1] == 1.0
        },
    }


def _model(table: Table, model: str, version: str, recent: slice, rose: Callable[[Floats], Floats]) -> dict[str, Any]:
    def head(name: str) -> dict[str, Any]:
        return {
            what: _numbers(
                ratio(
                    rose(table.counter(what, SUM, model, version, name)),
                    rose(table.counter(what, COUNT, model, version, name)),
                )
            )
            for what in (CERTAINTY, WEIGHT)
        } | {"drift": _numbers(table.gauge(DRIFT, model, version, name)[recent])}

    modalities: dict[str, Any] = {}
    for name in dict.fromkeys(key[3] for key in table.keys(STATUS, model, version)):
        keys = table.keys(STATUS, model, version, name)
        wanted = [key for key in keys if key[-1] != "not_requested"]
        rows = {":".join(filter(None, key[-2:])): int(rose(table.counter(*key)).sum()) for key in keys}
        modalities[name] = {
            "ok_share": _numbers(
                ratio(
                    rose(table.total(key for key in keys if key[-2] == "ok")),
                    rose(table.total(wanted)),
                )
            ),
            **head(name),
            "statuses": {status: count for status, count in rows.items() if count},
        }
    fused = head(_FUSED) if (CERTAINTY, COUNT, model, version, _FUSED) in table.keys(CERTAINTY, COUNT) else None
    accuracy = {
        key[3]: {
            "estimate": _numbers(table.gauge(*key)[recent]),
            "reference": _numbers(table.gauge(ACCURACY_REFERENCE, *key[1:])[-1:])[0],
        }
        for key in table.keys(ACCURACY, model, version)
    }
    return {"modalities": modalities, "fused_head": fused, "estimated_accuracy": accuracy}


def _quantiles(table: Table, stage: str, rose: Callable[[Floats], Floats]) -> dict[str, list[float | None]]:
    """Estimate quantiles in milliseconds, linear within a bucket, as Prometheus's ``histogram_quantile``."""
    buckets = sorted((float(key[2]), key) for key in table.keys(LATENCY, stage))
    if not buckets:
        return {name: [None] * len(rose(table.times_s)) for name in ("p50", "p99")}
    bounds = np.array([bound for bound, _ in buckets])
    counts_BT = np.stack([rose(table.counter(*key)) for _, key in buckets])
    return {name: _numbers(1000.0 * _quantile(q, bounds, counts_BT)) for name, q in (("p50", 0.5), ("p99", 0.99))}


def _quantile(q: float, bounds: Floats, counts_BT: Floats) -> Floats:
    total = counts_BT[-1]
    rank = q * total
    bucket = np.minimum((counts_BT < rank).sum(axis=0), len(bounds) - 1)
    places = np.arange(counts_BT.shape[1])
    below = np.where(bucket > 0, counts_BT[bucket - 1, places], 0.0)
    low = np.where(bucket > 0, bounds[bucket - 1], 0.0)
    share = ratio(rank - below, counts_BT[bucket, places] - below)
    # Of what lies above the last bound, only that is known.
    value = np.where(
        np.isinf(bounds[bucket]), low, low + (np.where(np.isinf(bounds), 0.0, bounds)[bucket] - low) * share
    )
    return np.where(total > 0.0, value, np.nan)


def _numbers(values: Floats | Sequence[float]) -> list[float | None]:
    rounded = np.round(np.asarray(values, np.float64), _DECIMALS).tolist()
    return [value if math.isfinite(value) else None for value in rounded]
