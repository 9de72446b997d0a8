"""Orientation inside an H.264 stream: a message in one picture turns all that follow."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from dimml.media.decoders.streams.orientation import read_orientation
from dimml.media.decoders.windows import WindowPlan, decode_windows
from dimml.modality import Frames
from support.decoding import decode_source, request_for, row_of
from support.media_maker import write_clip

TALL = Frames(name="visual", frames=5, height=48, width=32)
WIDE = Frames(name="visual", frames=5, height=32, width=48)


def message(degrees: int, flip_x: int = 0) -> bytes:
    """SEI unit of an anticlockwise turn after a flip (H.264, annex D): not cancelled, repetition period 1."""
    bits = f"0{flip_x}0{degrees * 65536 // 360:016b}" + "010" + "0" + "1"
    payload = int(bits.ljust(24, "0"), 2).to_bytes(3, "big")
    # An escape byte keeps two zeros from becoming a start code.
    return b"\x06" + (bytes([47, len(payload)]) + payload).replace(b"\0\0", b"\0\0\3") + b"\x80"


def with_message(path: Path, target: Path, unit: bytes, picture: int = 0) -> Path:
    """The MP4's packets in another file, with an SEI unit before the picture of this number alone."""
    with av.open(str(path)) as source, av.open(str(target), "w") as container:
        stream = source.streams.video[0]
        new = container.add_stream_from_template(stream)
        for number, packet in enumerate(packet for packet in source.demux(stream) if packet.size):
            data = len(unit).to_bytes(4, "big") + unit if number == picture else b""
            out = av.Packet(data + bytes(packet))
            out.pts, out.dts, out.time_base = packet.pts, packet.dts, packet.time_base
            out.is_keyframe, out.duration, out.stream = packet.is_keyframe, packet.duration, new
            container.mux(out)
    with av.open(str(target)) as container:
        oriented = [frame.side_data.get("DISPLAYMATRIX") is not None for frame in container.decode(video=0)]
    assert sum(oriented) == 1, "FFmpeg turns one picture"
    return target


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize(
    ("unit", "turn"),
    [
        (message(90), lambda rgb: np.rot90(rgb, 1)),
        (message(180), lambda rgb: np.rot90(rgb, 2)),
        (message(270), lambda rgb: np.rot90(rgb, 3)),
        (message(0, 1), np.fliplr),
    ],
    ids=["left", "half", "right", "mirrored"],
)
def test_a_message_in_the_first_picture_turns_all(tmp_path: Path, suffix: str, unit: bytes, turn: object) -> None:
    assert callable(turn)
    plain = write_clip(tmp_path / "plain.mp4", 3.0, sound=None)
    turned = with_message(plain, tmp_path / f"turned.{suffix}", unit)
    modality = TALL if turn(np.empty((2, 3))).shape == (3, 2) else WIDE
    # A range in the middle is read from its own keyframe on, which has no message.
    for start_s in (0.0, 1.5):
        wanted = row_of(decode_source(plain, WIDE, start_s=start_s, end_s=start_s + 1.0), "visual")
        found = row_of(decode_source(turned, modality, start_s=start_s, end_s=start_s + 1.0), "visual")
        np.testing.assert_allclose(found, [turn(frame) for frame in wanted], atol=2)
    every = list(decode_windows(request_for(turned, modality), WindowPlan(1.0, 1.0)))
    for one in every:
        assert one.window is not None
        wanted = row_of(decode_source(plain, WIDE, start_s=one.window.start_s, end_s=one.window.end_s), "visual")
        np.testing.assert_allclose(row_of(one.decoded, "visual"), [turn(frame) for frame in wanted], atol=2)


def test_pictures_before_the_message_stand_as_they_are(tmp_path: Path) -> None:
    """A phone that is turned over midway."""
    plain = write_clip(tmp_path / "plain.mp4", 2.0, sound=None)
    with av.open(str(plain)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        second = next(
            n for n, packet in enumerate(packets) if packet.is_keyframe and packet.pts * packet.time_base > 0.6
        )
        at_s = float(packets[second].pts * packets[second].time_base)
    turned = with_message(plain, tmp_path / "turned.mkv", message(180), second)
    wanted = row_of(decode_source(plain, WIDE, clip_s=2.0), "visual")
    found = row_of(decode_source(turned, WIDE, clip_s=2.0), "visual")
    times_s = decode_source(plain, WIDE, clip_s=2.0).tracks["visual"].times_s
    assert times_s[0] < at_s <= times_s[-1]
    for time_s, was, now in zip(times_s, wanted, found, strict=True):
        np.testing.assert_allclose(now, np.rot90(was, 2) if time_s >= at_s - 1e-6 else was, atol=2)


def test_a_message_by_the_bits_of_the_standard() -> None:
    unit = b"\0\0\1" + message(90)
    picture = b"\0\0\1\x65picture"
    found = read_orientation(memoryview(unit + picture), b"")
    assert found is not None
    assert found[0] is not None
    # (x, y) goes to (y, -x): what was at the right is at the top.
    assert found[0][:2, :2].tolist() == [[0, -65536], [65536, 0]]
    assert read_orientation(memoryview(picture + unit), b"") is None
    cancelled = b"\0\0\1\x06" + bytes([47, 1, 0b1100_0000]) + b"\x80"
    assert read_orientation(memoryview(cancelled + picture), b"") == (None,)


@pytest.mark.parametrize(
    "data", [b"", b"\0\0\1", b"\0\0\1\x06", b"\0\0\1\x06\x2f", b"\0\0\1\x06\xff\xff\xff", b"\6" * 9]
)
@pytest.mark.parametrize("header", [b"", b"\1\0\0\0\3", b"\1"])
def test_messages_that_are_cut_off(data: bytes, header: bytes) -> None:
    assert read_orientation(memoryview(data), header) is None
