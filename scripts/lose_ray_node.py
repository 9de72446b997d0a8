"""Score on two Ray nodes, lose one in the middle, and hold the table to the local engine's.

    python scripts/lose_ray_node.py INPUTS… --repository MODELS

The nodes are Ray's own test cluster: two raylets of one core each on this machine, beside a head that runs nothing. One
of them, with its worker, is killed (SIGKILL) once some rows have come. Prints what it found; exits 1 where the tables
differ.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from ray.cluster_utils import Cluster
from table_difference import difference

from dimml.system.outbound import set_quiet_defaults
from dimml_client.scoring.engines.local import LocalEngine
from dimml_client.scoring.engines.ray import RayEngine
from dimml_client.scoring.engines.ray_start import cloud_not_asked
from dimml_client.scoring.inputs.listing import Listing, list_inputs
from dimml_client.scoring.run import checkpoint
from dimml_client.scoring.run.score_table import score_table

LIMIT_S = 600.0


def main() -> int:
    set_quiet_defaults()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", nargs="+")
    parser.add_argument("--repository", type=Path, required=True)
    arguments = parser.parse_args()
    listing = list_inputs(arguments.inputs, {}, None)
    checkpoint.ROWS_PER_PART = max(1, len(listing) // 8)
    with cloud_not_asked():
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    cluster.wait_for_nodes()
    with tempfile.TemporaryDirectory(prefix="dimml-nodes-") as folder:
        whole, out = Path(folder) / "whole.parquet", Path(folder) / "lost.parquet"
        score_table(LocalEngine(arguments.repository, cores=2), listing, whole)
        report = _lose_one(cluster, nodes[-1], arguments.repository, listing, out)
        wanted, found = pq.read_table(whole).to_pylist(), pq.read_table(out).to_pylist()
    cluster.shutdown()
    differences = difference(wanted, found)
    print(f"{report}; {len(found)} rows: {differences or 'the same table'}")
    return int(bool(differences))


def _lose_one(cluster: Cluster, node: Any, repository: Path, listing: Listing, out: Path) -> str:
    killed: list[int] = []

    def kill() -> None:
        end = time.monotonic() + LIMIT_S
        while not (whole_parts := list(checkpoint.folder_of(out).glob("part-*.parquet"))) and time.monotonic() < end:
            time.sleep(0.005)
        rows = sum(pq.read_metadata(path).num_rows for path in whole_parts)
        cluster.remove_node(node, allow_graceful=False)
        killed.append(rows)

    thread = threading.Thread(target=kill)
    thread.start()
    score_table(RayEngine(repository, address=cluster.address, workers=2), listing, out)
    at_end = bool(killed)
    thread.join()
    if not at_end:
        raise SystemExit("the run was over before the node was lost: give more inputs")
    return f"a node of two lost after {killed[0]} rows of whole parts"


if __name__ == "__main__":
    sys.exit(main())
