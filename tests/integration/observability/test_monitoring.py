"""A real Prometheus on the real server: the alerts that a dying microphone sets off, and what the dashboard shows.

The rules are the deployed ones with every window 60 times shorter (10 minutes are 10 seconds): a night would be long.
promtool tests them as they are, in ``tests/deploy``.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from support.data import REPOSITORY_ROOT
from support.monitoring import Prometheus, queries, rules, running_prometheus, shortened
from support.server_process import ServerProcess, running_server
from support.traffic import Traffic, clean_clips, noisy_clips, referenced_bundle, silent_clips
from support.waiting import wait_until

DIVIDE_BY = 60.0
LIMIT_S = 90.0
DARK = ("DimmlModalityDark", "audio")
ROWS = 30
(DRIFT_THRESHOLD,) = (
    float(re.findall(r"> ([\d.]+)$", rule["expr"])[0]) for rule in rules() if rule.get("alert") == "DimmlCertaintyDrift"
)
#: What only there is when something is wrong, or has just changed.
MAY_BE_EMPTY = {"Alerts that fire A", "annotation alert", "annotation new version"}
#: What only a bundle has whose certainty is learned, as the one here is not.
LEARNED_PANEL, LEARNED_METRIC = "Estimated accuracy by head A", "dimml_modality_estimated_accuracy_ratio"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("monitored")
    referenced_bundle(folder / "models", clean_clips(folder))
    # Batches have metrics and panels of their own.
    with running_server(folder / "models", drift_window=ROWS, drift_minimum=20, batch_rows=2) as server:
        yield server


@pytest.fixture(scope="module")
def prometheus(server: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with running_prometheus(tmp_path_factory.mktemp("prometheus"), server.http, divide_by=DIVIDE_BY) as prometheus:
        yield prometheus


def post(server: ServerProcess, clips: list[bytes], rows: int) -> None:
    with httpx.Client(base_url=server.url, timeout=60.0) as http:
        for number in range(rows):
            assert http.post("/v1/predict", files={"media": clips[number % len(clips)]}).status_code == 200


def wait_for(what: Callable[[], bool], say: Callable[[], object]) -> float:
    """Seconds until it is so."""
    began = time.monotonic()
    wait_until(what, LIMIT_S, say, every_s=0.2)
    return time.monotonic() - began


def test_noise_passes_the_threshold_of_drift_and_normal_traffic_does_not(server: ServerProcess, tmp_path: Path) -> None:
    def drift(modality: str, kind: str = "drift") -> float:
        return server.metric(f"dimml_modality_certainty_{kind}_ratio", modality=modality, version="2")

    post(server, clean_clips(tmp_path), 19)
    assert "dimml_modality_certainty_drift_ratio{" not in httpx.get(f"{server.url}/metrics").text, "too few rows"
    post(server, clean_clips(tmp_path), ROWS - 19)
    for head in ("audio", "visual", "fused"):
        assert drift(head) < DRIFT_THRESHOLD
    assert server.metric("dimml_label_drift_ratio") < server.metric("dimml_label_drift_noise_ratio")
    post(server, noisy_clips(tmp_path), ROWS)
    assert drift("audio") > max(DRIFT_THRESHOLD, drift("audio", "drift_noise"))
    assert drift("visual") < DRIFT_THRESHOLD, "the picture is as it was"
    post(server, clean_clips(tmp_path), ROWS)
    assert drift("audio") < DRIFT_THRESHOLD, "the window slides on"


def test_a_third_of_silence_sets_off_the_alert_and_its_end_clears_it(
    server: ServerProcess, prometheus: Prometheus, tmp_path: Path
) -> None:
    clean, silent = clean_clips(tmp_path), silent_clips(tmp_path)
    with Traffic(server.url, clean, pause_s=0.1) as traffic:
        wait_for(
            lambda: bool(prometheus.query("model_version_modality:dimml_wanted:increase10m >= 30")),
            lambda: traffic.statuses,
        )
        assert DARK not in prometheus.firing()
        traffic.clips = [clean[0], clean[1], silent[2]]
        fired_s = wait_for(lambda: DARK in prometheus.firing(), prometheus.firing)
        assert ("DimmlModalityDark", "visual") not in prometheus.firing()
        answers = {name: prometheus.query(shortened(query, DIVIDE_BY)) for name, query in queries().items()}
        traffic.clips = clean
        cleared_s = wait_for(lambda: DARK not in prometheus.firing(), prometheus.firing)
    print(f"\nfired {fired_s:.1f} s after the first silence, cleared {cleared_s:.1f} s after the last")
    assert set(traffic.statuses) == {200}
    assert {name for name, found in answers.items() if not found} <= {*MAY_BE_EMPTY, LEARNED_PANEL}
    assert answers["Alerts that fire A"]
    # The dashboard says which modality, of which version, and why.
    (dark,) = (a for a in answers["Missing share by modality A"] if a["metric"]["modality"] == "audio")
    assert dark["metric"]["version"] == "2"
    assert float(dark["value"][1]) == pytest.approx(1 / 3, abs=0.15)
    why = {(a["metric"]["modality"], a["metric"]["reason"]) for a in answers["Why A"] if float(a["value"][1]) > 0}
    assert why == {("audio", "silent")}


def test_every_metric_that_rules_and_dashboard_use_is_on_the_page(server: ServerProcess, tmp_path: Path) -> None:
    post(server, clean_clips(tmp_path), 20)
    page = httpx.get(f"{server.url}/metrics").text
    there = {sample.name for family in text_string_to_metric_families(page) for sample in family.samples}
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    asked = [*(rule["expr"] for rule in rules()), *queries().values()]
    used = {name for expression in asked for name in re.findall(r"(?<![\w:\"])(?:dimml|process)_\w+", expression)}
    records = {name for expression in asked for name in re.findall(r"\b[a-z_]+:\w+:\w+", expression)}
    assert len(used) > 15
    assert used - there == {LEARNED_METRIC}
    assert records <= recorded
    unused = recorded - records
    assert not unused, "recorded for nobody"
    documented = (REPOSITORY_ROOT / "docs" / "metrics.md").read_text()
    bases = {re.sub(r"_(bucket|sum|count)$", "", name) for name in used}
    assert all(f"| `{name}` |" in documented for name in bases)
