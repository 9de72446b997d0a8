"""Metrics of several processes as those of one, held against one process that saw everything."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from dimml import ensemble, fusion
from dimml.bundle import Bundle
from dimml.errors import QueueFullError
from dimml.metrics.buckets import UNIT_BUCKETS
from dimml.monitoring.drift import DriftWindow
from dimml.monitoring.reference import Reference
from dimml.status import OK, ModalityStatus, Reason
from dimml_server.observability.kserve_statistics import Durations
from dimml_server.observability.merging import GAUGES, OF_SHADOWS, ServerMetrics
from dimml_server.observability.metrics import Metrics
from support.tiny_bundle import make_tiny_bundle

Sample = tuple[str, frozenset[tuple[str, str]]]
#: What each process has of its own kind, or what is not the work's.
OWN = ("process_", "dimml_processes")
VERSION = {"model": "tiny", "version": "1"}


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    flat = (1,) * len(UNIT_BUCKETS)
    reference = Reference(certainty={"audio": flat}, labels=(1, 1, 1), answer_probability={"audio": 0.75})
    return make_tiny_bundle(tmp_path, reference=reference, certainty="reliability")


def process(bundle: Bundle, rows: Sequence[int]) -> Metrics:
    """A process that answered these rows, each of which is also the seed of its logits."""
    metrics = Metrics(DriftWindow(rows=100, minimum=1))
    metrics.limit(in_flight=2, queued=9)
    metrics.watch(in_flight=lambda: len(rows), queued=lambda: 1, stray_runs=lambda: 0, decode_workers_lost=lambda: 2)
    metrics.bundles.served(bundle)
    for row in rows:
        statuses = {"audio": [OK], "visual": [OK if row % 2 else ModalityStatus.because(Reason.SILENT)]}
        logits = 3 * np.random.default_rng(row).normal(size=(1, 3, 3)).astype(np.float32)
        present = np.array([[column[0].ok for column in statuses.values()]])
        fused = fusion.fuse(logits, fusion.heads_present(present, fused_head=True))
        own = {name: logits[:, index] for index, name in enumerate(statuses)}
        result = ensemble.EnsembleResult(fused, own, statuses, {"audio": 0.25, "visual": 0.5}, 0.125)
        metrics.bundles.observe_result(bundle, result)
        with metrics.request("http") as record:
            record.model, record.version = "tiny", "1"
        metrics.inference.succeeded("tiny", 1, batch=1 + row % 2, durations=Durations(1, 2, 3, 4), total_ns=10 + row)
    metrics.inference.failed("tiny", 1, total_ns=5)
    return metrics


def samples(exposition: bytes) -> dict[Sample, float]:
    families = text_string_to_metric_families(exposition.decode())
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def sent(metrics: Metrics) -> Any:
    """A snapshot as it arrives in the parent."""
    return json.loads(json.dumps(metrics.snapshot()))


def without_own(found: dict[Sample, float]) -> dict[Sample, float]:
    times = ("dimml_request_seconds_sum", "dimml_request_seconds_bucket")
    return {key: value for key, value in found.items() if not key[0].startswith((*OWN, *times))}


def test_two_processes_count_as_one_that_saw_it_all(bundle: Bundle) -> None:
    merged = ServerMetrics(1).exposition([sent(process(bundle, range(7))), sent(process(bundle, range(7, 12)))])
    whole = samples(process(bundle, range(12)).exposition())
    expected = without_own(whole)
    # Each process has these of its own, or reports what all have.
    nothing: frozenset[tuple[str, str]] = frozenset()
    expected["dimml_requests_queued", nothing] = 2
    expected["dimml_decode_workers_lost_total", nothing] = 4
    expected["dimml_requests_in_flight_limit", nothing] = 4
    found = without_own(samples(merged))
    assert found.keys() == expected.keys()
    assert found == pytest.approx(expected)
    # Drift is that of all rows together: no average of two windows gives it.
    drift = "dimml_label_drift_ratio", frozenset(VERSION.items())
    apart = [samples(process(bundle, rows).exposition())[drift] for rows in (range(7), range(7, 12))]
    assert found[drift] not in (*apart, pytest.approx(sum(apart) / 2))
    # So is the estimated accuracy: five whole answers, of which one process gave three and the other two.
    accuracy = "dimml_estimated_accuracy_ratio", frozenset({**VERSION, "modalities": "audio+visual"}.items())
    apart = [samples(process(bundle, rows).exposition())[accuracy] for rows in (range(7), range(7, 12))]
    assert found[accuracy] == pytest.approx((3 * apart[0] + 3 * apart[1]) / 6)


def test_drift_needs_rows_enough_in_all(bundle: Bundle) -> None:
    snapshots = [sent(process(bundle, range(7))), sent(process(bundle, range(7, 12)))]
    for minimum, reported in ((12, True), (13, False)):
        found = samples(ServerMetrics(minimum).exposition(snapshots))
        assert any("drift" in name for name, _ in found) is reported


def test_accuracy_needs_rows_enough_in_all_and_weighs_by_them(bundle: Bundle) -> None:
    """Rows with an even number lack the picture: four of the first process, two of the second."""
    of = frozenset({**VERSION, "modalities": "audio"}.items())
    snapshots = [sent(process(bundle, range(7))), sent(process(bundle, range(7, 11)))]
    apart = [samples(process(bundle, rows).exposition()) for rows in (range(7), range(7, 11))]
    ratio, rows = "dimml_estimated_accuracy_ratio", "dimml_estimated_accuracy_rows"
    assert [one[rows, of] for one in apart] == [4, 2]
    merged = samples(ServerMetrics(6).exposition(snapshots))
    assert merged[rows, of] == 6
    assert merged[ratio, of] == pytest.approx((4 * apart[0][ratio, of] + 2 * apart[1][ratio, of]) / 6)
    assert merged[ratio, of] != pytest.approx((apart[0][ratio, of] + apart[1][ratio, of]) / 2)
    assert (ratio, of) not in samples(ServerMetrics(7).exposition(snapshots))


def test_every_gauge_has_a_rule(bundle: Bundle) -> None:
    metrics = process(bundle, [1])
    metrics.shadows.began(bundle)
    exposition = ServerMetrics(1).exposition([sent(metrics)]).decode()
    families = list(text_string_to_metric_families(exposition))
    gauges = {family.name for family in families if family.type == "gauge" and not family.name.startswith(OF_SHADOWS)}
    assert gauges == set(GAUGES)
    assert {family.type for family in families} == {"gauge", "counter", "histogram"}


def test_gauges_of_the_process_are_those_of_the_server(bundle: Bundle) -> None:
    snapshots = [sent(process(bundle, [1])) for _ in range(2)]
    values: list[dict[str, float]] = [
        {f["name"]: f["samples"][0][2] for f in s["families"] if f["name"].startswith("process_")} for s in snapshots
    ]
    for number, snapshot in enumerate(snapshots):
        for family in snapshot["families"]:
            if family["name"] == "process_open_fds":
                family["samples"][0][2] = values[number]["process_open_fds"] = 10.0**6 + number
            elif family["name"] == "process_max_fds":
                family["samples"][0][2] = values[number]["process_max_fds"] = 5.0 + number
            elif family["name"] == "process_start_time_seconds":
                family["samples"][0][2] = values[number]["process_start_time_seconds"] = 100.0 + number
    found = {name: value for (name, _), value in samples(ServerMetrics(1).exposition(snapshots)).items()}
    assert found["process_open_fds"] == 10**6 + 1
    assert found["process_max_fds"] == 5
    assert found["process_start_time_seconds"] == 100
    # The parent's own is in the sum.
    both = sum(value["process_resident_memory_bytes"] for value in values)
    assert found["process_resident_memory_bytes"] > both


def cumulative(found: dict[Sample, float]) -> dict[Sample, float]:
    return {key: value for key, value in found.items() if key[0].endswith(("_total", "_count", "_sum", "_bucket"))}


def test_no_counter_goes_back_when_a_process_ends(bundle: Bundle) -> None:
    server = ServerMetrics(1)
    stays, ends = sent(process(bundle, range(7))), sent(process(bundle, range(7, 12)))

    def exposures() -> Iterator[bytes]:
        yield server.exposition([stays, ends])
        server.lost(ends)
        yield server.exposition([stays])
        yield server.exposition([stays, sent(process(bundle, []))])
        second = sent(process(bundle, range(3)))
        yield server.exposition([stays, second])
        server.lost(second)
        yield server.exposition([stays])

    series = [samples(exposition) for exposition in exposures()]
    for before, after in pairwise(series):
        assert before.keys() - after.keys() <= {key for key in before if "drift" in key[0]}
        kept = cumulative(before)
        assert all(after[key] >= value for key, value in kept.items() if key[0] != "process_cpu_seconds_total")
    ok = (
        "dimml_requests_total",
        frozenset({"model": "tiny", "version": "1", "transport": "http", "outcome": "ok"}.items()),
    )
    assert [found[ok] for found in series] == [12, 12, 12, 15, 15]
    lost = "dimml_processes_lost_total", frozenset[tuple[str, str]]()
    assert [found[lost] for found in series] == [0, 1, 1, 1, 2]
    # What is no count has gone with its process.
    in_flight = "dimml_requests_in_flight", frozenset[tuple[str, str]]()
    assert [found[in_flight] for found in series] == [12, 7, 7, 10, 7]


def test_a_process_that_ended_before_its_first_snapshot_is_counted() -> None:
    server = ServerMetrics(1)
    server.lost(None)
    assert samples(server.exposition([]))["dimml_processes_lost_total", frozenset()] == 1


def test_statistics_are_those_of_one_process_that_saw_it_all(bundle: Bundle) -> None:
    server = ServerMetrics(1)
    server.lost(sent(process(bundle, range(3))))
    merged = server.statistics([sent(process(bundle, range(3, 7))), sent(process(bundle, range(7, 12)))])
    whole = process(bundle, range(12)).inference
    for _ in range(2):  # Each of the three has failed once.
        whole.failed("tiny", 1, total_ns=5)
    expected = whole.model_stats("tiny", 1)
    found = merged["tiny", "1"]
    assert found.pop("last_inference") <= expected.pop("last_inference")
    assert found == expected


def test_an_error_counts_like_an_answer(bundle: Bundle) -> None:
    processes = [process(bundle, []) for _ in range(2)]
    for metrics in processes:
        with suppress(QueueFullError), metrics.request("grpc"):
            raise QueueFullError("full", retry_after_s=1.0)
    found = samples(ServerMetrics(1).exposition([sent(metrics) for metrics in processes]))
    outcome = {"model": "", "version": "", "transport": "grpc", "outcome": "queue_full"}
    assert found["dimml_requests_total", frozenset(outcome.items())] == 2
