"""Rate of `dimml score --engine ray` with two workers of one core each, against one.

    python benchmarks/ray_workers.py MANIFEST --repository MODELS --recordings 400 --repeats 3

Both are measured in turn, in one run, on Ray's own test cluster: a head that runs nothing, and two nodes of one core.
A rate counts from the first rows that arrive to the last ones, so that neither Ray's start nor the workers' is in it;
the seconds of the whole run stand beside it. Medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from itertools import islice
from pathlib import Path

from ray.cluster_utils import Cluster

from dimml_client.scoring.inputs import list_inputs
from dimml_client.scoring.on_ray import RayEngine
from dimml_client.scoring.recording import Recording


def measure(engine: RayEngine, recordings: list[Recording]) -> tuple[float, float]:
    """Recordings per second once rows come, and the seconds of all of it."""
    began = time.perf_counter()
    arrived: list[float] = []
    with engine:
        for _ in engine.score(recordings):
            arrived.append(time.perf_counter())
    assert len(arrived) == len(recordings)
    # Rows come in batches: the first one's are those that come at once.
    first = next(n for n, at in enumerate(arrived) if at - arrived[0] > 0.05)
    return (len(arrived) - first) / (arrived[-1] - arrived[first - 1]), time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest")
    parser.add_argument("--repository", type=Path, required=True)
    parser.add_argument("--recordings", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    listing = list_inputs([arguments.manifest], {}, None)
    recordings = list(islice(listing.recordings(), arguments.recordings))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    found: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
    for _ in range(arguments.repeats):
        for workers, rates in found.items():
            rates.append(measure(RayEngine(arguments.repository, address=cluster.address, workers=workers), recordings))
    cluster.shutdown()
    medians = {workers: statistics.median(rate for rate, _ in rates) for workers, rates in found.items()}
    for workers, rates in found.items():
        print(
            f"{workers} workers: {medians[workers]:6.1f} recordings/s   {[round(rate, 1) for rate, _ in rates]}, "
            f"whole runs {[round(seconds, 1) for _, seconds in rates]} s"
        )
    print(f"two against one: {medians[2] / medians[1]:.2f}")


if __name__ == "__main__":
    main()
