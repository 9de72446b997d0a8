"""Rate of `dimml score --engine ray` with two workers of one core each, against one.

    python benchmarks/ray_workers.py MANIFEST --repository MODELS --recordings 400 --repeats 3

Both are measured in turn, in one run, on Ray's own test cluster: a head that runs nothing, and two nodes of one core.
A rate counts from the first rows that arrive to the last ones, so that neither Ray's start nor the workers' is in it;
the seconds of the whole run stand beside it, and the processor's milliseconds for each recording, of all processes: on
two cores with nothing else to do, two workers' rate is at most twice one's times the ratio of these. Medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from itertools import islice
from pathlib import Path

from batch import processor_s
from ray.cluster_utils import Cluster

from dimml.system.outbound import set_quiet_defaults
from dimml_client.scoring.engines.ray import RayEngine
from dimml_client.scoring.engines.ray_start import cloud_not_asked
from dimml_client.scoring.inputs.listing import list_inputs
from dimml_client.scoring.recording import Recording


def measure(engine: RayEngine, recordings: list[Recording]) -> tuple[float, float, float]:
    """Recordings per second once rows come, seconds of all of it, and the processor's milliseconds for a recording."""
    began = time.perf_counter()
    arrived: list[float] = []
    cpu_s = 0.0
    with engine:
        for number, _ in enumerate(engine.score(recordings)):
            if number == 0:
                cpu_s = processor_s()
            arrived.append(time.perf_counter())
        cpu_s = processor_s() - cpu_s
    assert len(arrived) == len(recordings)
    # Rows come in batches: the first one's are those that come at once.
    first = next(n for n, at in enumerate(arrived) if at - arrived[0] > 0.05)
    after = len(arrived) - first
    return after / (arrived[-1] - arrived[first - 1]), time.perf_counter() - began, 1000.0 * cpu_s / after


def main() -> None:
    set_quiet_defaults()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest")
    parser.add_argument("--repository", type=Path, required=True)
    parser.add_argument("--recordings", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    listing = list_inputs([arguments.manifest], {}, None)
    recordings = list(islice(listing.recordings(), arguments.recordings))
    with cloud_not_asked():
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    found: dict[int, list[tuple[float, float, float]]] = {1: [], 2: []}
    for _ in range(arguments.repeats):
        for workers, rates in found.items():
            rates.append(measure(RayEngine(arguments.repository, address=cluster.address, workers=workers), recordings))
    cluster.shutdown()
    medians = {
        workers: [statistics.median(column) for column in zip(*rows, strict=True)] for workers, rows in found.items()
    }
    for workers, rows in found.items():
        rates, seconds, _ = ([round(value, 1) for value in column] for column in zip(*rows, strict=True))
        print(
            f"{workers} workers: {medians[workers][0]:6.1f} recordings/s   {rates}, whole runs {seconds} s, "
            f"{medians[workers][2]:.1f} ms of a processor each"
        )
    print(f"two against one, by the clock: {medians[2][0] / medians[1][0]:.2f}")
    print(f"two against one, at most, by the processor: {2.0 * medians[1][2] / medians[2][2]:.2f}")


if __name__ == "__main__":
    main()
