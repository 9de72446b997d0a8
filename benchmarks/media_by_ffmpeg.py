"""A clip of which every picture and the sound say when they are, and what the ffmpeg program makes of a file of it."""

from __future__ import annotations

import json
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

NOT_CHECKED: Final = 2
RATE_HZ, PICTURES, PER_S, SECONDS = 48_000, 75, 25, 3.0
WIDTH, HEIGHT, BITS, BAR = 128, 96, 7, 16
ONSET_S, TONE_HZ, LEVEL_DBFS = 1.0, 1000.0, -12.0


def picture(number: int) -> npt.NDArray[np.uint8]:
    """One picture, RGB: a colour above, its number in bars below, the highest bit first."""
    rgb = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    rgb[: HEIGHT // 2] = (180, 90, 60)
    for bit in range(BITS):
        rgb[HEIGHT // 2 :, bit * BAR : (bit + 1) * BAR] = 235 if number >> (BITS - 1 - bit) & 1 else 20
    return rgb


def sound() -> npt.NDArray[np.float32]:
    """Silence, then the tone."""
    times = np.arange(int(RATE_HZ * SECONDS)) / RATE_HZ
    tone = 10 ** (LEVEL_DBFS / 20) * np.sqrt(2.0) * np.sin(2 * np.pi * TONE_HZ * times)
    return np.where(times < ONSET_S, 0.0, tone).astype(np.float32)


def run_ffmpeg(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run the program quietly. Raises CalledProcessError, or TimeoutExpired after a minute."""
    return subprocess.run(
        ["ffmpeg", "-nostdin", "-y", "-loglevel", "error", *arguments], capture_output=True, check=True, timeout=60
    )


def probe(path: Path, *wanted: str) -> dict[str, Any]:
    """What ffprobe says of a file, as its JSON. Raises CalledProcessError."""
    command = ["ffprobe", "-v", "error", *wanted, "-of", "json", str(path)]
    found: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return found


def number_of(row: npt.NDArray[np.float64]) -> int:
    """Read the number that a picture carries."""
    bars = row[HEIGHT * 5 // 8 : HEIGHT * 7 // 8]
    number = 0
    for bit in range(BITS):
        number = number << 1 | int(bars[:, bit * BAR + 4 : (bit + 1) * BAR - 4].mean() > 128)
    return number


def start_of(path: Path) -> float:
    """When the file's clock begins, by ffprobe: with the earliest of its streams.

    What lies before 0 is a codec's lead-in, which no decoder plays.
    """
    streams = probe(path, "-show_entries", "stream=start_time")["streams"]
    return max(0.0, min((float(stream["start_time"]) for stream in streams if "start_time" in stream), default=0.0))


def by_ffmpeg(path: Path, track: str, *form: str) -> tuple[bytes, list[tuple[float, int]]]:
    """A track's decoded bytes, and of each packet of them the time from the start of the file and the bytes."""
    stamps = path.with_suffix(".stamps")
    whole = ("-map", f"0:{track}", "-fps_mode", "passthrough", "-enc_time_base", "-1")
    sizes = ("-c:a", "pcm_f32le") if track == "a" else ("-pix_fmt", "rgb24")
    raw = run_ffmpeg("-copyts", "-i", str(path), *whole, *form, "-", *whole, *sizes, "-f", "framecrc", str(stamps))
    lines = stamps.read_text().splitlines()
    base = next(Fraction(line.split()[-1]) for line in lines if line.startswith("#tb"))
    packets = [[int(word) for word in line.split(",")[2:5]] for line in lines if not line.startswith("#")]
    zero = start_of(path)
    return raw.stdout, [(float(begin * base) - zero, size) for begin, _, size in packets]


def shown_by_ffmpeg(path: Path) -> list[tuple[float, int]]:
    """When each picture begins, from the start of the file, and its number, in the order in which they are shown."""
    raw, packets = by_ffmpeg(path, "v", "-f", "rawvideo", "-pix_fmt", "rgb24")
    rgb = np.frombuffer(raw, np.uint8).reshape(-1, HEIGHT, WIDTH, 3)
    return [(begin, number_of(one.astype(np.float64))) for (begin, _), one in zip(packets, rgb, strict=True)]


def tone_by_ffmpeg(path: Path) -> float:
    """When the tone begins, from the start of the file."""
    raw, packets = by_ffmpeg(path, "a", "-f", "f32le")
    mono = np.frombuffer(raw, np.float32)
    rate = int(
        probe(path, "-select_streams", "a:0", "-show_entries", "stream=sample_rate")["streams"][0]["sample_rate"]
    )
    first = onset_of(mono, rate)
    for begin, size in packets:
        if first < size // 4:
            return begin + first / rate
        first -= size // 4
    raise AssertionError("the tone is in no packet")


def onset_of(mono: npt.NDArray[np.float32], rate: int) -> int:
    """The first sample at which a millisecond has half the level of the sound's end."""
    step = rate // 1000
    loud = np.sqrt(np.convolve(mono.astype(np.float64) ** 2, np.ones(step) / step, mode="same"))
    return int(np.argmax(loud > np.median(loud[-rate // 5 :]) / 2))
