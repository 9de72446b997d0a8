"""Metrics of recordings that are fetched from a URL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from dimml.metrics.buckets import SECONDS_BUCKETS


class FetchOutcome(StrEnum):
    """How a fetch ended: for metrics and the log, never for the caller."""

    OK = "ok"
    #: No address, no connection, no TLS, or an answer that broke off.
    UNREACHABLE = "unreachable"
    #: The host has an address that is not on the Internet.
    NOT_GLOBAL = "not_global"
    TIMEOUT = "timeout"
    #: A status other than 200.
    STATUS = "status"
    #: One too many, or to where none may go.
    REDIRECT = "redirect"
    #: A Content-Encoding, though none was asked for.
    ENCODING = "encoding"
    TOO_LARGE = "too_large"
    #: Refused because too many were under way.
    BUSY = "busy"
    #: The caller went away, or the server had no room for it.
    CANCELLED = "cancelled"


@dataclass(slots=True)
class FetchRecord:
    """Record of one fetch, filled in while it runs."""

    outcome: FetchOutcome = FetchOutcome.CANCELLED


class FetchMetrics:
    """Counts, times and the number under way."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._fetches = Counter(
            "dimml_media_fetches", "Recordings fetched from a URL, by outcome.", ("outcome",), registry=registry
        )
        for outcome in FetchOutcome:
            self._fetches.labels(outcome.value)
        self._seconds = Histogram(
            "dimml_media_fetch_seconds",
            "Time of one fetch, whatever its outcome.",
            buckets=SECONDS_BUCKETS,
            registry=registry,
        )
        self._in_flight = Gauge("dimml_media_fetches_in_flight", "Recordings being fetched.", registry=registry)

    def refused(self) -> None:
        """Count a fetch that was not begun."""
        self._fetches.labels(FetchOutcome.BUSY.value).inc()

    @contextmanager
    def fetch(self) -> Iterator[FetchRecord]:
        """Record one fetch."""
        record, began = FetchRecord(), perf_counter()
        with self._in_flight.track_inprogress():
            try:
                yield record
            finally:
                self._seconds.observe(perf_counter() - began)
                self._fetches.labels(record.outcome.value).inc()
