"""The metrics' own rules: names and types as documented, counts that agree with each other, promtool's approval."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from dimml import ensemble, fusion
from dimml.bundle import Bundle
from dimml.errors import QueueFullError
from dimml.metrics.buckets import UNIT_BUCKETS
from dimml.monitoring.drift import DriftWindow
from dimml.monitoring.reference import Reference
from dimml.prediction_sets.answers import answer_sets
from dimml.repository import load_bundle
from dimml.status import OK, ModalityStatus, Reason
from dimml_server.observability.merging import ServerMetrics
from dimml_server.observability.metrics import Metrics
from support.data import REPOSITORY_ROOT, unavailable
from support.tiny_bundle import make_tiny_bundle
from support.tiny_sets import tiny_sets


def filled(tmp_path: Path) -> Metrics:
    """Metrics after three rows: both modalities ok, sound silent, both gone."""
    flat = (1,) * len(UNIT_BUCKETS)
    reference = Reference(certainty={"audio": flat}, labels=(1, 1, 1), answer_probability={"audio+visual": 0.9})
    sets = tiny_sets(0.5, 0.5, 0.5, abstain_below=1.0)
    bundle = make_tiny_bundle(tmp_path, reference=reference, certainty="reliability", prediction_sets=sets)
    metrics = Metrics(DriftWindow(rows=5, minimum=1))
    metrics.limit(in_flight=8, queued=64)
    metrics.watch(in_flight=lambda: 1, queued=lambda: 2, stray_runs=lambda: 3, decode_workers_lost=lambda: 4)
    metrics.bundles.served(bundle)
    silent, late = ModalityStatus.because(Reason.SILENT), ModalityStatus.because(Reason.DEADLINE)
    statuses = {"audio": [OK, silent, silent], "visual": [OK, OK, late]}
    present = np.array([[s.ok for s in row] for row in zip(*statuses.values(), strict=True)])
    logits = np.random.default_rng(0).normal(size=(3, 3, 3)).astype(np.float32)
    fused = fusion.fuse(logits, fusion.heads_present(present, fused_head=True))
    own = {name: logits[:, index] for index, name in enumerate(statuses)}
    result = ensemble.EnsembleResult(fused, own, statuses, {"audio": 0.01, "visual": 0.02}, 0.001)
    metrics.bundles.observe_result(bundle, result, answer_sets(bundle, fused.probabilities_BC, statuses, {}))
    metrics.shadows.began(bundle)
    metrics.shadows.answered(bundle, result, bundle, result)
    for stage in ("queue", "decode"):
        metrics.bundles.observe_stage(bundle, stage, 0.01)
    metrics.batches.began(bundle, "audio", 3, [0.0, 0.002])
    metrics.loaded("tiny", ok=True)
    with metrics.request("http") as record:
        record.model, record.version, record.degraded = "tiny", "1", True
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


def test_sets_and_abstentions_are_counted_for_rows_with_an_answer(tmp_path: Path) -> None:
    values = samples(filled(tmp_path))
    assert values["dimml_prediction_set_size_count{model=tiny,version=1}"] == 2
    assert values["dimml_abstained_total{model=tiny,reason=low_probability,version=1}"] == 2
    assert values["dimml_abstained_total{model=tiny,reason=large_set,version=1}"] == 0
    assert values["dimml_shadow_prediction_set_size_count{model=tiny,version=1}"] == 2


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
    outcomes = {k: v for k, v in values.items() if k.startswith("dimml_requests_total{")}
    assert outcomes == {
        "dimml_requests_total{model=tiny,outcome=degraded,transport=http,version=1}": 1,
        "dimml_requests_total{model=,outcome=queue_full,transport=grpc,version=}": 1,
        "dimml_requests_total{model=,outcome=internal,transport=http,version=}": 1,
    }
    # Two rows have an answer, one of them degraded; only one has two modalities to disagree.
    answers = [v for k, v in values.items() if k.startswith("dimml_predictions_total{")]
    assert (sum(answers), len(answers)) == (2, 3)
    assert values["dimml_degraded_total{model=tiny,version=1}"] == 1
    assert values["dimml_disagreement_ratio_count{model=tiny,version=1}"] == 1
    gauges = ("dimml_requests_in_flight{}", "dimml_requests_queued{}", "dimml_stray_runs{}")
    assert [values[name] for name in (*gauges, "dimml_decode_workers_lost_total{}")] == [1, 2, 3, 4]


def test_every_metric_stands_in_the_docs_with_its_type_and_labels(tmp_path: Path) -> None:
    documented = {}
    for line in (REPOSITORY_ROOT / "docs" / "metrics.md").read_text().splitlines():
        if match := re.match(r"\| `(\w+)` \| (\w+) \|([^|]*)\|", line):
            documented[match[1]] = (match[2], set(re.findall(r"`(\w+)`", match[3])))
    found = {}
    # Those of one process, and those that a server of several has in addition.
    exposition = ServerMetrics(1).exposition([filled(tmp_path).snapshot()])
    for family in text_string_to_metric_families(exposition.decode()):
        assert family.documentation, family.name
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        found[name] = (family.type, labels)
    assert found == documented


def test_drift_and_accuracy_go_with_the_version_and_counts_stay(tmp_path: Path) -> None:
    metrics = filled(tmp_path)
    metrics.shadows.ended(load_bundle(tmp_path, "tiny"))
    drift = {name: value for name, value in samples(metrics).items() if "drift" in name}
    # The fused head and the picture's have no reference here.
    assert set(drift) == {
        "dimml_modality_certainty_drift_ratio{modality=audio,model=tiny,version=1}",
        "dimml_modality_certainty_drift_noise_ratio{modality=audio,model=tiny,version=1}",
        "dimml_label_drift_ratio{model=tiny,version=1}",
        "dimml_label_drift_noise_ratio{model=tiny,version=1}",
    }
    assert all(0.0 < value <= 1.0 for value in drift.values())
    metrics.bundles.unserved(load_bundle(tmp_path, "tiny"))
    left = samples(metrics)
    assert not [name for name in left if re.search("drift|estimated|dimml_bundle_info", name)]
    assert left["dimml_degraded_total{model=tiny,version=1}"] == 1


def test_the_estimated_accuracy_is_the_mean_probability_by_pattern_and_head(tmp_path: Path) -> None:
    metrics, rng = filled(tmp_path), np.random.default_rng(0)
    logits = rng.normal(size=(3, 3, 3)).astype(np.float32)
    softmax = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    certainty = softmax.max(axis=2)
    # The first row has every head, weighed by softmax of certainty; the second one the picture alone.
    weights = np.exp(certainty[0]) / np.exp(certainty[0]).sum()
    mixed = np.exp((weights[:, None] * logits[0]).sum(axis=0))
    found = {name: value for name, value in samples(metrics).items() if name.startswith("dimml_") and "estim" in name}
    found = {name: value for name, value in found.items() if "shadow" not in name}
    version, answers = "model=tiny,version=1", "modalities={},model=tiny,version=1"
    assert found == pytest.approx(
        {
            f"dimml_estimated_accuracy_ratio{{{answers.format('audio+visual')}}}": mixed.max() / mixed.sum(),
            f"dimml_estimated_accuracy_ratio{{{answers.format('visual')}}}": certainty[1, 1],
            f"dimml_estimated_accuracy_rows{{{answers.format('audio+visual')}}}": 1,
            f"dimml_estimated_accuracy_rows{{{answers.format('visual')}}}": 1,
            f"dimml_estimated_accuracy_reference_ratio{{{answers.format('audio+visual')}}}": 0.9,
            f"dimml_modality_estimated_accuracy_ratio{{modality=audio,{version}}}": certainty[0, 0],
            f"dimml_modality_estimated_accuracy_ratio{{modality=visual,{version}}}": certainty[:2, 1].mean(),
            f"dimml_modality_estimated_accuracy_ratio{{modality=fused,{version}}}": certainty[0, 2],
        },
        rel=1e-6,
    )


def test_heads_have_an_estimate_only_where_certainty_is_learned(tmp_path: Path) -> None:
    bundle, metrics = make_tiny_bundle(tmp_path), Metrics(DriftWindow(rows=5, minimum=1))
    metrics.bundles.served(bundle)
    for row in observed(bundle, count=7):
        metrics.bundles.observe_result(bundle, row)
    estimated = {name for name in samples(metrics) if name.startswith("dimml_") and "estim" in name}
    pattern = "{modalities=audio+visual,model=tiny,version=1}"
    assert estimated == {f"dimml_estimated_accuracy_{what}{pattern}" for what in ("ratio", "rows")}
    # The window holds the last five.
    assert samples(metrics)[f"dimml_estimated_accuracy_rows{pattern}"] == 5


def observed(bundle: Bundle, count: int) -> Iterator[ensemble.EnsembleResult]:
    """Whole answers, one a result."""
    for _ in range(count):
        logits = np.zeros((1, 3, 3), np.float32)
        fused = fusion.fuse(logits, np.ones((1, 3), np.bool_))
        statuses = {modality.name: [OK] for modality in bundle.modalities}
        own = {name: logits[:, index] for index, name in enumerate(statuses)}
        yield ensemble.EnsembleResult(fused, own, statuses, dict.fromkeys(statuses, 0.01), 0.001)


def test_a_shadow_counts_apart(tmp_path: Path) -> None:
    metrics = filled(tmp_path)
    before = {name: value for name, value in samples(metrics).items() if not name.startswith("dimml_shadow")}
    bundle = load_bundle(tmp_path, "tiny")
    metrics.shadows.dropped(bundle)
    metrics.shadows.failed(bundle)
    after = samples(metrics)
    assert {name: after[name] for name in before if not name.startswith("process")} == {
        name: value for name, value in before.items() if not name.startswith("process")
    }
    outcomes = [
        after[f"dimml_shadow_requests_total{{model=tiny,outcome={o},version=1}}"]
        for o in ("answered", "failed", "dropped")
    ]
    assert outcomes == [1, 1, 1]
    # Of three rows two have an answer, and a version agrees with itself.
    agreement = {name: value for name, value in after.items() if name.startswith("dimml_shadow_agreement_total{")}
    assert agreement == {"dimml_shadow_agreement_total{agrees=yes,model=tiny,shadow=1,version=1}": 2}


def test_below_the_minimum_nothing_is_said_of_drift_and_accuracy(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path, reference=Reference(labels=(1, 1, 1)))
    metrics = Metrics(DriftWindow(rows=5, minimum=3))
    metrics.bundles.served(bundle)
    for expected, row in zip((False, False, True), observed(bundle, count=3), strict=True):
        metrics.bundles.observe_result(bundle, row)
        assert any("drift_ratio" in name for name in samples(metrics)) is expected
        assert any("estimated_accuracy_ratio" in name for name in samples(metrics)) is expected


def test_promtool_finds_nothing_to_mend(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        unavailable("promtool is not installed (Debian package prometheus)")
    checked = subprocess.run(
        [str(promtool), "check", "metrics"], input=filled(tmp_path).exposition(), capture_output=True, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")
