"""Metrics of runs that several requests may share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from prometheus_client import CollectorRegistry

from dimml.bundle import Bundle
from dimml.metrics.buckets import SECONDS_BUCKETS
from dimml_server.observability.backlog import Backlog
from dimml_server.observability.bundle_metrics import MODALITY
from dimml_server.observability.series import histogram

#: Upper bounds of rows in a run.
ROWS_BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64, 128)


class BatchMetrics:
    """Sizes of batches and waits for them, by encoder; without series as long as nothing is batched."""

    def __init__(self, registry: CollectorRegistry, backlog: Backlog) -> None:
        self._backlog = backlog
        self._rows = histogram(
            "dimml_batch_rows",
            "Rows of one run of an encoder that concurrent requests may share.",
            MODALITY,
            buckets=ROWS_BUCKETS,
            registry=registry,
        )
        self._wait = histogram(
            "dimml_batch_wait_seconds",
            "Time that a request waited for such a run to begin; part of its stage encode.",
            MODALITY,
            buckets=SECONDS_BUCKETS,
            registry=registry,
        )

    def began(self, bundle: Bundle, modality: str, rows: int, waits_s: Sequence[float]) -> None:
        """Record a run as it begins: its rows, and how long each of its requests has waited."""
        self._backlog.put(self._observe, (bundle.name, str(bundle.version), modality), rows, waits_s)

    def _observe(self, labels: tuple[str, str, str], rows: int, waits_s: Sequence[float]) -> None:
        self._rows[labels].observe(rows)
        for wait_s in waits_s:
            self._wait[labels].observe(wait_s)
