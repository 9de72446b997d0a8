"""The metrics' own rules: names and types as documented, counts that agree with each other, promtool's approval."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from dimml import ensemble, fusion
from dimml.errors import QueueFullError
from dimml.status import OK, ModalityStatus, Reason
from dimml_server.metrics import Metrics
from support.data import REPOSITORY_ROOT, unavailable
from support.tiny_bundle import make_tiny_bundle


def filled(tmp_path: Path) -> Metrics:
    """Metrics after three rows: both modalities ok, sound silent, both gone."""
    bundle, metrics = make_tiny_bundle(tmp_path), Metrics()
    metrics.watch(in_flight=lambda: 1, queued=lambda: 2, stray_runs=lambda: 3, decode_workers_lost=lambda: 4)
    metrics.served(bundle)
    silent, late = ModalityStatus.because(Reason.SILENT), ModalityStatus.because(Reason.DEADLINE)
    statuses = {"audio": [OK, silent, silent], "visual": [OK, OK, late]}
    present = np.array([[s.ok for s in row] for row in zip(*statuses.values(), strict=True)])
    logits = np.random.default_rng(0).normal(size=(3, 3, 3)).astype(np.float32)
    fused = fusion.fuse(logits, fusion.heads_present(present, fused_head=True))
    result = ensemble.EnsembleResult(fused, {}, statuses, {"audio": 0.01, "visual": 0.02}, 0.001)
    metrics.observe_result(bundle, result)
    with metrics.request("http") as record:
        record.model, record.degraded = "tiny", True
    with pytest.raises(QueueFullError), metrics.request("grpc"):
        raise QueueFullError("full", retry_after_s=1.0)
    with pytest.raises(RuntimeError), metrics.request("http"):
        raise RuntimeError
    return metrics


def samples(metrics: Metrics) -> dict[str, float]:
    """Every sample as ``name{label="value"}``."""
    families = text_string_to_metric_families(metrics.exposition().decode())
    return {
        f"{s.name}{{{','.join(f'{k}={v}' for k, v in sorted(s.labels.items()))}}}": s.value
        for family in families
        for s in family.samples
    }


def test_counts_agree_by_modality_and_status(tmp_path: Path) -> None:
    values = samples(filled(tmp_path))
    where = "modality={},model=tiny"
    for modality, ok in (("audio", 1), ("visual", 2), ("fused", 1)):
        for kind in ("certainty", "weight"):
            assert values[f"dimml_modality_{kind}_ratio_count{{{where.format(modality)},version=1}}"] == ok
    status = "dimml_modality_status_total{{{},reason={},status={},version=1}}"
    assert values[status.format(where.format("audio"), "", "ok")] == 1
    assert values[status.format(where.format("audio"), "silent", "unusable")] == 2
    assert values[status.format(where.format("visual"), "deadline", "timeout")] == 1
    outcomes = {k: v for k, v in values.items() if k.startswith("dimml_requests_total")}
    assert outcomes == {
        "dimml_requests_total{model=tiny,outcome=degraded,transport=http}": 1,
        "dimml_requests_total{model=,outcome=queue_full,transport=grpc}": 1,
        "dimml_requests_total{model=,outcome=internal,transport=http}": 1,
    }
    gauges = ("dimml_requests_in_flight{}", "dimml_requests_queued{}", "dimml_stray_runs{}")
    assert [values[name] for name in (*gauges, "dimml_decode_workers_lost_total{}")] == [1, 2, 3, 4]


def test_every_metric_stands_in_the_docs_with_its_type_and_labels(tmp_path: Path) -> None:
    documented = {}
    for line in (REPOSITORY_ROOT / "docs" / "metrics.md").read_text().splitlines():
        if match := re.match(r"\| `(dimml_\w+)` \| (\w+) \|([^|]*)\|", line):
            documented[match[1]] = (match[2], set(re.findall(r"`(\w+)`", match[3])))
    found = {}
    for family in text_string_to_metric_families(filled(tmp_path).exposition().decode()):
        assert family.documentation, family.name
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        found[name] = (family.type, labels)
    assert found == documented


def test_promtool_finds_nothing_to_mend(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        unavailable("promtool is not installed (Debian package prometheus)")
    checked = subprocess.run(
        [str(promtool), "check", "metrics"], input=filled(tmp_path).exposition(), capture_output=True, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")
