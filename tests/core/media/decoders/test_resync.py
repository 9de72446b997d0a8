"""Streams that begin inside a frame, or after zeros, are read from their first whole frame on; nothing else is."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import av
import numpy as np
import pytest

from dimml.media.decoders.file_type import identify
from dimml.media.decoders.framing.resync import RESYNC_BYTES
from dimml.modality import Waveform
from support.decoding import decode_source, statuses
from support.media_maker import write_clip

AUDIO = Waveform(name="audio", sample_rate_hz=16_000, samples=4000)
SECONDS = 3.0
MUXERS = {"mp3": ("mp3", "libmp3lame"), "aac": ("adts", "aac"), "mpegts": ("mpegts", "aac")}


@pytest.fixture(scope="module")
def streams(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A tone of ``SECONDS`` as each kind of stream; the MP3 without a Xing frame and tags."""
    folder = tmp_path_factory.mktemp("streams")
    made = {}
    for kind, (suffix, codec) in MUXERS.items():
        path = folder / f"clip.{ {'adts': 'aac', 'mpegts': 'ts'}.get(suffix, suffix) }"
        options = {"write_xing": "0", "id3v2_version": "0"} if kind == "mp3" else {}
        made[kind] = write_clip(path, SECONDS, picture=None, audio_codec=codec, options=options).read_bytes()
    return made


def starts_of_frames(data: bytes, kind: str) -> list[int]:
    """By FFmpeg's demuxer, packets of a transport stream by their length."""
    if kind == "mpegts":
        return list(range(0, len(data), 188))
    with av.open(io.BytesIO(data), format=kind) as container:
        sizes = [packet.size for packet in container.demux(audio=0) if packet.size]
    # ADTS packets come without their header where it is a demuxer's.
    assert sum(sizes) == len(data)
    return [0, *np.cumsum(sizes)[:-1].tolist()]


@pytest.mark.parametrize("kind", MUXERS)
@pytest.mark.parametrize("lead", ["inside a frame", "zeros", "zeros and the rest of a frame"])
def test_a_stream_is_read_from_its_first_whole_frame(streams: dict[str, bytes], kind: str, lead: str) -> None:
    data = streams[kind]
    starts = starts_of_frames(data, kind)
    whole = decode_source(data, AUDIO, clip_s=10.0)
    # For a transport stream: into the tables before the first frame.
    frame = 0 if kind == "mpegts" else len(starts) // 3
    inside = data[starts[frame] + 40 :]
    cut = {"inside a frame": inside, "zeros": bytes(RESYNC_BYTES - 8192) + data}
    cut["zeros and the rest of a frame"] = bytes(20_000) + inside
    lost_s = 0.0 if lead == "zeros" or kind == "mpegts" else SECONDS * (frame + 1) / len(starts)
    decoded = decode_source(cut[lead], AUDIO, clip_s=10.0)
    assert statuses(decoded) == {"audio": "ok"}
    assert whole.end_s is not None
    # One frame of MP3 is 36 ms, one of AAC 64 ms.
    assert decoded.end_s == pytest.approx(whole.end_s - lost_s, abs=0.08)


def test_what_begins_later_is_no_stream(streams: dict[str, bytes]) -> None:
    for kind, data in streams.items():
        assert identify(io.BytesIO(bytes(RESYNC_BYTES + 1) + data)) is None, kind
        noise = b"\x01" + np.random.default_rng(1).bytes(10_000)
        assert identify(io.BytesIO(noise + data)) is None, kind


def test_other_formats_that_hold_a_stream_are_not_taken_for_it(streams: dict[str, bytes]) -> None:
    for data in streams.values():
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as stored:
            stored.writestr("a", data)
        tape = io.BytesIO()
        with tarfile.open(fileobj=tape, mode="w") as packed:
            member = tarfile.TarInfo("a.mp3")
            member.size = len(data)
            packed.addfile(member, io.BytesIO(data))
        playlist = b"#EXTM3U\n#EXTINF:3,\nfile:///etc/hostname\n"
        for other in (archive.getvalue(), tape.getvalue(), playlist + data, b"ffconcat version 1.0\n" + data):
            assert identify(io.BytesIO(other)) is None


def test_chance_makes_no_stream() -> None:
    noise = np.random.default_rng(7)
    for _ in range(200):
        assert identify(io.BytesIO(b"\x01" + noise.bytes(20_000))) is None
    for pattern in (b"\0", b"\xff", b"\x47\x00", b"GATTACA"):
        assert identify(io.BytesIO(b"\x01" + pattern * 50_000)) is None


def test_a_file_on_disk_is_looked_at_in_part(tmp_path: Path) -> None:
    path = tmp_path / "zeros"
    with path.open("wb") as file:
        file.truncate(10**9)
    with path.open("rb") as file:
        assert identify(file) is None
        assert file.tell() < 2 * 2**16


@pytest.mark.parametrize(
    "data",
    [
        b"G" * 20_000,
        b"G\0\0\x10" * 5000,
        (b"G" + bytes(187)) * 30,
        (b"G" + b"a" * 187) * 30,
        b"".join(b"G" + b"GATTACA GATTACA" * 12 + b"GATTACA" for _ in range(40)),
        bytes(4) + (b"G\x01\0\x10" + bytes(188)) * 30,
        bytes(500) + b"G" * 20_000,
    ],
)
def test_sync_bytes_alone_are_no_transport_stream(data: bytes) -> None:
    assert identify(io.BytesIO(data)) is None


def test_a_transport_stream_is_known_wherever_it_begins_and_with_damage(streams: dict[str, bytes]) -> None:
    packets = [bytearray(streams["mpegts"][at : at + 188]) for at in range(0, len(streams["mpegts"]), 188)]
    for first in range(0, len(packets) - 30, 7):
        found = identify(io.BytesIO(b"".join(packets[first:])))
        assert found is not None
        assert found.demuxer == "mpegts"
    # M2TS: four bytes of time before each packet.
    timed = b"".join(bytes([0, 0, number % 256, 7]) + packet for number, packet in enumerate(packets))
    for packet in packets[1::3]:
        packet[1] |= 0x80
    for data in (timed, b"".join(packets)):
        found = identify(io.BytesIO(data))
        assert found is not None
        assert found.demuxer == "mpegts"
