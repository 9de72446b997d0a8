"""Peak memory and rate of `dimml score --window` over one long recording, made by repeating clips.

    python benchmarks/timeline.py CLIPS/*.mp4 --repository MODELS --seconds 7200 --window 3 --stride 1 --keep FOLDER

The clips, which must be coded alike, are copied one after another into an MP4, packet by packet. In its
second sixth every clip shows its first picture alone, and its fourth sixth has no sound, so that a plot has something
to show. Memory is the sum of the resident sets
of the command and all processes below it, looked at every 0.2 s: pages that they share are counted for each.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import av
import pyarrow.parquet as pq

LOOK_S = 0.2


def long_recording(clips: list[Path], seconds: float, out: Path) -> Path:
    """Clips one after another until there are so many seconds."""
    with av.open(str(out), "w") as target, av.open(str(clips[0])) as first:
        streams = {s.type: target.add_stream_from_template(s) for s in first.streams if s.type in ("audio", "video")}
        extradata = {s.type: s.codec_context.extradata for s in first.streams}
        at_s = 0.0
        for clip in itertools.cycle(clips):
            if at_s >= seconds:
                break
            sixth = int(6.0 * at_s / seconds)
            with av.open(str(clip)) as source:
                if any(s.codec_context.extradata != extradata[s.type] for s in source.streams):
                    raise SystemExit(f"{clip} is coded in another way than {clips[0]}")
                # A coder's run-in would lie in the clip before.
                packets = [p for p in source.demux() if p.dts is not None and p.pts >= 0]
                sound = [packet for packet in packets if packet.stream.type == "audio"]
                pictures = [packet for packet in packets if packet.stream.type == "video"]
                end_s = at_s + max(float((p.pts + p.duration) * p.time_base) for p in packets)
                if sixth == 1:
                    pictures = frozen(pictures)
                for kind, ones in (("video", pictures), ("audio", sound if sixth != 3 else [])):
                    for packet in ones:
                        shift = round(at_s / packet.time_base)
                        packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                        packet.stream = streams[kind]
                        target.mux(packet)
            at_s = end_s
    return out


def frozen(pictures: list[Any]) -> list[Any]:
    """The first picture, which is a key frame, at every picture's time."""
    found = []
    for packet, pts in zip(pictures, sorted(one.pts for one in pictures), strict=True):
        again = av.Packet(bytes(pictures[0]))
        again.pts, again.dts = pts, packet.dts
        again.duration, again.time_base, again.is_keyframe = packet.duration, packet.time_base, True
        found.append(again)
    return found


def resident_bytes(root: int) -> int:
    """Of a process and all below it."""
    parents: dict[int, int] = {}
    pages: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            pages[int(folder.name)] = int((folder / "statm").read_text().split()[1])
        except OSError:
            continue
    ours = {root}
    while more := {pid for pid, parent in parents.items() if parent in ours} - ours:
        ours |= more
    return sum(pages.get(pid, 0) for pid in ours) * os.sysconf("SC_PAGE_SIZE")


def watched(command: list[str]) -> tuple[int, float]:
    """Peak bytes and seconds of a command."""
    began, peak = time.perf_counter(), 0
    process = subprocess.Popen(command)
    while process.poll() is None:
        peak = max(peak, resident_bytes(process.pid))
        time.sleep(LOOK_S)
    if process.returncode not in (0, 3):
        raise SystemExit(f"dimml score ended with {process.returncode}")
    return peak, time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--repository", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=7200.0)
    parser.add_argument("--window", default="3")
    parser.add_argument("--stride", default="1")
    parser.add_argument("--keep", type=Path, help="a folder for the recording and its timeline")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dimml-timeline-") as temporary:
        folder = arguments.keep or Path(temporary)
        recording, out = folder / "long.mp4", folder / "timeline.parquet"
        long_recording(arguments.clips, arguments.seconds, recording)
        words: list[Any] = [
            "score",
            recording,
            "--repository",
            arguments.repository,
            "--out",
            out,
            "--aggregate",
            "mean",
        ]
        words += ["--window", arguments.window, "--stride", arguments.stride]
        peak, took_s = watched([sys.executable, "-m", "dimml", *map(str, words)])
        rows = pq.read_table(out, columns=["kind", "end_s", "error", "audio_status", "visual_status"]).to_pylist()
    media_s = max(row["end_s"] for row in rows)
    print(f"{media_s:.0f} s of media, {counted(rows)}; peak {peak / 2**20:.0f} MiB in all processes")
    print(f"{took_s:.1f} s: {media_s / took_s:.0f} seconds of media a second, start-up included")


def counted(rows: list[dict[str, Any]]) -> str:
    """Rows by kind and by what was alive in them."""
    counts: dict[str, int] = {}
    for row in rows:
        name = f"{row['kind']} audio {row['audio_status']} visual {row['visual_status']} {row['error'] or 'answered'}"
        counts[name] = counts.get(name, 0) + 1
    return "; ".join(f"{count} x {name}" for name, count in sorted(counts.items()))


if __name__ == "__main__":
    main()
