"""Decode every pair of container and codec that the ffmpeg program can write, and compare with what went in.

    python benchmarks/media_matrix.py [--only WORD ...] [--results FILE] [--out docs/media_matrix.md]

A clip of 3 s goes into every file: 75 pictures of 128x96 at 25 per second, each with its own number as black and white
bars beside a patch of one colour, and sound that is silent for a second, then a tone of 1 kHz at -12 dBFS; into an
image file goes its first picture. From what comes out follow length, offset of the sound, its level, the time of each
picture, its colour and orientation. A pair is *right* within the bounds below, *refused* where the modality is unusable
for a reason about the format or ffmpeg itself decodes nothing, and *wrong* otherwise: a wrong pair is a fault. What a
codec or a container has lost by itself is no fault of decoding: length and level of the sound and colours are held
against what the ffmpeg program makes of the same file, length and times of the pictures against what went in.

Prints the page, and writes it to --out. With --results, outcomes are kept in a file: a later run with --only tries its
pairs anew and leaves the others. Exit code: 0 where nothing is wrong, 1 where something is, 2 where ffmpeg is
missing.
"""

from __future__ import annotations

import argparse
import json
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

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
from media_page import BOUNDS, UNREAD, Outcome, page
from media_pairs import TURNED, Pair, pairs

from dimml.errors import DimmlError
from dimml.media import Decoded, DecodeRequest, decode
from dimml.modality import Frames, Waveform
from dimml.status import ModalityStatus, Reason

#: Longer than the clip, so that all of it is judged however long a codec's last frame makes it.
JUDGED_S: Final = 5.0
#: The peak of silence, -80 dBFS.
SILENCE: Final = 1e-4
SOUND: Final = Waveform(name="audio", sample_rate_hz=16_000, samples=int(16_000 * JUDGED_S))
PICTURE: Final = Frames(name="visual", frames=15, height=HEIGHT, width=WIDTH)
STILL: Final = Frames(name="still", frames=1, height=HEIGHT, width=WIDTH)

#: Reasons that are about the format. Any other is wrong: neither the clip nor its file gives a reason for it.
_ABOUT_FORMAT: Final = frozenset({Reason.UNSUPPORTED, Reason.UNDECODABLE})


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
    path = folder / f"{pair.content.replace(' ', '_')}.{pair.ending}"
    layout = audio_layout(pair.codec) if pair.track == "audio" else ()
    try:
        run_ffmpeg("-i", str(source), *layout, *pair.arguments, str(path))
    except subprocess.CalledProcessError:
        return None
    except subprocess.TimeoutExpired:
        print(f"late     {pair.name}: ffmpeg did not end", flush=True)
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
    modality = {"video": PICTURE, "audio": SOUND, "image": STILL}[pair.track]
    request = DecodeRequest((modality,), {modality.name: path}, clip_s=JUDGED_S)
    try:
        decoded = decode(request)
    except DimmlError as error:
        return Outcome(pair, "wrong", error.message)
    track = decoded.tracks[modality.name]
    if track.row is None:
        if not decodes_by_ffmpeg(pair, path):
            return Outcome(pair, "refused", f"{_said(track.status)}; {UNREAD}")
        return Outcome(pair, "refused" if track.status.reason in _ABOUT_FORMAT else "wrong", _said(track.status))
    compare = {"video": picture_figures, "audio": sound_figures, "image": image_figures}[pair.track]
    figures, faults = compare(pair, path, decoded)
    bounds = {**BOUNDS, "length": BOUNDS["length"] + 1000 * frame_of(pair, path)}
    faults += [f"{name} {figure:+.3f}" for name, figure in figures.items() if abs(figure) > bounds[name]]
    return Outcome(pair, "wrong" if faults else "right", "; ".join(faults), figures)


def frame_of(pair: Pair, path: Path) -> float:
    """How long a frame lasts in seconds: a picture, or what the sound's codec puts into a packet."""
    if pair.track != "audio":
        return 1 / PER_S
    shown = ("-select_streams", "a:0", "-show_entries", "frame=nb_samples:stream=sample_rate")
    found = probe(path, *shown, "-read_intervals", "%+#9")
    samples = max((frame["nb_samples"] for frame in found["frames"]), default=0)
    return float(samples) / int(found["streams"][0]["sample_rate"])


def _said(status: ModalityStatus) -> str:
    return f"`{status}`" + (f" ({status.detail})" if status.detail else "")


def sound_figures(pair: Pair, path: Path, decoded: Decoded) -> tuple[dict[str, float], list[str]]:
    """Length, beginning and level of the tone against ffmpeg's; no other faults."""
    row = decoded.tracks[SOUND.name].row
    assert row is not None
    raw, packets = by_ffmpeg(path, "a", "-f", "f32le", "-ac", "1")
    mono = np.frombuffer(raw, np.float32)
    rate = int(
        probe(path, "-select_streams", "a:0", "-show_entries", "stream=sample_rate")["streams"][0]["sample_rate"]
    )
    tone_s = tone_by_ffmpeg(path)
    heard = row[: round(16_000 * (decoded.end_s or 0.0))]
    middle_s = tone_s + 0.5, tone_s + 1.5
    level = _level(heard, 16_000, *middle_s) - _level(mono, rate, *(at - packets[0][0] for at in middle_s))
    return {
        "length": 1000 * ((decoded.end_s or 0.0) - len(mono) / rate - packets[0][0]),
        "offset": 1000 * (onset_of(heard, 16_000) / 16_000 - tone_s),
        "level": level,
    }, []


