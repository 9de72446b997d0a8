"""Observations that wait: a reader of the metrics does not see that they do."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, Counter

from dimml_server.observability.backlog import MOST, Backlog


def test_what_waits_is_counted_at_every_look() -> None:
    registry = CollectorRegistry()
    backlog = Backlog(registry)
    rows = Counter("rows", "Of a test.", registry=registry)
    for count in range(1, 4):
        backlog.put(rows.inc)
        backlog.put(rows.inc, 0.5)
        assert registry.get_sample_value("rows_total") == 1.5 * count


def test_a_full_backlog_is_worked_off_in_order() -> None:
    backlog, seen = Backlog(CollectorRegistry()), []
    for number in range(MOST):
        assert seen == []
        backlog.put(seen.append, number)
    assert seen == list(range(MOST))


def test_a_fault_costs_one_observation(caplog: pytest.LogCaptureFixture) -> None:
    registry = CollectorRegistry()
    backlog = Backlog(registry)
    rows = Counter("rows", "Of a test.", registry=registry)
    for observe in (rows.inc, [].pop, rows.inc):
        backlog.put(observe)
    assert registry.get_sample_value("rows_total") == 2
    assert [record.message for record in caplog.records] == ["an observation is missing in the metrics"]
