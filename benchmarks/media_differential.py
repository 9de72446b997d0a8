"""Hold the pictures and sounds that dimml takes at random times of random files against the ffmpeg program.

    python benchmarks/media_differential.py [--files 150] [--times 16] [--seed 0] [--out docs/media_differential.md]

Every file is made by the ffmpeg program with a container, codecs, rate of pictures, length of a group of pictures,
number of B-pictures, offset between sound and picture, order of streams and cut (an edit list, where the container has
them) drawn at random. Pictures carry their number, the sound has a tone that begins at a known time. A pair is a file
and a time: the picture on screen then is the last one that ffmpeg gives a time at or before it; the tone begins where
ffmpeg puts it, within 10 ms. Times within 2 ms of a change of picture are not drawn.

Prints each difference with what is needed to make it again, and a page of the results. Exit code: 0 without one, 1
with one, 2 where ffmpeg is missing.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from media_by_ffmpeg import (
    HEIGHT,
    NOT_CHECKED,
    RATE_HZ,
    SECONDS,
    TONE_HZ,
    WIDTH,
    number_of,
    onset_of,
    picture,
    run_ffmpeg,
    shown_by_ffmpeg,
    sound,
    tone_by_ffmpeg,
)

from dimml.errors import DimmlError
from dimml.media import DecodedTrack, DecodeRequest, decode
from dimml.modality import Frames, Modality, Waveform

SOUND: Final = Waveform(name="audio", sample_rate_hz=16_000, samples=16_000)
PICTURE: Final = Frames(name="visual", frames=1, height=HEIGHT, width=WIDTH)
MARGIN_S, OFFSET_S = 0.002, 0.010
#: Containers with the codecs that they take; the first of sound is the commonest.
CONTAINERS: Final = {
    "mp4": (("libx264", "libx265", "mpeg4", "libaom-av1"), ("aac", "libmp3lame", "libopus")),
    "mov": (("libx264", "mjpeg", "prores_ks"), ("aac", "pcm_s16le", "alac")),
    "mkv": (("libx264", "libvpx", "ffv1", "libx265"), ("libopus", "flac", "libvorbis", "aac")),
    "webm": (("libvpx", "libvpx-vp9"), ("libopus", "libvorbis")),
    "avi": (("mpeg4", "mjpeg"), ("libmp3lame", "pcm_s16le", "ac3")),
    "flv": (("libx264", "flv"), ("aac", "libmp3lame")),
    "ts": (("libx264", "mpeg2video"), ("aac", "mp2", "ac3")),
    "fragmented.mp4": (("libx264",), ("aac",)),
}
#: Whose stamps are whole milliseconds or coarser, so that an offset is exact to that only.
_HAS_OFFSETS: Final = ("mp4", "mov", "mkv", "webm", "ts", "fragmented.mp4")
_QUALITY: Final = {
    "libx264": ["-crf", "14"], "libx265": ["-crf", "14", "-x265-params", "log-level=none"],
    "libaom-av1": ["-crf", "20", "-cpu-used", "8", "-usage", "realtime"], "libvpx": ["-b:v", "4M", "-crf", "4"],
    "libvpx-vp9": ["-b:v", "0", "-crf", "12", "-deadline", "realtime", "-cpu-used", "8"],
    "mjpeg": ["-q:v", "2", "-strict", "unofficial"],
}  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """How one file is made."""

    ending: str
    video: str
    audio: str
    rate: int
    group: int
    b_pictures: int
    offset_s: float
    sound_first: bool
    cut_s: float

    def make(self, folder: Path) -> Path:
        """Write the file. Raises CalledProcessError."""
        count = int(SECONDS * self.rate)
        (folder / "pictures.rgb").write_bytes(b"".join(picture(n % 128).tobytes() for n in range(count)))
        (folder / "sound.f32").write_bytes(sound().tobytes())
        path = folder / f"file.{self.ending}"
        muxer = ["-movflags", "frag_keyframe+empty_moov"] if self.ending.startswith("fragmented") else []
        b_pictures = ["-bf", str(self.b_pictures)] if self.video in {"libx264", "mpeg4", "mpeg2video"} else []
        whole = path if not self.cut_s else folder / f"whole.{self.ending}"
        run_ffmpeg(
            *("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{WIDTH}x{HEIGHT}", "-r", str(self.rate)),
            *("-i", str(folder / "pictures.rgb"), "-f", "f32le", "-ar", str(RATE_HZ), "-ac", "1"),
            *("-i", str(folder / "sound.f32")),
            *("-vf", f"setpts=PTS+{max(0.0, self.offset_s):.3f}/TB"),
            *("-af", f"asetpts=PTS+{max(0.0, -self.offset_s):.3f}/TB"),
            *(("-map", "1:a", "-map", "0:v") if self.sound_first else ("-map", "0:v", "-map", "1:a")),
            *("-c:v", self.video, "-g", str(self.group), *b_pictures, *_QUALITY.get(self.video, ["-q:v", "2"])),
            *(
                "-pix_fmt",
                "yuvj420p" if self.video == "mjpeg" else "yuv422p10" if "prores" in self.video else "yuv420p",
            ),
            *("-fps_mode", "passthrough", "-c:a", self.audio, *muxer, str(whole)),
        )
        if self.cut_s:
            run_ffmpeg("-ss", f"{self.cut_s:.3f}", "-i", str(whole), "-map", "0", "-c", "copy", *muxer, str(path))
        return path


def draw(random_: random.Random) -> Recipe:
    """A recipe at random."""
    ending = random_.choice(list(CONTAINERS))
    videos, audios = CONTAINERS[ending]
    offset_s = random_.choice((0.0, 0.0, 0.04, 0.173, -0.25, -0.611)) if ending in _HAS_OFFSETS else 0.0
    return Recipe(
        ending=ending,
        video=random_.choice(videos),
        audio=random_.choice(audios),
        rate=random_.choice((10, 15, 24, 25, 30, 40)),
        group=random_.choice((1, 5, 12, 50, 250)),
        b_pictures=random_.choice((0, 1, 3)),
        offset_s=offset_s,
        sound_first=random_.random() < 0.5,
        cut_s=random_.choice((0.0, 0.0, 0.5, 0.777)) if ending in {"mp4", "mov"} and not offset_s else 0.0,
    )


def decoded(modality: Modality, path: Path, start_s: float, seconds: float) -> DecodedTrack | str:
    """The track of ``seconds`` of a file, or the error that there is instead."""
    request = DecodeRequest((modality,), {modality.name: path}, seconds, start_s=start_s, end_s=start_s + seconds)
    try:
        return decode(request).tracks[modality.name]
    except DimmlError as error:
        return error.message


def compare_pictures(
    path: Path, shown: Sequence[tuple[float, int]], times: int, random_: random.Random
) -> tuple[int, list[str]]:
    """Pairs looked at, and the differences."""
    first, last = shown[0][0], shown[-1][0] + 0.02
    pairs, faults = 0, []
    for _ in range(times):
        at = random_.uniform(max(first, 0.0) + MARGIN_S, last)
        if any(abs(begin - at) < MARGIN_S for begin, _ in shown):
            continue
        expected = [number for begin, number in shown if begin <= at][-1]
        pairs += 1
        track = decoded(PICTURE, path, at - 0.0005, 0.001)
        if isinstance(track, str) or track.row is None:
            why = track if isinstance(track, str) else track.status
            faults.append(f"picture at {at:.4f} s: {why}, ffmpeg shows {expected}")
        elif (got := number_of(track.row[0].astype(np.float64))) != expected:
            faults.append(f"picture at {at:.4f} s: {got} at {track.times_s[0]:.4f} s, ffmpeg shows {expected}")
    return pairs, faults


def compare_sound(path: Path, times: int, random_: random.Random) -> tuple[int, list[str]]:
    """Pairs looked at, and the differences: the tone's beginning in windows of a second around it."""
    tone_s = tone_by_ffmpeg(path)
    pairs, faults = 0, []
    for _ in range(times):
        start = random_.uniform(max(0.0, tone_s - 0.8), max(0.0, tone_s - 0.2))
        pairs += 1
        track = decoded(SOUND, path, start, 1.0)
        if isinstance(track, str) or track.row is None:
            faults.append(f"sound from {start:.4f} s: {track if isinstance(track, str) else track.status}")
            continue
        heard = start + onset_of(track.row, 16_000) / 16_000
        if abs(heard - tone_s) > OFFSET_S:
            faults.append(f"sound from {start:.4f} s: the {TONE_HZ:g} Hz begin at {heard:.4f}, {tone_s:.4f} is right")
    return pairs, faults


