"""Processor time of decoding a folder's recordings, by two checkouts in turn.

    git worktree add ../before COMMIT
    python benchmarks/decoding.py ../before . --clips FOLDER

In each round each checkout's own process, both run by this Python, decodes every recording once to warm up and then
measures a pass over all of them; which one is first alternates. Rows are for pictures of 96x96 and sound of 16 kHz.
Prints the medians and the ratio with its bootstrap interval, and how many rows are equal; exit code 1 where the upper
end of the interval is above ``--limit``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness.clips import default_clips
from harness.ratios import ratio
from harness.report import machine

_PROGRAM = """
import hashlib, sys, time
from pathlib import Path
from dimml.media import DecodeRequest, decode
from dimml.modality import Frames, Waveform
both = (
    Frames(name="visual", frames=8, height=96, width=96),
    Waveform(name="audio", sample_rate_hz=16_000, samples=48_000),
)
requests = [DecodeRequest(modalities=both, sources={m.name: Path(p) for m in both}, clip_s=3.0) for p in sys.argv[1:]]
for request in requests:
    decode(request)
began = time.process_time()
decoded = [decode(request) for request in requests]
print((time.process_time() - began) / len(requests))
for one in decoded:
    rows = b"".join(b"" if track.row is None else track.row.tobytes() for track in one.tracks.values())
    print(hashlib.sha256(rows).hexdigest())
"""


def run(checkout: Path, clips: list[Path]) -> tuple[float, list[str]]:
    """Seconds of processor time a recording, and the hash of each one's rows."""
    environment = os.environ | {"PYTHONPATH": str(checkout.resolve() / "core"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", _PROGRAM, *map(str, clips)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True,
    )  # fmt: skip
    seconds, *hashes = done.stdout.split()
    return float(seconds), hashes


def main() -> int:
    """Run the rounds, print the result, return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--clips", type=Path, default=default_clips(), help="folder of .mp4 files")
    parser.add_argument("--count", type=int, default=40, help="recordings of it, by name (40)")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--limit", type=float, default=1.05)
    arguments = parser.parse_args()
    clips = sorted(arguments.clips.resolve().glob("*.mp4"))[: arguments.count]
    if not clips:
        parser.error(f"{arguments.clips} holds no .mp4 files: name a folder of recordings with --clips")
    pairs: list[tuple[float, float]] = []
    equal = 0
    for number in range(arguments.rounds):
        order = [arguments.before, arguments.after][:: -1 if number % 2 else 1]
        found = {checkout: run(checkout, clips) for checkout in order}
        (first, rows), (second, others) = found[arguments.before], found[arguments.after]
        pairs.append((first, second))
        equal = sum(one == other for one, other in zip(rows, others, strict=True))
    of = ratio(pairs)
    before, after = (1e3 * statistics.median(values) for values in zip(*pairs, strict=True))
    print(machine())
    print(
        f"{len(clips)} recordings, {len(pairs)} rounds: {before:.2f} ms before, {after:.2f} ms after a recording; {of}"
    )
    print(f"equal rows: {equal} of {len(clips)} recordings")
    return int(of.high > arguments.limit)


if __name__ == "__main__":
    sys.exit(main())
