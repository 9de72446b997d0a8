"""``dimml score`` in this process or as one of its own, recordings for it, and what its table holds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from dimml.cli import main
from dimml_client.scoring.run.checkpoint import folder_of
from support.data import REPOSITORY_ROOT
from support.tiny_media import LABELS, tiny_clip
from support.waiting import wait_until

REPOSITORY, SAMPLES = REPOSITORY_ROOT / "model_repository", REPOSITORY_ROOT / "samples"
LIMIT_S = 280.0
#: ``dimml`` with a part for every few rows instead of every 20 000, so that much happens in a short run.
SMALL_PARTS = (
    "from dimml_client.scoring.run import checkpoint; checkpoint.ROWS_PER_PART = 3; from dimml.cli import run; run()"
)
#: What differs between two runs over the same inputs.
TIMING = "ms"

#: Good clips that ``mixed_folder`` makes; enough for several batches.
GOOD = 40
#: The error code of every bad recording in it.
BAD = {
    "cut.mp4": "unusable_media",
    "empty.mp4": "unusable_media",
    "gone.mp4": "unreadable",
    "long.wav": "too_large",
    "loop.mp4": "unreadable",
    "pipe.mp4": "unreadable",
    "silent.mp4": "unusable_media",
    "text.mp4": "unusable_media",
    "wrong_kind.zip": "unreadable",
    "zero_length.wav": "unusable_media",
}


def mixed_folder(folder: Path, made: Path) -> Path:
    """Good clips whose name begins with their label, one of them without sound, one bad recording of every kind in a
    folder ``bad``, and what lies beside recordings and is none. ``made`` is a folder for what is on the way."""
    by_label = [tiny_clip(made, label) for label in range(3)]
    for number in range(GOOD):
        (folder / f"{LABELS[number % 3]}_{number:03d}.mp4").write_bytes(by_label[number % 3])
    (folder / "blue_without_sound.mp4").write_bytes(tiny_clip(made, 2, sound=None))
    bad = folder / "bad"
    bad.mkdir()
    (bad / "empty.mp4").write_bytes(b"")
    (bad / "text.mp4").write_bytes(b"this is no recording" * 50)
    (bad / "cut.mp4").write_bytes(by_label[0][:400])
    (bad / "long.wav").write_bytes(silent_wav(seconds=200))
    (bad / "zero_length.wav").write_bytes(silent_wav(seconds=0))
    (bad / "wrong_kind.zip").write_bytes(b"PK\x03\x04" + bytes(100))
    (bad / "silent.mp4").write_bytes(tiny_clip(made, 1, sound="silence", picture="black"))
    (bad / "gone.mp4").symlink_to("nowhere")
    (bad / "loop.mp4").symlink_to("loop.mp4")
    os.mkfifo(bad / "pipe.mp4")
    (folder / "notes.csv").write_text("not,a,recording\n")
    (folder / ".hidden.mp4").write_bytes(by_label[0])
    return folder


def silent_wav(seconds: int) -> bytes:
    """8 kHz, 8 bits, one channel."""
    size = 8000 * seconds
    head = b"RIFF" + (36 + size).to_bytes(4, "little") + b"WAVEfmt " + (16).to_bytes(4, "little")
    layout = b"\x01\x00\x01\x00" + (8000).to_bytes(4, "little") * 2 + b"\x01\x00\x08\x00"
    return head + layout + b"data" + size.to_bytes(4, "little") + b"\x80" * size


def score(*words: str | Path, repository: Path = REPOSITORY) -> int:
    """Run it in this process, on one core unless ``words`` say otherwise; the exit code.

    Each core is a decode worker, whose start takes longer than most of the runs.
    """
    return main(["score", "--cores", "1", *map(str, words), "--repository", str(repository)])


def command(*words: str | Path, repository: Path = REPOSITORY, before: str = "") -> list[str]:
    """It as a process with small parts, after some Python."""
    return [sys.executable, "-c", before + SMALL_PARTS, "score", *map(str, words), "--repository", str(repository)]


def finished(words: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=LIMIT_S)


def started(words: list[str], out: Path, parts: int) -> subprocess.Popen[str]:
    """Start a command, and come back when the table has so many parts, or the process has ended."""
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: len(parts_of(out)) >= parts or process.poll() is not None, 120.0, every_s=0.005)
    return process


def parts_of(out: Path) -> list[Path]:
    """Whole parts of a table that is not finished."""
    return sorted(folder_of(out).glob("part-*.parquet"))


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
