"""Decode every pair of container and codec that the ffmpeg program can write, and compare with what went in.

    python benchmarks/media_matrix.py [--only WORD ...] [--out docs/media_matrix.md] [--keep FOLDER]

A clip of 3 s goes into every file: 75 pictures of 128x96 at 25 per second, each with its own number as black and white
bars beside a patch of one colour, and sound that is silent for a second, then a tone of 1 kHz at -12 dBFS. From what
comes out follow length, offset of the sound, its level, the time of each picture and its colour. A pair is *right*
within the bounds below, *refused* where the modality has a status other than ok, and *wrong* otherwise: a wrong pair
is a fault. What a codec or a container has lost by itself is no fault of decoding: length, offset, level and colour are
held against what the ffmpeg program makes of the same file, the times of the pictures against what went in.

Prints a Markdown table. Exit code: 0 where nothing is wrong, 1 where something is, 2 where ffmpeg is missing.
"""

from __future__ import annotations

import argparse
import shutil
import struct
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from media_by_ffmpeg import (
    HEIGHT,
    NOT_CHECKED,
    PER_S,
    PICTURES,
    RATE_HZ,
    SECONDS,
    WIDTH,
    by_ffmpeg,
    number_of,
    onset_of,
    picture,
    probe,
    run_ffmpeg,
    sound,
    tone_by_ffmpeg,
)

from dimml.errors import DimmlError
from dimml.media import Decoded, DecodeRequest, decode
from dimml.modality import Frames, Waveform

#: The bounds: sound starts within 10 ms, lengths within a picture, the tone within 1 dB, a colour within 3 of 255.
OFFSET_S, LENGTH_S, LEVEL_DB, COLOUR = 0.010, 1.0 / PER_S + 0.005, 1.0, 3.0
#: Longer than the clip, so that all of it is judged however long a codec's last frame makes it.
JUDGED_S: Final = 5.0
SOUND: Final = Waveform(name="audio", sample_rate_hz=16_000, samples=int(16_000 * JUDGED_S))
PICTURE: Final = Frames(name="visual", frames=15, height=HEIGHT, width=WIDTH)

#: Containers (file ending) with the options of their muxer.
MOVIES: Final = {
    "mp4": [], "mov": [], "m4v": ["-f", "ipod"], "3gp": [], "mkv": [], "webm": [], "avi": [], "flv": [], "ts": [],
    "m2ts": [], "mpg": ["-f", "mpeg"], "vob": [], "wmv": ["-f", "asf"], "mxf": [], "ogv": [], "nut": [],
    "fragmented.mp4": ["-movflags", "frag_keyframe+empty_moov"], "faststart.mp4": ["-movflags", "faststart"],
}  # fmt: skip
VIDEO_CODECS: Final = {
    "libx264": ["-bf", "3", "-crf", "12"], "libx265": ["-crf", "12", "-x265-params", "log-level=none"],
    "mpeg4": ["-q:v", "2"], "libxvid": ["-q:v", "2"], "mpeg2video": ["-q:v", "2", "-bf", "2"],
    "mpeg1video": ["-q:v", "2"], "libvpx": ["-b:v", "4M", "-crf", "4"], "libvpx-vp9": ["-b:v", "0", "-crf", "10"],
    "libsvtav1": ["-crf", "15", "-preset", "10"], "mjpeg": ["-q:v", "2", "-strict", "unofficial"], "flv": ["-q:v", "2"],
    "h263p": ["-q:v", "2"], "msmpeg4": ["-q:v", "2"], "msmpeg4v2": ["-q:v", "2"], "wmv1": ["-q:v", "2"],
    "wmv2": ["-q:v", "2"], "prores_ks": [], "dnxhd": ["-profile:v", "dnxhr_hq"], "ffv1": [], "huffyuv": [],
    "rawvideo": [], "libtheora": ["-q:v", "10"], "png": [], "qtrle": [], "utvideo": [], "cinepak": [],
}  # fmt: skip
SOUNDS: Final = {
    "wav": [], "rf64.wav": ["-rf64", "always"], "w64": [], "aiff": [], "caf": [], "au": [], "voc": [], "flac": [],
    "ogg": [], "opus": [], "mp3": [], "aac": ["-f", "adts"], "m4a": ["-f", "ipod"], "mka": [], "wma": ["-f", "asf"],
    "ac3": [], "eac3": [], "wv": [], "amr": [], "mp2": [], "tta": [], "ts": [], "mpg": ["-f", "mpeg"], "flv": [],
    "avi": [], "mp4": [], "mov": [], "mkv": [], "webm": [], "mxf": ["-f", "mxf_opatom"],
}  # fmt: skip
AUDIO_CODECS: Final = {
    "pcm_s16le": [], "pcm_s16be": [], "pcm_s24le": [], "pcm_s32le": [], "pcm_f32le": [], "pcm_f64le": [], "pcm_u8": [],
    "pcm_alaw": [], "pcm_mulaw": [], "adpcm_ms": [], "adpcm_ima_wav": [], "flac": [], "alac": [], "libvorbis": [],
    "libopus": [], "libmp3lame": [], "mp2": [], "aac": [], "ac3": [], "eac3": [], "wmav2": [], "wmav1": [],
    "wavpack": [], "tta": [], "libspeex": [], "nellymoser": [], "dca": ["-strict", "-2"], "adpcm_swf": [], "g722": [],
}  # fmt: skip
#: Files that say how the picture is to be turned clockwise, in degrees, by the matrix of their track header.
TURNED: Final = {"rotate90.mp4": 90, "rotate180.mov": 180, "rotate270.mp4": 270}


