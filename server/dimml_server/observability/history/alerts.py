"""Prometheus's alerts (``deploy/prometheus/rules/alerts.yml``) judged from the samples that the server keeps itself.

Each rule's expression is a function over the samples: where and since when it holds. What it needs and the server
does not know, such as whether Prometheus reaches it, is ``NOT_JUDGED``. ``tests/server/observability`` holds every rule
to the cases of ``promtool``'s tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dimml_server.observability.history.samples import (
    ACCURACY,
    ACCURACY_REFERENCE,
    DEGRADED,
    DRIFT,
    DRIFT_NOISE,
    PREDICTIONS,
    QUEUE_LIMIT,
    QUEUED,
    REQUESTS,
    STATUS,
    WORKERS_LOST,
    Table,
)

Floats = npt.NDArray[np.float64]
_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86_400.0
_RUNBOOKS: Final = "docs/monitoring.md#"
#: Outcomes that the server owes an answer for, and those that it failed (``dimml_error_budget`` of the rules).
FAILED: Final = ("internal", "unavailable", "deadline_exceeded", "queue_full")
JUDGED: Final = ("ok", "degraded", *FAILED)
#: Share of requests that may fail.
_BUDGET: Final = 0.005
_NOT_OK_BUT_WANTED: Final = "not_requested"
#: Alerts about what only another can see.
NOT_JUDGED: Final = ("DimmlTargetDown",)


@dataclass(frozen=True, slots=True)
class Condition:
    """Where a rule's expression holds, at every sample, and its value there, for one set of labels."""

    labels: Mapping[str, str]
    holds: npt.NDArray[np.bool_]
    value: Floats


@dataclass(frozen=True, slots=True)
class Alert:
    """A rule: ``judge`` finds where it holds (samples, and those of days), ``summary`` puts it into words."""

    name: str
    severity: str
    for_s: float
    thresholds: tuple[float, ...]
    judge: Callable[[Table, Table, tuple[float, ...]], Iterator[Condition]]
    summary: Callable[[Mapping[str, str], float], str]

    @property
    def runbook(self) -> str:
        """Where the docs say what to do."""
        return _RUNBOOKS + self.name.lower()


def firing(table: Table, days: Table) -> list[dict[str, Any]]:
    """Return the alerts that fire at the last sample: name, severity, since when (unix seconds), summary, runbook."""
    found = []
    for alert in ALERTS:
        for condition in alert.judge(table, days, alert.thresholds):
            if not len(condition.holds) or not condition.holds[-1]:
                continue
            gaps = np.flatnonzero(~condition.holds)
            since_s = float(table.times_s[gaps[-1] + 1 if len(gaps) else 0])
            if table.times_s[-1] - since_s >= alert.for_s:
                found.append(
                    {
                        "name": alert.name,
                        "severity": alert.severity,
                        "since": since_s,
                        "summary": alert.summary(condition.labels, float(condition.value[-1])),
                        "labels": dict(condition.labels),
                        "runbook": alert.runbook,
                    }
                )
    return found


def ratio(part: Floats, whole: Floats) -> Floats:
    """Divide; NaN where there is nothing to divide by."""
    shares = np.full(len(whole), np.nan)
    np.divide(part, whole, out=shares, where=whole > 0.0)
    return shares


def _dark(table: Table, days: Table, thresholds: tuple[float, ...]) -> Iterator[Condition]:
    share, least = thresholds
    for model, version, modality in _modalities(table, STATUS):
        wanted = [key for key in table.keys(STATUS, model, version, modality) if key[-1] != _NOT_OK_BUT_WANTED]
        asked = table.increase(table.total(wanted), 10 * _MINUTE)
        missing = table.increase(table.total(key for key in wanted if key[-2] != "ok"), 10 * _MINUTE)
        value = ratio(missing, asked)
        labels = {"model": model, "version": version, "modality": modality}
        yield Condition(labels, (value > share) & (asked >= least), value)


def _drift(table: Table, days: Table, thresholds: tuple[float, ...]) -> Iterator[Condition]:
    (distance,) = thresholds
    for model, version, modality in _modalities(table, DRIFT):
        value, noise = table.gauge(DRIFT, model, version, modality), table.gauge(DRIFT_NOISE, model, version, modality)
        labels = {"model": model, "version": version, "modality": modality}
        yield Condition(labels, (value > noise) & (value > distance), value)


def _accuracy(table: Table, days: Table, thresholds: tuple[float, ...]) -> Iterator[Condition]:
    (most,) = thresholds
    for _, model, version, modalities in table.keys(ACCURACY):
        of = model, version, modalities
        fall = table.gauge(ACCURACY_REFERENCE, *of) - table.gauge(ACCURACY, *of)
        yield Condition({"model": model, "version": version, "modalities": modalities}, fall > most, fall)


def _degraded(table: Table, days: Table, thresholds: tuple[float, ...]) -> Iterator[Condition]:
    share, least = thresholds
    for _, model, version in table.keys(PREDICTIONS):
        answered = table.increase(table.counter(PREDICTIONS, model, version), 10 * _MINUTE)
        value = ratio(table.increase(table.counter(DEGRADED, model, version), 10 * _MINUTE), answered)
        yield Condition({"model": model, "version": version}, (value > share) & (answered >= least), value)


