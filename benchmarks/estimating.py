"""What estimating accuracy costs a request on the event loop, and a scrape.

    python benchmarks/estimating.py

Observes whole answers of a bundle of two modalities and ten labels with a learned certainty, which have most to record,
without an estimate, with the mean probability, and with a learned estimate of the manifest's, interleaved; medians over
rounds.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Final

import numpy as np

from dimml import fusion
from dimml.ensemble import EnsembleResult
from dimml.monitoring.accuracy import pattern_of
from dimml.monitoring.accuracy_estimate import AccuracyEstimate, CertaintyWeight, PatternEstimate
from dimml.repository import load_bundle
from dimml.status import OK
from dimml_server.observability.metrics import Metrics

ROUNDS: Final = 200
#: As many as are put off at most, so that each round makes all of its observations.
ANSWERS: Final = 96


def main() -> None:
    """Print microseconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", type=Path, default=Path("model_repository"))
    parser.add_argument("--model", default="avdigits")
    options = parser.parse_args()
    loaded = load_bundle(options.repository, options.model)
    bundle = loaded.model_copy(update={"fusion": loaded.fusion.model_copy(update={"certainty": "reliability"})})
    metrics = Metrics()
    metrics.bundles.served(bundle)
    monitors = metrics.bundles._accuracy
    (key, monitor) = next(iter(monitors.items()))
    heads = len(bundle.heads)
    logits = np.random.default_rng(0).normal(size=(1, heads, bundle.classes)).astype(np.float32)
    fused = fusion.fuse(logits, np.ones((1, heads), np.bool_))
    names = [modality.name for modality in bundle.modalities]
    own = {name: logits[:, index] for index, name in enumerate(names)}
    result = EnsembleResult(fused, own, {name: [OK] for name in names}, dict.fromkeys(names, 0.001), 0.0001)
    result.own  # noqa: B018  # computed once a result, by whichever asks first
    weights = {name: CertaintyWeight(agrees=2.0, differs=-1.0) for name in bundle.heads}
    whole = PatternEstimate(
        modalities=tuple(names), clips=100, clean=0.9, bias=-1.0, log_odds=0.5, certainty=weights, disagreement=-3.0
    )
    learned = bundle.model_copy(update={"accuracy_estimate": AccuracyEstimate(patterns=(whole,))})
    times: dict[str, list[float]] = {"learned": [], "with": [], "without": []}
    for _ in range(ROUNDS):
        for what, rounds in times.items():
            monitors.clear()
            if what != "without":
                monitors[key] = monitor
            began = perf_counter()
            for _ in range(ANSWERS):
                metrics.bundles.observe_result(learned if what == "learned" else bundle, result)
            rounds.append((perf_counter() - began) / ANSWERS)
    monitors[key] = monitor
    prepared = []
    for _ in range(ROUNDS):
        began = perf_counter()
        for _ in range(ANSWERS):
            fused.probabilities_BC.max(axis=1).tolist()
            pattern_of(names)
        prepared.append((perf_counter() - began) / ANSWERS)
    scrapes = []
    for _ in range(ROUNDS):
        began = perf_counter()
        list(monitor.sums())
        scrapes.append(perf_counter() - began)
    without, with_it = median(times["without"]), median(times["with"])
    print(f"observe an answer, without the estimate: {1e6 * without:.2f} us")
    print(f"the same with it: {1e6 * with_it:.2f} us, {1e6 * (with_it - without):.2f} more")
    print(f"with a learned estimate: {1e6 * median(times['learned']):.2f} us")
    print(f"probability and pattern of an answer, which both take: {1e6 * median(prepared):.2f} us")
    print(f"a scrape's sums over full windows of {1 + heads} series: {1e6 * median(scrapes):.1f} us")


if __name__ == "__main__":
    main()