def page(given: argparse.Namespace, files: Counter[str], pairs: Counter[str], differing: Sequence[str]) -> str:
    """The results as a page in Markdown: counts, then each difference."""
    ffmpeg = run_ffmpeg("-version").stdout.decode().split()[2]
    command = f"python benchmarks/media_differential.py --files {given.files} --times {given.times} --seed {given.seed}"
    lines = [
        "# dimml against the ffmpeg program, at random times of random files",
        f"`{command} --out docs/media_differential.md` makes this page.",
        f"Files made by ffmpeg {ffmpeg} with containers, codecs, picture rates, groups of pictures, B-pictures,",
        "offsets, orders of streams and edit lists drawn at random; a pair is a file and a time. A picture is right if",
        "it is the last one that ffmpeg gives a time at or before that time, a sound if its tone begins within",
        f"{1000 * OFFSET_S:g} ms of where ffmpeg puts it.",
        "",
        f"**{files.total()} files, {pairs.total()} pairs ({pairs['pictures']} of pictures and {pairs['sounds']}",
        f"of sounds): {len(differing)} differences.**",
        "",
        "| container | files |",
        "|---|---|",
        *(f"| {ending} | {count} |" for ending, count in sorted(files.items())),
    ]
    if differing:
        lines += ["", "## Differences", *(f"- {line}" for line in differing)]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the files and compare; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=150)
    parser.add_argument("--times", type=int, default=16, help="times of each file, for pictures; a quarter for sound")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the page to this file as well")
    given = parser.parse_args(arguments)
    if shutil.which("ffmpeg") is None or shutil.which("ffprobe") is None:
        print("ffmpeg and ffprobe are not there: install Debian's package ffmpeg", file=sys.stderr)
        return NOT_CHECKED
    random_ = random.Random(given.seed)
    pairs: Counter[str] = Counter()
    differing: list[str] = []
    files: Counter[str] = Counter()
    for _ in range(given.files):
        recipe = draw(random_)
        with tempfile.TemporaryDirectory() as temporary:
            try:
                path = recipe.make(Path(temporary))
            except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
                print(
                    f"ffmpeg cannot make {recipe}: {(error.stderr or b'').decode(errors='replace')[-200:]}", flush=True
                )
                continue
            files[recipe.ending] += 1
            shown = sorted(shown_by_ffmpeg(path))
            pictures, faults = compare_pictures(path, shown, given.times, random_)
            sounds, more = compare_sound(path, max(1, given.times // 4), random_)
        pairs["pictures"] += pictures
        pairs["sounds"] += sounds
        for fault in faults + more:
            differing.append(f"{recipe}: {fault}")
            print(differing[-1], flush=True)
    text = page(given, files, pairs, differing)
    print(text)
    if given.out is not None:
        given.out.write_text(text, encoding="utf-8")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
