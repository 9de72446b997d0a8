"""The last hour of metrics: alerts by the cases of promtool's own tests, points by arithmetic on real metrics."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from prometheus_client import Metric

from dimml_server.observability.history.alerts import ALERTS, NOT_JUDGED, percentage
from dimml_server.observability.history.report import History
from dimml_server.observability.history.samples import INTERVAL_S, KEPT_S, values_of
from dimml_server.observability.metrics import Metrics
from support.manifests import DEPLOY, documents
from support.monitoring import rules
from support.tiny_bundle import make_tiny_bundle

RULE_TESTS = sorted((DEPLOY / "prometheus" / "tests").glob("*.yml"))
RULES = {rule["alert"]: rule for rule in rules() if "alert" in rule}
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
#: Labels that only Prometheus knows.
OUTER = ("job", "instance")


def seconds(text: str) -> float:
    return float(text[:-1]) * SECONDS[text[-1]]


def expanded(notation: str) -> list[float]:
    """Values in promtool's notation: ``a``, ``axN`` and ``a+bxN``, the last two of N + 1 values."""
    values: list[float] = []
    for part in notation.split():
        match = re.fullmatch(r"(-?[\d.]+)(?:([+-][\d.]+))?(?:x(\d+))?", part)
        assert match is not None, part
        start, step, count = float(match[1]), float(match[2] or 0), int(match[3] or 0)
        values += [start + step * number for number in range(count + 1)]
    return values


def judged_cases() -> Iterator[Any]:
    for path in RULE_TESTS:
        for test in documents(path)[0]["tests"]:
            for case in test.get("alert_rule_test", ()):
                if case["alertname"] not in NOT_JUDGED:
                    yield pytest.param(test, case, id=f"{path.stem}: {test['name']}: {case['eval_time']}"[:90])


def samples(test: dict[str, Any], instance: str) -> Iterator[tuple[float, list[Metric]]]:
    """What one instance's registry would give at each interval."""
    every_s = seconds(test["interval"])
    series = []
    for one in test["input_series"]:
        match = re.fullmatch(r"(\w+)\{(.*)\}", one["series"])
        assert match is not None
        labels = dict(re.findall(r'(\w+)="([^"]*)"', match[2]))
        if labels.pop("job") == "dimml" and labels.pop("instance") == instance:
            series.append((match[1], labels, expanded(one["values"])))
    for number in range(max(len(values) for _, _, values in series)):
        metrics = []
        for name, labels, values in series:
            metric = Metric(name.removesuffix("_total"), "", "unknown")
            if number < len(values):
                metric.add_sample(name, labels, values[number])
            metrics.append(metric)
        yield every_s * number, metrics


@pytest.mark.parametrize(("test", "case"), list(judged_cases()))
def test_an_alert_fires_when_promtool_says_so(test: dict[str, Any], case: dict[str, Any]) -> None:
    names = {match[1] for one in test["input_series"] if (match := re.search(r'instance="(\w+)"', one["series"]))}
    fired = []
    for instance in sorted(names):
        end_s = seconds(case["eval_time"])
        history = History(lambda: (), clock=lambda end_s=end_s: end_s)
        for time_s, metrics in samples(test, instance):
            if time_s <= end_s:
                history.add(time_s, values_of(metrics))
        fired += [alert for alert in reported(history)["alerts"] if alert["name"] == case["alertname"]]
    expected = case["exp_alerts"]
    assert [alert["labels"] for alert in fired] == [
        {name: value for name, value in one["exp_labels"].items() if name not in (*OUTER, "severity")}
        for one in expected
    ]
    for alert, one in zip(fired, expected, strict=True):
        assert alert["severity"] == one["exp_labels"]["severity"]
        assert alert["runbook"] == one["exp_annotations"]["runbook"]
        # Prometheus names the job or the instance; the server says "this server".
        ours = alert["summary"].replace("this server", "THIS")
        theirs = re.sub(r"^(dimml|a) (?=fails|lost|is at)", "THIS ", one["exp_annotations"]["summary"])
        assert ours == theirs
        assert 0.0 <= alert["since"] <= seconds(case["eval_time"]) - seconds(RULES[alert["name"]]["for"])


def test_every_rule_is_judged_or_said_not_to_be_and_has_its_words_and_numbers() -> None:
    judged = {alert.name: alert for alert in ALERTS}
    assert {*judged, *NOT_JUDGED} == set(RULES)
    assert not set(judged) & set(NOT_JUDGED)
    for name, alert in judged.items():
        rule = RULES[name]
        assert alert.severity == rule["labels"]["severity"]
        assert alert.for_s == seconds(rule["for"])
        assert alert.runbook == rule["annotations"]["runbook"]
        numbers = [
            float(np.prod([float(factor) for factor in text.split("*")]))
            for text in re.findall(r">=? ([\d.]+(?: \* [\d.]+)?)", rule["expr"])
        ]
        assert list(dict.fromkeys(numbers)) == pytest.approx(list(alert.thresholds)), name


