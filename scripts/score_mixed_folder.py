"""Score a folder of 500 good recordings and 100 bad ones, ten of every kind, and look at every row.

    python scripts/score_mixed_folder.py CLIPS --repository MODELS

Good ones are links to the files of the folder CLIPS. There must be 600 rows in order, an answer for each good one, the
right error code for each bad one, and exit code 3; exits 1 otherwise.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import wave
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq

GOOD, EACH = 500, 10


def silence(path: Path, seconds: int) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(bytes(2 * 16_000 * seconds))


def make_bad(folder: Path, number: int, good: bytes) -> dict[Path, str]:
    """One of every kind, with the code that its row must have."""
    wanted = {
        "empty.mp4": "unusable_media",
        "text.mp4": "unusable_media",
        "cut.mp4": "unusable_media",
        "zeros.mp4": "unusable_media",
        "archive.zip": "unreadable",
        "zero_length.wav": "unusable_media",
        "silent.wav": "unusable_media",
        "too_long.wav": "too_large",
        "gone.mp4": "unreadable",
        "pipe.mp4": "unreadable",
    }
    paths = {name: folder / f"bad_{number}_{name}" for name in wanted}
    paths["empty.mp4"].write_bytes(b"")
    paths["text.mp4"].write_bytes(b"this is no recording\n" * 500)
    paths["cut.mp4"].write_bytes(good[: 100 * (number + 1)])
    paths["zeros.mp4"].write_bytes(bytes(len(good)))
    paths["archive.zip"].write_bytes(b"PK\x03\x04" + good)
    silence(paths["zero_length.wav"], 0)
    silence(paths["silent.wav"], 2)
    silence(paths["too_long.wav"], 121 + number)
    paths["gone.mp4"].symlink_to("nowhere")
    os.mkfifo(paths["pipe.mp4"])
    return {paths[name]: code for name, code in wanted.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--repository", type=Path, required=True)
    arguments = parser.parse_args()
    clips = sorted(path.resolve() for path in arguments.clips.iterdir())
    with tempfile.TemporaryDirectory(prefix="dimml-mixed-") as temporary:
        folder, out = Path(temporary) / "mixed", Path(temporary) / "scores.parquet"
        folder.mkdir()
        wanted: dict[Path, str | None] = {}
        for number, clip in zip(range(GOOD), itertools.cycle(clips)):
            path = folder / f"{number % 7}_{number:03d}{clip.suffix}"
            path.symlink_to(clip)
            wanted[path] = None
        for number in range(EACH):
            wanted.update(make_bad(folder, number, clips[0].read_bytes()))
        words = ["score", str(folder), "--repository", str(arguments.repository), "--out", str(out)]
        done = subprocess.run([sys.executable, "-m", "dimml", *words], check=False)
        rows = pq.read_table(out).to_pylist()
    in_order = [row["path"] for row in rows] == sorted(map(str, wanted))
    wrong = [f"{row['path']}: {row['error']}" for row in rows if row["error"] != wanted[Path(row["path"])]]
    codes = dict(Counter(row["error"] or "answered" for row in rows))
    print(f"{len(rows)} rows, in order: {in_order}; {codes}; wrong: {wrong or 'none'}; exit code {done.returncode}")
    return int(bool(wrong) or not in_order or len(rows) != GOOD + 10 * EACH or done.returncode != 3)


if __name__ == "__main__":
    sys.exit(main())
