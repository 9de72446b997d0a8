"""Every picture of a stream comes out, the ones that a decoder delays included, wherever the stream stands."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path
from typing import Any

import av
import pytest

from dimml.media import MediaLimits
from dimml.media.decoders.streams.packet_feed import read_windows
from dimml.media.decoders.streams.picture_reader import PictureReader
from dimml.media.decoders.time_range import Window
from dimml.media.decoders.windows import WindowPlan, decode_windows
from dimml.modality import Frames
from support.data import unavailable
from support.decoding import decode_source, request_for, row_of
from support.media_maker import read_number, write_clip

TEN = Frames(name="visual", frames=10, height=32, width=48)


def sound_first(path: Path) -> Path:
    """The recording with its sound as stream 0."""
    turned = path.with_stem(f"{path.stem}_sound_first")
    with av.open(str(path)) as source, av.open(str(turned), "w") as target:
        streams = {s.index: target.add_stream_from_template(s) for s in (*source.streams.audio, *source.streams.video)}
        for packet in source.demux():
            if packet.size:
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
    with av.open(str(turned)) as container:
        assert [stream.type for stream in container.streams] == ["audio", "video"]
    return turned


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("pictures", [10, 2])
def test_the_last_pictures_are_there_behind_the_sound(tmp_path: Path, suffix: str, pictures: int) -> None:
    path = sound_first(write_clip(tmp_path / f"clip.{suffix}", pictures / 10, fps=10, rate_hz=48_000))
    decoded = decode_source(path, TEN, clip_s=9.0, end_s=pictures / 10)
    numbers = [read_number(frame) for frame in row_of(decoded, "visual")]
    assert numbers == sorted(numbers)
    assert set(numbers) == set(range(pictures))
    (window,) = decode_windows(request_for(path, TEN, clip_s=9.0), WindowPlan(9.0, 9.0))
    assert read_number(row_of(window.decoded, "visual")[-1]) == pictures - 1


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [
        ("mp4", "libx264"),
        ("mkv", "libx264"),
        ("ts", "libx264"),
        ("mov", "mpeg4"),
        ("mp4", "libx265"),
        ("webm", "libvpx"),
        ("webm", "libvpx-vp9"),
        ("avi", "mpeg4"),
    ],
)
def test_pictures_are_those_of_ffmpeg(tmp_path: Path, suffix: str, codec: str) -> None:
    """Decoded YUV by ``ffmpeg -f framemd5``: as many pictures, each bit the same."""
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        unavailable("ffmpeg is not there: apt-get install ffmpeg")
        return
    sound = {"webm": "libopus", "avi": "libmp3lame"}.get(suffix, "aac")
    path = write_clip(tmp_path / f"clip.{suffix}", 0.6, rate_hz=48_000, video_codec=codec, audio_codec=sound)
    path = sound_first(path)
    oracle = subprocess.run(
        [ffmpeg, "-v", "error", "-i", path, "-map", "0:v", "-vsync", "passthrough", "-f", "framemd5", "-"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    wanted = [line.split(",")[-1].strip() for line in oracle.splitlines() if not line.startswith("#")]
    assert len(wanted) == 15
    assert yuv_hashes(path) == wanted


def yuv_hashes(path: Path) -> list[str]:
    """MD5 of every picture that a reader decodes."""
    found: list[str] = []

    class Hashing(PictureReader):
        def take(self, frame: Any) -> None:
            found.append(hashlib.md5(frame.to_ndarray().tobytes(), usedforsecurity=False).hexdigest())
            super().take(frame)

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        reader = Hashing(stream, None, 0.0, iter([Window(0.0, 9.0)]), modalities=[TEN], limits=MediaLimits())
        assert len(list(read_windows(container.demux(reader.stream), [reader]))) == 1
    return found
