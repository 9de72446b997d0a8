"""Counters and histograms of our own, held to prometheus_client's."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import generate_latest

from dimml.metrics.buckets import SECONDS_BUCKETS
from dimml_server.observability.series import counter, histogram

AMOUNTS = (0.0, 0.0005, SECONDS_BUCKETS[0], SECONDS_BUCKETS[3], 0.2, 1e9, 1e-9)


def lines(registry: CollectorRegistry) -> list[str]:
    return [line for line in generate_latest(registry).decode().splitlines() if "_created" not in line]


def test_an_exposition_is_the_one_of_prometheus_client() -> None:
    theirs, ours = CollectorRegistry(), CollectorRegistry()
    requests = Counter("requests", "Of a test.", ("model", "outcome"), registry=theirs)
    seconds = Histogram("seconds", "Of a test.", ("model",), buckets=SECONDS_BUCKETS, registry=theirs)
    own_requests = counter("requests", "Of a test.", ("model", "outcome"), registry=ours)
    own_seconds = histogram("seconds", "Of a test.", ("model",), buckets=SECONDS_BUCKETS, registry=ours)
    assert lines(ours) == lines(theirs)
    requests.labels('a "b"\n', "ok").inc()
    own_requests['a "b"\n', "ok"].inc()
    # Looked up and not counted: a series at 0.
    requests.labels("c", "ok")
    own_requests["c", "ok"]
    for model in ("a", "b"):
        for amount in AMOUNTS:
            seconds.labels(model).observe(amount)
            own_seconds[model,].observe(amount)
            requests.labels(model, "degraded").inc(amount)
            own_requests[model, "degraded"].inc(amount)
    assert lines(ours) == lines(theirs)