@dataclass(frozen=True)
class Pair:
    """One file to write: its ending, options, and what it holds."""

    ending: str
    codec: str
    arguments: tuple[str, ...]
    track: str

    @property
    def name(self) -> str:
        return f"{self.codec} in {self.ending}"


@dataclass(frozen=True)
class Outcome:
    """What came of one pair: ``right``, ``refused`` or ``wrong``, and the figures or the reason."""

    pair: Pair
    verdict: str
    words: str


def pairs() -> Iterator[Pair]:
    """All pairs to try: each video codec in each container of movies, each audio codec in each that takes sound."""
    for ending, muxer in MOVIES.items():
        for codec, options in VIDEO_CODECS.items():
            yield Pair(ending, codec, ("-map", "0:v", "-c:v", codec, *options, *muxer), "video")
    for ending, muxer in SOUNDS.items():
        for codec, options in AUDIO_CODECS.items():
            yield Pair(ending, codec, ("-map", "0:a", "-c:a", codec, *options, *muxer), "audio")
    for ending in TURNED:
        yield Pair(ending, "libx264", ("-map", "0:v", "-c:v", "libx264", "-crf", "12"), "video")


def write_source(folder: Path) -> Path:
    """The clip that all files are made from, without loss: FFV1 and PCM in NUT."""
    (folder / "pictures.rgb").write_bytes(b"".join(picture(n).tobytes() for n in range(PICTURES)))
    (folder / "sound.f32").write_bytes(sound().tobytes())
    source = folder / "source.nut"
    run_ffmpeg(
        *("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{WIDTH}x{HEIGHT}", "-r", str(PER_S)),
        *("-i", str(folder / "pictures.rgb"), "-f", "f32le", "-ar", str(RATE_HZ), "-ac", "1"),
        *("-i", str(folder / "sound.f32"), "-c:v", "ffv1", "-pix_fmt", "yuv420p", "-c:a", "pcm_f32le", str(source)),
    )
    return source


def write(pair: Pair, source: Path, folder: Path) -> Path | None:
    """Write the pair's file; None where ffmpeg cannot."""
    path = folder / f"{pair.codec}.{pair.ending}"
    layout = () if pair.track == "video" else audio_layout(pair.codec)
    try:
        run_ffmpeg("-i", str(source), *layout, *pair.arguments, str(path))
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return None
    if pair.ending in TURNED:
        turn(path, TURNED[pair.ending])
    return path if path.stat().st_size else None