def reported(history: History) -> dict[str, Any]:
    return asyncio.run(history.report())


class Clock:
    now_s = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return make_tiny_bundle(tmp_path_factory.mktemp("repository"))


def asked(metrics: Metrics, outcome: str, transport: str = "http") -> None:
    with metrics.request(transport) as record:
        record.model, record.version, record.outcome = "tiny", "1", outcome


def test_points_are_what_happened_between_two_samples(bundle: Any, clock: Clock) -> None:
    metrics = Metrics()
    metrics.limit(in_flight=2, queued=64)
    waiting, workers, lost = [3.0], [2.0], [0.0]
    metrics.watch(
        in_flight=lambda: 0,
        queued=lambda: waiting[0],
        stray_runs=lambda: 0,
        decode_workers_lost=lambda: lost[0],
        decode_workers=lambda: workers[0],
    )
    metrics.bundles.served(bundle)
    history = History(metrics.registry.collect, clock)
    history.sample()
    for outcome in ("ok", "ok", "ok", "degraded", "unavailable", "unusable_media", "cancelled"):
        asked(metrics, outcome)
    for duration_s in (0.002, 0.002, 0.3, 0.3):
        metrics.bundles.observe_stage(bundle, "decode", duration_s)
    clock.now_s += 10.0
    history.sample()
    clock.now_s += 10.0
    waiting[0], workers[0], lost[0] = 0.0, 1.0, 1.0
    report = reported(history)
    assert report["times"] == [1_700_000_010.0, 1_700_000_020.0]
    assert report["requests_per_s"] == [0.7, 0.0]
    assert report["errors_per_s"] == [0.1, 0.0]
    assert report["rejected_per_s"] == [0.1, 0.0]
    assert (report["queue"], report["queue_limit"]) == ([3.0, 0.0], 64)
    assert report["decode_workers"] == {"running": [2.0, 1.0], "lost": [0.0, 1.0]}
    # Two in the bucket up to 2.5 ms, from 1; two in that up to 500, from 250: linear within.
    assert report["latency_ms"]["decode"] == {"p50": [2.5, None], "p99": [pytest.approx(250 + 250 * 0.98), None]}
    assert report["latency_ms"]["encode"] == {"p50": [None, None], "p99": [None, None]}
    assert report["alerts"] == []
    assert report["not_judged"] == ["DimmlTargetDown"]
    assert list(report["models"]) == ["tiny:1"]


def test_estimated_accuracy_is_given_by_pattern_beside_its_reference(clock: Clock) -> None:
    history, version = History(lambda: (), clock), ("tiny", "1")
    for estimate in (0.9, 0.8, 0.6):
        values = {("served", *version): 1.0, ("accuracy", *version, "audio"): estimate}
        history.add(clock.now_s, {**values, ("accuracy_reference", *version, "audio"): 0.95})
        clock.now_s += 10.0
    clock.now_s -= 10.0
    model = reported(history)["models"]["tiny:1"]
    assert model["estimated_accuracy"] == {"audio": {"estimate": [0.8, 0.6], "reference": 0.95}}


def test_what_is_no_prediction_counts_as_a_request_and_in_no_latency(clock: Clock) -> None:
    metrics = Metrics()
    history = History(metrics.registry.collect, clock)
    history.sample()
    asked(metrics, "ok", "http_inputs")
    clock.now_s += 10.0
    report = reported(history)
    assert report["requests_per_s"] == [0.1]
    assert report["latency_ms"]["total"]["p50"] == [None]


def test_an_hour_is_kept_and_a_clock_that_goes_back_begins_anew(clock: Clock) -> None:
    history = History(lambda: (), clock)
    for number in range(2 * 3600 // int(INTERVAL_S)):
        history.add(clock.now_s + INTERVAL_S * number, {("requests", "ok"): float(number)})
    clock.now_s += 2 * 3600
    report = reported(history)
    assert len(report["times"]) == 3600 / INTERVAL_S
    assert set(report["requests_per_s"][:-1]) == {0.1}
    assert len(history._samples) == KEPT_S / INTERVAL_S + 1, "a report keeps no sample"
    clock.now_s -= 86_400
    assert reported(history)["times"] == []


@pytest.mark.parametrize(("share", "text"), [(0.25, "25%"), (1 / 3, "33.33%"), (0.9375, "93.75%"), (0.1, "10%")])
def test_shares_are_written_as_prometheus_writes_them(share: float, text: str) -> None:
    assert percentage(share) == text