def _burn(*windows: tuple[float, float]) -> Callable[[Table, Table, tuple[float, ...]], Iterator[Condition]]:
    """Hold where the failures' share is over its threshold in a long window and in a short one."""

    def judge(table: Table, days: Table, thresholds: tuple[float, ...]) -> Iterator[Condition]:
        value, holds = np.full(len(table.times_s), np.nan), np.zeros(len(table.times_s), bool)
        for (long_s, short_s), most in zip(windows, thresholds, strict=True):
            share = _failed(table, days, long_s)
            burns = (share > most) & (_failed(table, days, short_s) > most)
            value, holds = np.where(burns & ~holds, share, value), holds | burns
        yield Condition({}, holds, value)

    return judge


def _failed(table: Table, days: Table, window_s: float) -> Floats:
    def rose(outcomes: tuple[str, ...]) -> Floats:
        keys = [(REQUESTS, outcome) for outcome in outcomes]
        return table.increase(table.total(keys), window_s, (days, days.total(keys)))

    return ratio(rose(FAILED), rose(JUDGED))


def _decoders_lost(table: Table, days: Table, thresholds: tuple[float, ...]) -> Iterator[Condition]:
    value = table.increase(table.counter(WORKERS_LOST), 10 * _MINUTE)
    yield Condition({}, value > thresholds[0], value)


def _queue(table: Table, days: Table, thresholds: tuple[float, ...]) -> Iterator[Condition]:
    most_full, most_refused = thresholds
    full = _mean(table, ratio(table.counter(QUEUED), table.counter(QUEUE_LIMIT)), 5 * _MINUTE)
    refused = ratio(
        table.increase(table.counter(REQUESTS, "queue_full"), 5 * _MINUTE),
        table.increase(table.total(table.keys(REQUESTS)), 5 * _MINUTE),
    )
    yield Condition({}, (full > most_full) | (refused > most_refused), np.where(full > most_full, full, refused))


def _mean(table: Table, values: Floats, window_s: float) -> Floats:
    """Mean over the samples of a window that ends with each."""
    finite = np.isfinite(values)
    sums, counts = (np.concatenate([[0.0], np.cumsum(one)]) for one in (np.where(finite, values, 0.0), finite))
    begins = np.searchsorted(table.times_s, table.times_s - window_s + 1e-6, side="left")
    ends = np.arange(1, len(values) + 1)
    return ratio(sums[ends] - sums[begins], counts[ends] - counts[begins])


def _modalities(table: Table, name: str) -> list[tuple[str, str, str]]:
    return list(dict.fromkeys((key[1], key[2], key[3]) for key in table.keys(name)))


def percentage(share: float) -> str:
    """Format a share as ``humanizePercentage`` of Prometheus does."""
    return f"{100.0 * share:.4g}%"


def _of(labels: Mapping[str, str]) -> str:
    return f"{labels['model']} version {labels['version']}"


ALERTS: Final = (
    Alert(
        "DimmlModalityDark",
        "page",
        5 * _MINUTE,
        (0.2, 10.0),
        _dark,
        lambda labels, v: f"{labels['modality']} is missing in {percentage(v)} of what {_of(labels)} is asked",
    ),
    Alert(
        "DimmlCertaintyDrift",
        "ticket",
        15 * _MINUTE,
        (0.3,),
        _drift,
        lambda labels, v: (
            f"Certainty of {labels['modality']} in {_of(labels)} is not what it was on validation clips: "
            f"distance {v:.2f}"
        ),
    ),
    Alert(
        "DimmlEstimatedAccuracyFell",
        "ticket",
        15 * _MINUTE,
        (0.1,),
        _accuracy,
        lambda labels, v: (
            f"Estimated accuracy of {_of(labels)} with {labels['modalities']} is {v:.2f} below that on validation clips"
        ),
    ),
    Alert(
        "DimmlDegradedShare",
        "ticket",
        10 * _MINUTE,
        (0.1, 20.0),
        _degraded,
        lambda labels, v: f"{percentage(v)} of the answers of {_of(labels)} lack a modality",
    ),
    Alert(
        "DimmlErrorBudgetBurnFast",
        "page",
        2 * _MINUTE,
        (14.4 * _BUDGET, 6 * _BUDGET),
        _burn((_HOUR, 5 * _MINUTE), (6 * _HOUR, 30 * _MINUTE)),
        lambda labels, v: f"this server fails {percentage(v)} of its requests",
    ),
    Alert(
        "DimmlErrorBudgetBurnSlow",
        "ticket",
        15 * _MINUTE,
        (3 * _BUDGET, _BUDGET),
        _burn((_DAY, 2 * _HOUR), (3 * _DAY, 6 * _HOUR)),
        lambda labels, v: f"this server fails {percentage(v)} of its requests, over days",
    ),
    Alert(
        "DimmlDecodersLost",
        "ticket",
        1 * _MINUTE,
        (5.0,),
        _decoders_lost,
        lambda labels, v: f"this server lost {v:.4g} decoding processes in 10 minutes",
    ),
    Alert(
        "DimmlQueueSaturated",
        "ticket",
        5 * _MINUTE,
        (0.8, 0.01),
        _queue,
        lambda labels, v: f"this server is at its limit: its queue is full, or requests are refused ({percentage(v)})",
    ),
)