def turn(path: Path, degrees: int) -> None:
    """Write the matrix of a clockwise turn into the track header (ISO/IEC 14496-12, 8.3.2, version 0)."""
    data = bytearray(path.read_bytes())
    a, b = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    matrix = struct.pack(">9i", a << 16, b << 16, 0, -b << 16, a << 16, 0, 0, 0, 1 << 30)
    at = data.index(b"tkhd") + 4 + 40
    data[at : at + len(matrix)] = matrix
    path.write_bytes(data)


def audio_layout(codec: str) -> tuple[str, ...]:
    """The rate that a codec of speech or of one rate takes."""
    rates = {"g722": "16000", "libspeex": "16000", "nellymoser": "16000", "adpcm_swf": "44100"}
    return ("-ar", rates[codec]) if codec in rates else ()


def judge(pair: Pair, path: Path) -> Outcome:
    """Decode one file and compare."""
    modality = PICTURE if pair.track == "video" else SOUND
    request = DecodeRequest((modality,), {modality.name: path}, clip_s=JUDGED_S)
    try:
        decoded = decode(request)
    except DimmlError as error:
        return Outcome(pair, "refused", error.message)
    track = decoded.tracks[modality.name]
    if track.row is None:
        return Outcome(pair, "refused", str(track.status))
    faults, figures = (pictures_faults if pair.track == "video" else sound_faults)(pair, path, decoded)
    return Outcome(pair, "wrong" if faults else "right", "; ".join(faults or figures))


def sound_faults(pair: Pair, path: Path, decoded: Decoded) -> tuple[list[str], list[str]]:
    """Deviations beyond the bounds, and all figures: length, beginning and level of the tone."""
    row = decoded.tracks[SOUND.name].row
    assert row is not None
    raw, packets = by_ffmpeg(path, "a", "-f", "f32le", "-ac", "1")
    mono = np.frombuffer(raw, np.float32)
    rate = int(
        probe(path, "-select_streams", "a:0", "-show_entries", "stream=sample_rate")["streams"][0]["sample_rate"]
    )
    length = (decoded.end_s or 0.0) - len(mono) / rate - packets[0][0]
    tone_s = tone_by_ffmpeg(path)
    heard = row[: round(16_000 * (decoded.end_s or 0.0))]
    onset = onset_of(heard, 16_000) / 16_000 - tone_s
    middle_s = tone_s + 0.5, tone_s + 1.5
    level = _level(heard, 16_000, *middle_s) - _level(mono, rate, *(at - packets[0][0] for at in middle_s))
    figures = [f"length {1000 * length:+.0f} ms", f"onset {1000 * onset:+.1f} ms", f"level {level:+.2f} dB"]
    bounds = (abs(length) <= LENGTH_S, abs(onset) <= OFFSET_S, abs(level) <= LEVEL_DB)
    return [figure for figure, held in zip(figures, bounds, strict=True) if not held], figures


def _level(mono: npt.NDArray[np.float32], rate: int, begin_s: float, end_s: float) -> float:
    part = mono[round(begin_s * rate) : round(end_s * rate)].astype(np.float64)
    return float(10 * np.log10(max(float(np.mean(part**2)), 1e-12)))


def pictures_faults(pair: Pair, path: Path, decoded: Decoded) -> tuple[list[str], list[str]]:
    """Deviations beyond the bounds, and all figures: length, number against time, colour."""
    track = decoded.tracks[PICTURE.name]
    assert track.row is not None
    rows = track.row.astype(np.float64)
    length = (decoded.end_s or 0.0) - (decoded.start_s or 0.0)
    degrees = TURNED.get(pair.ending)
    if degrees is not None:
        # The form of the row is fixed, so a turned picture is squeezed into it: turn it back, and stretch.
        rows = np.stack([_upright(row, degrees) for row in rows])
    numbers = [number_of(row) for row in rows]
    late = max(abs(n - t * PER_S) for n, t in zip(numbers, track.times_s, strict=True))
    spread = len(set(numbers))
    reference = _colour_by_ffmpeg(path)
    colour = float(np.abs(_patch(rows) - reference).max())
    figures = [f"{length:.3f} s", f"pictures at most {late:.1f} late", f"colour {colour:.1f}"]
    faults = []
    if abs(length - SECONDS) > LENGTH_S:
        faults.append(f"length {length:.3f} s")
    if late > 1.01 or spread < PICTURE.frames:
        faults.append(f"pictures {numbers} at {[round(t * PER_S, 1) for t in track.times_s]}")
    if colour > COLOUR:
        faults.append(f"colour off by {colour:.1f}")
    return faults, figures


