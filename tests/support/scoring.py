"""``dimml score`` as a process, and what its table holds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from dimml.cli import main
from support.data import REPOSITORY_ROOT

REPOSITORY, SAMPLES = REPOSITORY_ROOT / "model_repository", REPOSITORY_ROOT / "samples"
LIMIT_S = 280.0
#: A part for every two rows instead of every 20 000, so that a short run can be killed between parts.
SMALL_PARTS = "from dimml_client.scoring import parts; parts.ROWS_PER_PART = 2; from dimml.cli import run; run()"
#: What differs between two runs over the same inputs.
TIMING = "ms"


def score(*words: str | Path, repository: Path = REPOSITORY, cwd: Path | None = None) -> Any:
    """Run it to its end; a ``subprocess.CompletedProcess`` of text."""
    command = [sys.executable, "-m", "dimml", "score", *map(str, words), "--repository", str(repository)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, timeout=LIMIT_S)


def score_here(*words: str | Path) -> int:
    """Run it in this process, where it ends before it scores anything; the exit code."""
    return main(["score", *map(str, words), "--repository", str(REPOSITORY)])


def start_with_small_parts(*words: str | Path) -> subprocess.Popen[str]:
    """Start it, and leave it to the caller."""
    command = [sys.executable, "-c", SMALL_PARTS, "score", *map(str, words), "--repository", str(REPOSITORY)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def rows_of(table: Path) -> list[dict[str, Any]]:
    """The rows of a Parquet table, read by pyarrow."""
    rows: list[dict[str, Any]] = pq.read_table(table).to_pylist()
    return rows


def assert_same_rows(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """Equal but for timing, floats within 1e-5: the make-up of batches moves last bits."""
    assert [row["id"] for row in found] == [row["id"] for row in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name in one.keys() - {TIMING}:
            if isinstance(one[name], float) and isinstance(other[name], float):
                assert abs(one[name] - other[name]) <= 1e-5, (one["id"], name)
            else:
                assert one[name] == other[name], (one["id"], name)
