"""Kill `dimml score` at random moments, go on each time, and hold the table to an uninterrupted run's.

    python scripts/kill_score.py --kills 10 -- INPUTS… --repository MODELS [--engine ray]

Rows, labels, statuses and error codes must be equal, numbers within 1e-5, timing columns aside; exits 1 otherwise.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq
from table_difference import difference

#: ``dimml`` with a part for every few rows, so that much happens between two kills.
SMALL_PARTS = (
    "import sys; import dimml_client.scoring.run.checkpoint as p; p.ROWS_PER_PART = 5; "
    "from dimml.cli import main; sys.exit(main(sys.argv[1:]))"
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("words", nargs="+", help="what comes after `dimml score`, without --out")
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)  # noqa: S311  # moments, not secrets
    with tempfile.TemporaryDirectory(prefix="dimml-kill-") as folder:
        whole, out = Path(folder) / "whole.parquet", Path(folder) / "killed.parquet"
        command = [sys.executable, "-c", SMALL_PARTS, "score", *arguments.words, "-q", "--fail-on", "never", "--out"]
        began = time.monotonic()
        subprocess.run([*command, str(whole)], check=True)
        took_s = time.monotonic() - began
        kills, differences = 0, ""
        while kills < arguments.kills and not differences:
            if out.exists():
                differences = _differences(whole, out)
                out.unlink()
            process = subprocess.Popen([*command, str(out)], start_new_session=True)
            try:
                process.wait(draw.uniform(0.3, 0.9) * took_s)
            except subprocess.TimeoutExpired:
                # The whole group: Ray's own processes are killed as well.
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                kills += 1
        subprocess.run([*command, str(out)], check=True)
        differences = differences or _differences(whole, out)
    print(f"{kills} kills: {differences or 'the same table'}")
    return int(bool(differences))


def _differences(whole: Path, out: Path) -> str:
    return difference(pq.read_table(whole).to_pylist(), pq.read_table(out).to_pylist())


if __name__ == "__main__":
    sys.exit(main())