def _upright(row: npt.NDArray[np.float64], degrees: int) -> npt.NDArray[np.float64]:
    turned = np.rot90(row, degrees // 90)
    across = np.arange(HEIGHT) * turned.shape[0] // HEIGHT
    along = np.arange(WIDTH) * turned.shape[1] // WIDTH
    return np.asarray(turned[across][:, along])


def _patch(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(rows[:, HEIGHT // 8 : HEIGHT * 3 // 8, WIDTH // 8 : WIDTH * 7 // 8].mean(axis=(0, 1, 2)))


def _colour_by_ffmpeg(path: Path) -> npt.NDArray[np.float64]:
    raw = run_ffmpeg("-noautorotate", "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-").stdout
    wanted = ("-select_streams", "v:0", "-show_entries", "stream=width,height")
    shape = probe(path, *wanted)["streams"][0]
    rgb = np.frombuffer(raw, np.uint8).reshape(-1, shape["height"], shape["width"], 3).astype(np.float64)
    return _patch(rgb)


def table(outcomes: Sequence[Outcome]) -> str:
    """The results as Markdown: one row a container, and each refused or wrong pair."""
    found = Counter(outcome.verdict for outcome in outcomes)
    lines = [
        f"{len(outcomes)} pairs that ffmpeg writes: {found['right']} right, {found['refused']} refused, "
        f"{found['wrong']} wrong.",
        "",
        "| container | track | right | refused |",
        "|---|---|---|---|",
    ]
    groups: dict[tuple[str, str], dict[str, list[str]]] = {}
    for outcome in outcomes:
        key = (outcome.pair.ending, outcome.pair.track)
        groups.setdefault(key, {"right": [], "refused": [], "wrong": []})[outcome.verdict].append(outcome.pair.codec)
    for (ending, track), codecs in groups.items():
        lines.append(f"| {ending} | {track} | {', '.join(codecs['right'])} | {', '.join(codecs['refused'])} |")
    for verdict in ("wrong", "refused"):
        listed = [outcome for outcome in outcomes if outcome.verdict == verdict]
        if listed:
            lines += ["", f"{verdict.capitalize()}:", ""]
            lines += [f"- {outcome.pair.name}: {outcome.words}" for outcome in listed]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Try all pairs; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], help="pairs whose names have one of these words")
    parser.add_argument("--out", type=Path, help="write the table to this file as well")
    parser.add_argument("--keep", type=Path, help="leave the files in this folder")
    given = parser.parse_args(arguments)
    if shutil.which("ffmpeg") is None or shutil.which("ffprobe") is None:
        print("ffmpeg and ffprobe are not there: install Debian's package ffmpeg", file=sys.stderr)
        return NOT_CHECKED
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        source = write_source(folder)
        for pair in pairs():
            if given.only and not any(word in pair.name for word in given.only):
                continue
            path = write(pair, source, folder)
            if path is None:
                continue
            outcomes.append(judge(pair, path))
            print(f"{outcomes[-1].verdict:<8} {pair.name}: {outcomes[-1].words}", flush=True)
            if given.keep is None:
                path.unlink()
    text = table(outcomes)
    print("\n" + text)
    if given.out is not None:
        given.out.write_text(text, encoding="utf-8")
    return 1 if any(outcome.verdict == "wrong" for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
