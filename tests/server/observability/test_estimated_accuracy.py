"""The mean that a server publishes is of the bundle's estimate, and compared with the same on validation clips."""

from __future__ import annotations

import pytest

from dimml.fusion import FusionSpec
from dimml.monitoring.accuracy_estimate import AccuracyEstimate, CertaintyWeight, PatternEstimate
from dimml.monitoring.drift import DriftWindow
from dimml.monitoring.observation import Observation
from dimml.monitoring.reference import Reference
from dimml_server.observability.estimated_accuracy import ANSWERS, AccuracyCollector, AccuracyMonitor
from support.tiny_sets import bundle_of_sets


def row(pattern: str, probability: float, chance: float) -> Observation:
    return Observation(0, probability, chance, pattern, degraded=False, heads={}, disagreement=None)


def test_the_mean_is_of_chances_and_its_reference_the_estimate_s_own() -> None:
    """Of the sound there is an estimate; of both together only what an earlier export noted."""
    sound = PatternEstimate(
        modalities=("audio",),
        clips=40,
        clean=0.625,
        bias=0.0,
        log_odds=1.0,
        certainty={"audio": CertaintyWeight(agrees=0.0, differs=0.0)},
    )
    bundle = bundle_of_sets(
        fusion=FusionSpec(fused_head=False),
        accuracy_estimate=AccuracyEstimate(patterns=(sound,)),
        reference=Reference(labels=(1, 1, 1), answer_probability={"audio+visual": 0.875, "audio": 0.75}),
    )
    monitor = AccuracyMonitor(bundle, DriftWindow(rows=10, minimum=2))
    for observed in (row("audio", 0.9, 0.25), row("audio", 0.9, 0.5), row("audio+visual", 0.75, 0.75)):
        monitor.observe(observed)
    assert list(monitor.sums()) == [(ANSWERS, "audio", pytest.approx(0.75), 2), (ANSWERS, "audio+visual", 0.75, 1)]
    families = {
        family.name: {sample.labels["modalities"]: sample.value for sample in family.samples}
        for family in AccuracyCollector({("tiny", "1"): monitor}, "dimml", 2).collect()
    }
    assert families["dimml_estimated_accuracy_ratio"] == {"audio": pytest.approx(0.375)}
    assert families["dimml_estimated_accuracy_reference_ratio"] == {"audio": 0.625, "audio+visual": 0.875}
