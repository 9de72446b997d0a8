"""Prometheus metrics of shadow versions: those of other versions under their own names, and agreement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter

from dimml.bundle import Bundle
from dimml.monitoring.drift import DriftWindow
from dimml.prediction_sets.answers import answer_sets
from dimml_server.observability.backlog import Backlog
from dimml_server.observability.bundle_metrics import BUNDLE, BundleMetrics

if TYPE_CHECKING:
    from dimml.ensemble import EnsembleResult

_ANSWERED, _FAILED, _DROPPED = "answered", "failed", "dropped"
_AGREES: Final = {True: "yes", False: "no"}


class ShadowMetrics:
    """Metrics of shadow versions, in a given registry. None of them counts in the metrics of answers."""

    def __init__(self, registry: CollectorRegistry, backlog: Backlog, window: DriftWindow) -> None:
        self._bundles = BundleMetrics(registry, backlog, window, prefix="dimml_shadow", decodes=False)
        self._requests = Counter(
            "dimml_shadow_requests",
            "Requests copied to a shadow: answered, failed, or dropped because it was busy.",
            (*BUNDLE, "outcome"),
            registry=registry,
        )
        self._agreement = Counter(
            "dimml_shadow_agreement",
            "Rows that both answered, by whether the shadow gave the same label as the version.",
            (*BUNDLE, "shadow", "agrees"),
            registry=registry,
        )

    def began(self, shadow: Bundle) -> None:
        """Record that a version has become a shadow. Its counters start at 0."""
        self._bundles.served(shadow)
        for outcome in (_ANSWERED, _FAILED, _DROPPED):
            self._requests.labels(shadow.name, shadow.version, outcome)

    def ended(self, shadow: Bundle) -> None:
        """Record that a version is no longer a shadow; its counts stay."""
        self._bundles.unserved(shadow)

    def dropped(self, shadow: Bundle) -> None:
        """Count a request that a shadow had no time for."""
        self._requests.labels(shadow.name, shadow.version, _DROPPED).inc()

    def failed(self, shadow: Bundle) -> None:
        """Count a request that a shadow failed to run."""
        self._requests.labels(shadow.name, shadow.version, _FAILED).inc()

    def answered(self, primary: Bundle, result: EnsembleResult, shadow: Bundle, shadows: EnsembleResult) -> None:
        """Record a shadow's own result, ``shadows``, for a request that ``primary`` answered with ``result``."""
        self._requests.labels(shadow.name, shadow.version, _ANSWERED).inc()
        sets = answer_sets(shadow, shadows.fused.probabilities_BC, shadows.statuses, shadows.features)
        self._bundles.observe_result(shadow, shadows, sets)
        present = [any(status.ok for status in row) for row in zip(*result.statuses.values(), strict=True)]
        present_too = [any(status.ok for status in row) for row in zip(*shadows.statuses.values(), strict=True)]
        votes = zip(
            result.fused.probabilities_BC.argmax(axis=1), shadows.fused.probabilities_BC.argmax(axis=1), strict=True
        )
        for both, (vote, own) in zip(zip(present, present_too, strict=True), votes, strict=True):
            if all(both):
                # By name: a version may list its labels in another order.
                agrees = primary.labels[int(vote)] == shadow.labels[int(own)]
                self._agreement.labels(primary.name, primary.version, shadow.version, _AGREES[agrees]).inc()
