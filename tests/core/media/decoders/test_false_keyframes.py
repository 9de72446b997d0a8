"""Streams whose packets are flagged as keyframes that are none: the pictures are right wherever a stretch begins."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest

from dimml.media import MediaLimits
from dimml.media.decoders import packet_index
from dimml.media.decoders.packet_index import TrackIndex
from dimml.media.decoders.windows import WindowPlan, decode_windows
from dimml.modality import Frames
from support.data import unavailable
from support.decoding import AUDIO, decode_source, request_for, row_of, statuses
from support.media_maker import numbered_picture, read_number, write_clip

THREE = Frames(name="visual", frames=3, height=64, width=96)
FPS = 25


def all_flagged(path: Path) -> Path:
    """The recording with every packet of its pictures flagged as a keyframe, where no demuxer knows better."""
    target = path.with_stem(f"flagged_{path.stem}")
    with av.open(str(path)) as source, av.open(str(target), "w") as container:
        copies = {stream.index: container.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.size:
                packet.is_keyframe = True
                packet.stream = copies[packet.stream.index]
                container.mux(packet)
    with av.open(str(target)) as container:
        assert all(packet.is_keyframe for packet in container.demux(video=0) if packet.size)
    return target


def numbers_from(path: Path, first: int) -> list[int]:
    """What is on screen from the middle of picture ``first`` on, for three pictures, read again or not."""
    found = []
    for kept_bytes in (0, packet_index.MAX_KEPT_BYTES):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(packet_index, "MAX_KEPT_BYTES", kept_bytes)
            decoded = decode_source(path, THREE, start_s=first / FPS, end_s=(first + 3) / FPS)
        found.append([read_number(frame) for frame in row_of(decoded, "visual")])
    assert found[0] == found[1]
    return found[0]


def encoded(path: Path, codec: str, group: int, options: dict[str, str], pictures: int = 50) -> Path:
    """Numbered pictures by an encoder with these options."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=FPS, options=options)
        stream.width, stream.height = 96, 64
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.gop_size = group
        for number in range(pictures):
            frame = av.VideoFrame.from_ndarray(numbered_picture(number), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def unexpected(index: TrackIndex, time_s: float) -> None:
    raise AssertionError(f"the keyframe at {time_s} s of {index.packets} packets is one")


@pytest.mark.parametrize("suffix", ["mkv", "avi"])
def test_h263_plus_as_ffmpeg_writes_it(tmp_path: Path, suffix: str) -> None:
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        unavailable("ffmpeg is not there: apt-get install ffmpeg")
        return
    path = tmp_path / f"a.{suffix}"
    pictures = b"".join(numbered_picture(number, 352, 288).tobytes() for number in range(2 * FPS))
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "352x288", "-r", str(FPS), "-i", "-"]
    subprocess.run(
        [ffmpeg, "-v", "error", *source, "-c:v", "h263p", "-q:v", "2", path], input=pictures, check=True, timeout=60
    )
    for first in (3, 9, 20, 40, 46):
        assert numbers_from(path, first) == [first, first + 1, first + 2]


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "mpeg4"), ("a.mov", "mpeg4"), ("a.mkv", "libx265"), ("a.mp4", "libx265")]
)
@pytest.mark.parametrize("group", [12, 250])
def test_any_codec_in_windows_too(tmp_path: Path, name: str, codec: str, group: int) -> None:
    made = write_clip(tmp_path / name, 2.0, video_codec=codec, rate_hz=48_000, keyframe_every=group)
    path = all_flagged(made)
    for first in (3, 20, 31, 46):
        assert numbers_from(path, first) == [first, first + 1, first + 2]
    request, plan = request_for(path, AUDIO, THREE, clip_s=0.12), WindowPlan(0.12, 0.12)
    wanted = decode_windows(request_for(made, AUDIO, THREE, clip_s=0.12), plan, first=7)
    for right, one in zip(wanted, decode_windows(request, plan, first=7), strict=True):
        np.testing.assert_array_equal(row_of(one.decoded, "visual"), row_of(right.decoded, "visual"))
        assert statuses(one.decoded) == statuses(right.decoded)


def test_pictures_out_of_reach_do_not_take_the_sound_with_them(tmp_path: Path) -> None:
    path = all_flagged(write_clip(tmp_path / "a.mp4", 2.0, video_codec="mpeg4", keyframe_every=250))
    limits = MediaLimits(max_frames_decoded=20)
    near = decode_source(path, AUDIO, THREE, start_s=0.2, end_s=0.32, limits=limits)
    assert [read_number(frame) for frame in row_of(near, "visual")] == [5, 6, 7]
    far = decode_source(path, AUDIO, THREE, start_s=1.2, end_s=1.32, limits=limits)
    assert statuses(far) == {"audio": "ok", "visual": "unusable:undecodable"}


@pytest.mark.parametrize(
    ("suffix", "codec", "options"),
    [
        ("mp4", "libx264", {}),
        ("mp4", "libx264", {"x264-params": "open-gop=1:bframes=3:keyint=12"}),
        ("ts", "libx264", {"x264-params": "open-gop=1:bframes=3:keyint=12"}),
        ("mp4", "libx265", {"x265-params": "open-gop=1:bframes=3:keyint=12:log-level=none"}),
        ("mp4", "libx265", {"x265-params": "open-gop=0:radl=2:bframes=3:keyint=12:log-level=none"}),
        ("ts", "mpeg2video", {"bf": "2"}),
        ("mkv", "libvpx", {}),
        ("avi", "mpeg4", {"bf": "2"}),
        ("mov", "mjpeg", {}),
    ],
)
def test_flags_that_are_right_are_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, codec: str, options: dict[str, str]
) -> None:
    """Nothing is read twice: of leading pictures, open groups and all other ordinary streams."""
    path = encoded(tmp_path / f"a.{suffix}", codec, 12, options)
    monkeypatch.setattr(TrackIndex, "retreat", unexpected)
    for first in (3, 13, 20, 31, 46):
        assert numbers_from(path, first) == [first, first + 1, first + 2]


@pytest.mark.parametrize("group", [5, 12])
def test_the_last_keyframe_of_an_open_group_is_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: int
) -> None:
    """Pictures that are shown before a keyframe stand behind it in the file: a seek by time must not land there."""
    path = encoded(tmp_path / "a.ts", "mpeg2video", group, {"bf": "3"}, pictures=49)
    monkeypatch.setattr(TrackIndex, "retreat", unexpected)
    one = Frames(name="visual", frames=1, height=64, width=96)
    for number in range(49):
        at_s = number / FPS
        decoded = decode_source(path, one, start_s=at_s + 0.01, end_s=at_s + 0.02)
        assert read_number(row_of(decoded, "visual")[0]) == number