def decodes_by_ffmpeg(pair: Pair, path: Path) -> bool:
    """Whether the program gets a picture out of a file, or sound that is not silent."""
    form = ("-map", "0:a", "-f", "f32le") if pair.track == "audio" else ("-map", "0:v", "-f", "rawvideo")
    try:
        raw = run_ffmpeg("-i", str(path), *form, "-").stdout
    except subprocess.CalledProcessError as error:
        raw = error.stdout
    if pair.track != "audio":
        return bool(raw)
    return bool(np.abs(np.frombuffer(raw, np.float32)).max(initial=0.0) > SILENCE)


def _level(mono: npt.NDArray[np.float32], rate: int, begin_s: float, end_s: float) -> float:
    part = mono[round(begin_s * rate) : round(end_s * rate)].astype(np.float64)
    return float(10 * np.log10(max(float(np.mean(part**2)), 1e-12)))


def picture_figures(pair: Pair, path: Path, decoded: Decoded) -> tuple[dict[str, float], list[str]]:
    """Length, lateness of the pictures and colour; pictures that are shown twice are a fault."""
    track = decoded.tracks[PICTURE.name]
    assert track.row is not None
    rows = track.row.astype(np.float64)
    degrees = TURNED.get(pair.ending)
    if degrees is not None:
        # The form of the row is fixed, so a turned picture is squeezed into it: turn it back, and stretch.
        rows = np.stack([_upright(row, degrees) for row in rows])
    numbers = [number_of(row) for row in rows]
    at = [t * PER_S for t in track.times_s]
    seconds = (decoded.end_s or 0.0) - (decoded.start_s or 0.0)
    figures = {
        "length": 1000 * (seconds - SECONDS),
        "pictures": max((n - t for n, t in zip(numbers, at, strict=True)), key=abs),
        "colour": float(np.abs(_patch(rows) - _patch(_rgb_by_ffmpeg(path))).max()),
    }
    twice = len(set(numbers)) < PICTURE.frames
    return figures, [f"pictures {numbers} at {[round(one, 1) for one in at]}"] if twice else []


def image_figures(pair: Pair, path: Path, decoded: Decoded) -> tuple[dict[str, float], list[str]]:
    """Colour of all of the picture; no other faults."""
    row = decoded.tracks[STILL.name].row
    assert row is not None
    return {"colour": float(np.abs(row[0] - _rgb_by_ffmpeg(path)[0]).mean())}, []


def _upright(row: npt.NDArray[np.float64], degrees: int) -> npt.NDArray[np.float64]:
    turned = np.rot90(row, degrees // 90)
    across = np.arange(HEIGHT) * turned.shape[0] // HEIGHT
    along = np.arange(WIDTH) * turned.shape[1] // WIDTH
    return np.asarray(turned[across][:, along])


def _patch(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(rows[:, HEIGHT // 8 : HEIGHT * 3 // 8, WIDTH // 8 : WIDTH * 7 // 8].mean(axis=(0, 1, 2)))


def _rgb_by_ffmpeg(path: Path) -> npt.NDArray[np.float64]:
    raw = run_ffmpeg("-noautorotate", "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-").stdout
    wanted = ("-select_streams", "v:0", "-show_entries", "stream=width,height")
    shape = probe(path, *wanted)["streams"][0]
    return np.frombuffer(raw, np.uint8).reshape(-1, shape["height"], shape["width"], 3).astype(np.float64)


def read_results(path: Path | None) -> dict[str, dict[str, Any]]:
    """Outcomes of earlier runs, by name of the pair; none without a file."""
    if path is None or not path.exists():
        return {}
    results: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return results


def main(arguments: Sequence[str] | None = None) -> int:
    """Try all pairs; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], help="pairs whose names have one of these words")
    parser.add_argument(
        "--results", type=Path, help="read the outcomes of earlier runs from this file, and keep all in it"
    )
    parser.add_argument("--out", type=Path, help="write the page to this file as well")
    parser.add_argument("--keep", type=Path, help="leave the files in this folder")
    given = parser.parse_args(arguments)
    if shutil.which("ffmpeg") is None or shutil.which("ffprobe") is None:
        print("ffmpeg and ffprobe are not there: install Debian's package ffmpeg", file=sys.stderr)
        return NOT_CHECKED
    kept = read_results(given.results)
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        source = write_source(folder)
        for pair in pairs():
            if given.only and not any(word in pair.name for word in given.only):
                continue
            kept.pop(pair.name, None)
            path = write(pair, source, folder)
            if path is None:
                continue
            outcome = judge(pair, path)
            kept[pair.name] = {"verdict": outcome.verdict, "words": outcome.words, "figures": dict(outcome.figures)}
            figures = ", ".join(f"{name} {figure:+.2f}" for name, figure in outcome.figures.items())
            print(f"{outcome.verdict:<8} {pair.name}: {outcome.words or figures}", flush=True)
            if given.results is not None:
                given.results.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
            if given.keep is None:
                path.unlink()
    outcomes = [Outcome(pair, **kept[pair.name]) for pair in pairs() if pair.name in kept]
    text = page(outcomes)
    print("\n" + text)
    if given.out is not None:
        given.out.write_text(text, encoding="utf-8")
    return 1 if any(outcome.verdict == "wrong" for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
