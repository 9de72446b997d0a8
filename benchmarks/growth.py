"""How processor time and memory of decoding grow with a recording's length and the number of modalities.

    python benchmarks/growth.py --out growth.md --plot growth.svg

Makes recordings of 3, 30 and 300 s (360x288 at 25 pictures per second in H.264, sound of 16 kHz in AAC) and decodes
each in fresh processes, for one modality (sound), two (and 8 frames of 96x96) and three (and 8 of flow). Of each the
middle 3 s are read, as a request gets them, and all of it in windows of 3 s, as ``dimml score --window 3`` does. Memory
is what a process's peak grows by over its peak after the first second of the shortest recording. Medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness.report import Page, machine, table

LENGTHS_S = (3, 30, 300)
MODALITIES = ("sound", "sound, pictures", "sound, pictures, flow")
WAYS = {"window": "the middle 3 s", "windows": "all of it, in windows of 3 s"}

_PROGRAM = """
import json, resource, sys, time
from pathlib import Path
from dimml.media import DecodeRequest, decode
from dimml.media.decoders.windows import WindowPlan, decode_windows
from dimml.media.types import MediaLimits
from dimml.modality import Flow, Frames, Waveform
way, count, path, warm = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])
used = (
    Waveform(name="audio", sample_rate_hz=16_000, samples=48_000),
    Frames(name="visual", frames=8, height=96, width=96),
    Flow(name="motion", frames=8, height=96, width=96),
)[:count]
def request(path, **options):
    limits = MediaLimits(max_seconds=3600.0, max_frames_decoded=10**6)
    return DecodeRequest(used, {m.name: path for m in used}, clip_s=3.0, limits=limits, **options)
def peak():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
decode(request(warm, start_s=0.0, end_s=1.0))
before, began = peak(), time.process_time()
if way == "window":
    decode(request(path))
else:
    for _ in decode_windows(request(path), WindowPlan(3.0, 3.0)):
        pass
print(json.dumps([time.process_time() - began, peak() - before]))
"""


def write_recording(path: Path, seconds: int) -> Path:
    """A moving pattern with noise, and a tone that changes: neither compresses to nothing."""
    rate_hz, fps, width, height = 16_000, 25, 360, 288
    noise = np.random.default_rng(0).normal(0, 6, (8, height, width))
    y, x = np.mgrid[0:height, 0:width]
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=fps, options={"crf": "26", "preset": "veryfast"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        audio = container.add_stream("aac", rate=rate_hz, layout="mono")
        for number in range(seconds * fps):
            grey = (x + 3 * number + 40 * np.sin(y / 9 + number / 5)) % 256 + noise[number % 8]
            rgb = np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
            container.mux(video.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
            at = number * rate_hz // fps
            t = (at + np.arange(rate_hz // fps)) / rate_hz
            sound = (0.3 * np.sin(2 * np.pi * (400 + 30 * (number % 50)) * t)).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = rate_hz, at, Fraction(1, rate_hz)
            container.mux(audio.encode(frame))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))
    return path


def measure(way: str, count: int, path: Path, warm: Path) -> tuple[float, int]:
    """Processor seconds and bytes of memory of one decode in a process of its own."""
    command = [sys.executable, "-c", _PROGRAM, way, str(count), str(path), str(warm)]
    seconds, memory = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return float(seconds), int(memory)


def draw(found: dict[tuple[str, int, int], tuple[float, float]], path: Path) -> None:
    """Processor time and memory by length, a line for each way and number of modalities."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "dimml"
    from matplotlib import pyplot

    # One above the other: at a telephone's width the words can still be read.
    figure, axes = pyplot.subplots(2, 1, figsize=(4.6, 7.2), layout="constrained", sharex=True)
    colours = ("#1b6ca8", "#d1495b", "#3a7d44")
    for axis, place, unit, title in ((axes[0], 0, 1e3, "processor time, ms"), (axes[1], 1, 1 / 2**20, "memory, MB")):
        for way, style in (("window", "o-"), ("windows", "s--")):
            for count, colour in enumerate(colours, 1):
                values = [max(unit * found[way, count, s][place], 0.1) for s in LENGTHS_S]
                axis.plot(
                    LENGTHS_S, values, style, color=colour, markersize=4, label=f"{MODALITIES[count - 1]}: {WAYS[way]}"
                )
        axis.set(xscale="log", yscale="log", title=title)
        axis.set_xticks(LENGTHS_S, [str(s) for s in LENGTHS_S])
        axis.grid(visible=True, color="#dddddd", linewidth=0.6)
    axes[1].set_xlabel("length of the recording, s")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower left", frameon=False, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def main() -> None:
    """Measure, print the table, draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write the table to this file as well")
    parser.add_argument("--plot", type=Path, help="draw the plot into this file (.svg, .png)")
    given = parser.parse_args()
    found: dict[tuple[str, int, int], tuple[float, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        files = {seconds: write_recording(Path(folder) / f"{seconds}.mp4", seconds) for seconds in LENGTHS_S}
        runs: dict[tuple[str, int, int], list[tuple[float, int]]] = {}
        for _ in range(given.rounds):
            for way in WAYS:
                for count in range(1, 4):
                    for seconds, path in files.items():
                        runs.setdefault((way, count, seconds), []).append(
                            measure(way, count, path, files[LENGTHS_S[0]])
                        )
    for case, of_case in runs.items():
        seconds_s, memory = zip(*of_case, strict=True)
        found[case] = statistics.median(seconds_s), statistics.median(memory)
    page = Page(given.out)
    page.add(machine())
    rows: list[list[Any]] = []
    for way, words in WAYS.items():
        for count, modalities in enumerate(MODALITIES, 1):
            cells = [found[way, count, seconds] for seconds in LENGTHS_S]
            figures = [f"{1e3 * s:.0f} ms, {memory / 2**20:.0f} MB" for s, memory in cells]
            rows.append([words, modalities, *figures])
    page.add(table(["read", "modalities", *(f"{seconds} s" for seconds in LENGTHS_S)], rows))
    if given.plot is not None:
        draw(found, given.plot)


if __name__ == "__main__":
    main()
