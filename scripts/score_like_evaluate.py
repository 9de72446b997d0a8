"""Score every clip of a trained run with its bundle, and hold labels and probabilities to `dimml evaluate`'s.

    python scripts/score_like_evaluate.py runs/grid_digit --repository bundles

`dimml evaluate --predictions` of the three splits writes what torch says and is the manifest of `dimml score`. Exits 1
where a label differs.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

SPLITS = ("train", "validation", "test")


def dimml(*words: str | Path, codes: tuple[int, ...] = (0,)) -> None:
    done = subprocess.run([sys.executable, "-m", "dimml", *map(str, words)], stdout=subprocess.DEVNULL, check=False)
    if done.returncode not in codes:
        raise SystemExit(f"dimml {words[0]} ended with {done.returncode}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--repository", type=Path, required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dimml-like-") as folder:
        manifests = [Path(folder) / f"{split}.csv" for split in SPLITS]
        for split, manifest in zip(SPLITS, manifests, strict=True):
            dimml("evaluate", arguments.run, "--split", split, "--predictions", manifest)
        out = Path(folder) / "scores.parquet"
        dimml("score", *manifests, "--repository", arguments.repository, "--out", out, codes=(0, 3))
        wanted = [row for manifest in manifests for row in pa_csv.read_csv(manifest).to_pylist()]
        found = pq.read_table(out).to_pylist()
    columns = [name for name in found[0] if name.startswith("probability_")]
    pairs = list(zip(wanted, found, strict=True))
    differ = sum(one["predicted"] != other["label"] for one, other in pairs)
    gap = max(abs(one[name] - other[name]) for one, other in pairs if other["label"] for name in columns)
    right = sum(other["label"] == other["truth"] for _, other in pairs)
    print(f"{len(found)} clips: {differ} labels differ; largest difference of a probability {gap:.1e}; {right} right")
    return int(differ > 0)


if __name__ == "__main__":
    sys.exit(main())
