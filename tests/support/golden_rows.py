"""Clips for every way through the decoders, and what they decode to, kept in ``golden/rows.npz``.

The clips are the repository's samples, the shared data, or made here without loss: an encoder that differs between
versions of a library would change them. After a change of what is decoded, raise ``DECODER_VERSION`` and make the
rows anew; the shared data must be there::

    PYTHONPATH=tests .venv/bin/python -m support.golden_rows

It refuses rows that differ at the same version; new cases need no new version.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import av
import cv2
import numpy as np
import numpy.typing as npt
import soundfile
from PIL import Image

from dimml.media import Decoded, DecodeRequest, Source, decode
from dimml.media.decoders.version import DECODER_VERSION
from dimml.media.decoders.windows import WindowPlan, decode_windows
from dimml.modality import Flow, Frames, Modality, Region, Waveform
from support.data import REPOSITORY_ROOT, shared_data
from support.decoding import request_for
from support.heif_muxer import picture_grid
from support.media_maker import numbered_picture, set_display_matrix, tone, write_clip

GOLDEN: Final = REPOSITORY_ROOT / "tests" / "core" / "media" / "decoders" / "golden"
ROWS: Final = GOLDEN / "rows.npz"
#: SIMD differs between processors.
PICTURE_BOUND, SOUND_BOUND = 2, 1e-4
#: Sound is kept as 16-bit integers: small, and a sixth of the bound.
_FULL_SCALE: Final = 32767

AUDIO = Waveform(name="audio", sample_rate_hz=8000, samples=2000)
VISUAL = Frames(name="visual", frames=3, height=16, width=24)
MOTION = Flow(name="motion", frames=2, height=16, width=24)
LIPS = Frames(name="lips", frames=2, height=16, width=16, region=Region(left=0.2, top=0.4, right=0.9, bottom=0.95))
ALL: Final[tuple[Modality, ...]] = (AUDIO, VISUAL, MOTION)


@dataclass(frozen=True)
class Case:
    """A request, made in an empty folder; with a plan, the windows of these numbers are kept."""

    request: Callable[[Path], DecodeRequest]
    plan: WindowPlan | None = None
    windows: tuple[int, ...] = ()


def _of(
    source: Callable[[Path], Source], *modalities: Modality, start_s: float | None = None, end_s: float | None = None
) -> Callable[[Path], DecodeRequest]:
    return lambda folder: request_for(
        source(folder), *(modalities or (AUDIO, VISUAL)), clip_s=0.25, start_s=start_s, end_s=end_s
    )


def _sample(name: str) -> Callable[[Path], Source]:
    return lambda _: REPOSITORY_ROOT / "samples" / name


def _shared(folder: str, name: str) -> Callable[[Path], Source]:
    return lambda _: shared_data(folder) / name


def _remuxed(
    suffix: str, kinds: tuple[str, ...] = ("video", "audio"), options: Mapping[str, str] | None = None
) -> Callable[[Path], Source]:
    """The packets of ``long.mp4`` (H.264 and AAC) as they are, in another container."""

    def make(folder: Path) -> Source:
        path = folder / f"clip.{suffix}"
        with (
            av.open(str(REPOSITORY_ROOT / "samples" / "long.mp4")) as source,
            av.open(str(path), "w", options=dict(options or {})) as target,
        ):
            copies = {s.index: target.add_stream_from_template(s) for s in source.streams if s.type in kinds}
            for packet in source.demux(*(source.streams[index] for index in copies)):
                if packet.dts is not None:
                    packet.stream = copies[packet.stream.index]
                    target.mux(packet)
        return path

    return make


def _made(name: str, **options: Any) -> Callable[[Path], Source]:
    lossless = {"video_codec": "ffv1", "audio_codec": "pcm_s16le", "channels": 2, "rate_hz": 11_025}
    return lambda folder: write_clip(folder / name, 1.2, **{**lossless, **options})


def _turned(*matrix: int) -> Callable[[Path], Source]:
    recording = REPOSITORY_ROOT / "samples" / "clean_five.mp4"
    return lambda _: set_display_matrix(recording.read_bytes(), matrix)


def _sound_file(subtype: str, form: str) -> Callable[[Path], Source]:
    """A tone on the left, another on the right, which is as long as the file."""

    def make(_: Path) -> Source:
        time_s = np.arange(22_050) / 22_050
        file = io.BytesIO()
        channels = np.stack([tone(300.0)(time_s), tone(1100.0, 0.2)(time_s) * time_s], axis=1)
        soundfile.write(file, channels, 22_050, format=form, subtype=subtype)
        return file.getvalue()

    return make


def _image(suffix: str, options: tuple[int, ...] = ()) -> Callable[[Path], Source]:
    return lambda _: cv2.imencode(suffix, numbered_picture(77, 40, 30)[:, :, ::-1], options)[1].tobytes()


def _pillow(form: str, **options: Any) -> Callable[[Path], Source]:
    def make(_: Path) -> Source:
        file = io.BytesIO()
        Image.fromarray(numbered_picture(77, 40, 30)).save(file, form, **options)
        return file.getvalue()

    return make


def _transparent(_: Path) -> Source:
    alpha = np.tile(np.linspace(0, 255, 40).astype(np.uint8), (30, 1))
    return cv2.imencode(".png", np.dstack([numbered_picture(77, 40, 30), alpha]))[1].tobytes()


def _grid(image_format: str) -> Callable[[Path], Source]:
    colours = (((200, 20, 20), (20, 180, 40)), ((30, 40, 210), (220, 220, 60)))
    return lambda _: picture_grid(image_format, colours, 64, (120, 100), quarter_turns=1)


def _flow(_: Path) -> Source:
    y, x = np.mgrid[0:20, 0:30].astype(np.float32)
    frames = [np.stack([x - 15 + number, 0.5 * y * number], axis=-1) for number in range(5)]
    file = io.BytesIO()
    np.save(file, np.stack(frames).astype(np.float32))
    return file.getvalue()


def _two_files(folder: Path) -> DecodeRequest:
    request = _of(_sample("clean_three.mp4"), AUDIO, VISUAL, MOTION)(folder)
    return replace(
        request,
        modalities=(*request.modalities, LIPS),
        sources={**request.sources, "audio": REPOSITORY_ROOT / "samples" / "spoken_nine.wav"},
    )


_LONG = {"start_s": 1.3, "end_s": 2.3}
CASES: Final[dict[str, Case]] = {
    "mp4": Case(_of(_sample("clean_three.mp4"), *ALL, LIPS)),
    "mp4 range": Case(_of(_sample("long.mp4"), *ALL, **_LONG)),
    "mp4 windows": Case(_of(_sample("long.mp4"), *ALL), WindowPlan(0.5, 0.35), (0, 4, 9)),
    "mp4 windows of a range": Case(_of(_sample("long.mp4"), **_LONG), WindowPlan(0.4, 0.4), (0, 2)),
    "mp4 fragmented": Case(_of(_remuxed("mp4", options={"movflags": "frag_keyframe+empty_moov"}), *ALL, **_LONG)),
    "mp4 turned": Case(_of(_turned(0, 1, -1, 0), VISUAL, MOTION, LIPS)),
    "mp4 mirrored": Case(_of(_turned(-1, 0, 0, 1), VISUAL)),
    "mp4 black": Case(_of(_sample("black_picture.mp4"))),
    "mp4 silent": Case(_of(_sample("silent_sound.mp4"))),
    "mp4 no sound": Case(_of(_sample("no_sound.mp4"))),
    "mp4 no picture": Case(_of(_sample("no_picture.mp4"))),
    "mp4 broken picture": Case(_of(_sample("broken_picture.mp4"))),
    "mp4 broken": Case(_of(_sample("broken.mp4"))),
    "mov": Case(_of(_remuxed("mov"), *ALL)),
    "mkv range": Case(_of(_remuxed("mkv"), *ALL, **_LONG)),
    "ts range": Case(_of(_remuxed("ts"), *ALL, **_LONG)),
    "ts windows": Case(_of(_remuxed("ts")), WindowPlan(1.0, 0.8), (1, 3)),
    "flv range": Case(_of(_remuxed("flv"), **_LONG)),
    "aac": Case(_of(_remuxed("aac", ("audio",)))),
    "avi range": Case(_of(_made("clip.avi"), *ALL, start_s=0.4, end_s=0.9)),
    "mkv late picture": Case(_of(_made("clip.mkv", picture_delay_s=0.7), *ALL, start_s=0.5, end_s=0.75)),
    "mkv frozen": Case(_of(_made("clip.mkv", picture="frozen", sound="silence"))),
    "mkv short sound": Case(_of(_made("clip.mkv", sound_seconds=0.3)), WindowPlan(0.4, 0.4), (0, 2)),
    "wav": Case(_of(_sample("spoken_nine.wav"))),
    "wav 8 bit": Case(_of(_sound_file("PCM_U8", "WAV"), AUDIO)),
    "flac range": Case(_of(_sound_file("PCM_16", "FLAC"), AUDIO, start_s=0.31, end_s=0.5)),
    "flac windows": Case(_of(_sound_file("PCM_16", "FLAC"), AUDIO), WindowPlan(0.3, 0.2), (1, 4)),
    "aiff range": Case(_of(_sound_file("PCM_24", "AIFF"), AUDIO, start_s=0.31, end_s=0.5)),
    "caf alac": Case(_of(_sound_file("ALAC_16", "CAF"), AUDIO)),
    "sphere": Case(_of(_sound_file("PCM_16", "NIST"), AUDIO)),
    "midi": Case(_of(lambda _: b"MThd\0\0\0\6\0\0\0\1\0\x60")),
    "mp3 damaged": Case(_of(lambda _: b"ID3\4\0\0\0\0\0\0" + bytes(400))),
    "wavpack windows": Case(_of(_made("clip.wv", picture=None, audio_codec="wavpack")), WindowPlan(0.3, 0.2), (1, 4)),
    "png": Case(_of(_sample("written_nine.png"))),
    "jpeg turned by exif": Case(_of(lambda _: GOLDEN / "turned.jpg", VISUAL)),
    "webp": Case(_of(_image(".webp", (cv2.IMWRITE_WEBP_QUALITY, 101)), VISUAL)),
    "bmp": Case(_of(_image(".bmp"), VISUAL, MOTION)),
    "png transparent": Case(_of(_transparent, VISUAL, VISUAL.model_copy(update={"name": "beneath", "ground": None}))),
    "gif": Case(_of(_pillow("GIF"), VISUAL)),
    "tiff": Case(_of(_pillow("TIFF", compression="tiff_lzw"), VISUAL)),
    "heic of tiles": Case(_of(_grid("heic"), VISUAL)),
    "avif of tiles": Case(_of(_grid("avif"), VISUAL)),
    "npy flow": Case(_of(_flow, *ALL)),
    "two files": Case(_two_files),
    "empty": Case(_of(lambda _: b"")),
    "text": Case(_of(lambda _: b"#EXTM3U\n" * 9)),
    "ogg vorbis": Case(_of(_shared("media", "bbb_1ch_16kHz_q10_vorbis.ogg"), AUDIO)),
    "ogg opus": Case(_of(_shared("media", "bbb_6ch_8kHz_opus.ogg"), start_s=1.0, end_s=1.5)),
    "mp3": Case(_of(_shared("media", "bear-vbr-xing-header.mp3"), AUDIO)),
    "flv": Case(_of(_shared("media", "sample.flv"))),
    "avi": Case(_of(_shared("media", "sample.avi"))),
    "ts mpeg2": Case(_of(_shared("media", "bbb_2500ms.ts"))),
    "webm vp9": Case(_of(_shared("media", "bbb_642x642_768kbps_30fps_vp9.webm"), VISUAL, start_s=1.5, end_s=2.0)),
    "mp4 av1": Case(_of(_shared("media", "sample_av1.mp4"))),
    "mp4 hevc": Case(_of(_shared("media", "sample_unrecognized_hevc_sei.mp4"))),
    "webm of a browser": Case(_of(_shared("mediarecorder", "default.webm"), *ALL)),
    "webm of a browser, windows": Case(_of(_shared("mediarecorder", "vp8_slice.webm")), WindowPlan(1.0, 0.7), (0, 3)),
    "mp4 of a browser": Case(_of(_shared("mediarecorder", "mp4.mp4"), start_s=1.0, end_s=1.5)),
}

Rows = dict[str, npt.NDArray[Any]]


def decoded_rows(case: Case, folder: Path) -> tuple[dict[str, Any], Rows]:
    """What a case decodes to: JSON-able statuses, times and range; rows by name (of windows ``name@number``)."""
    request = case.request(folder)
    parts: Iterator[tuple[str, Decoded]]
    if case.plan is None:
        parts = iter([("", decode(request))])
    else:
        found = decode_windows(request, case.plan)
        parts = ((f"@{one.number}", one.decoded) for one in found if one.number in case.windows)
    said: dict[str, Any] = {}
    rows: Rows = {}
    for where, decoded in parts:
        said[f"range{where}"] = [decoded.start_s, decoded.end_s]
        for name, track in decoded.tracks.items():
            said[f"{name}{where}"] = [str(track.status), *(round(time_s, 6) for time_s in track.times_s)]
            if track.row is not None:
                is_sound = track.row.dtype == np.float32
                rows[f"{name}{where}"] = np.rint(track.row * _FULL_SCALE).astype(np.int16) if is_sound else track.row
    return said, rows


def differences(case: str, said: dict[str, Any], rows: Rows, golden: Mapping[str, Any]) -> list[str]:
    """What is not as it was kept, in words."""
    kept = json.loads(str(golden[f"{case}/said"]))
    found = [
        f"{name}: {kept.get(name)} was kept, {said.get(name)} now"
        for name in kept | said
        if not _same(kept.get(name), said.get(name))
    ]
    for name, row in rows.items():
        before = golden.get(f"{case}/{name}")
        if before is None or before.shape != row.shape:
            found.append(f"{name}: another shape")
            continue
        furthest = int(np.abs(row.astype(np.int32) - before).max())
        bound = SOUND_BOUND * _FULL_SCALE if row.dtype == np.int16 else PICTURE_BOUND
        if furthest > bound:
            found.append(f"{name}: off by up to {furthest}, more than {bound:g}")
    return found


def _same(before: list[Any] | None, now: list[Any] | None) -> bool:
    """Words alike, numbers (times in seconds) to ten microseconds."""
    if before is None or now is None or len(before) != len(now):
        return False
    pairs = zip(before, now, strict=True)
    return all(abs(a - b) <= 1e-5 if isinstance(a, float) and isinstance(b, float) else a == b for a, b in pairs)


def kept_rows() -> dict[str, Any]:
    """The file's arrays by name."""
    with np.load(ROWS) as file:
        return dict(file)


def make_golden_rows() -> str:
    """Write the file anew; what there is to say. Raises SystemExit where rows differ at the same version."""
    before = kept_rows() if ROWS.exists() else {}
    arrays: dict[str, Any] = {"decoder_version": np.array(DECODER_VERSION)}
    changed = []
    for name, case in CASES.items():
        with TemporaryDirectory() as folder:
            said, rows = decoded_rows(case, Path(folder))
        arrays[f"{name}/said"] = np.array(json.dumps(said))
        arrays |= {f"{name}/{row}": array for row, array in rows.items()}
        if f"{name}/said" in before:
            changed += [f"{name}: {line}" for line in differences(name, said, rows, before)]
    if changed and int(before["decoder_version"]) == DECODER_VERSION:
        raise SystemExit("\n".join([*changed, "what is decoded has changed: raise DECODER_VERSION first"]))
    GOLDEN.mkdir(exist_ok=True)
    np.savez_compressed(ROWS, **arrays)
    return f"{len(CASES)} cases, {ROWS.stat().st_size / 1024:.0f} KiB, of version {DECODER_VERSION}"


if __name__ == "__main__":
    print(make_golden_rows())
