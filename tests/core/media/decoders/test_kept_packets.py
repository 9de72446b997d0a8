"""Packets of short recordings are decoded as the scan found them: bit for bit what reading the file again gives."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from dimml.media import MediaLimits
from dimml.media.decoders import packet_index
from dimml.media.decoders.container import open_container
from dimml.media.decoders.packet_index import scan
from dimml.media.types import Decoded
from dimml.modality import Frames, Waveform
from support.decoding import decode_source, row_of, statuses
from support.media_maker import click_at, write_clip

SOUND = Waveform(name="audio", sample_rate_hz=16_000, samples=32_000)
PICTURE = Frames(name="visual", frames=4, height=32, width=48)
#: Container, codec of the sound, its rate.
CODECS = [
    ("mp4", "aac", 44_100),
    ("mov", "pcm_s16le", 16_000),
    ("mkv", "ac3", 44_100),
    ("mkv", "libmp3lame", 44_100),
    ("mkv", "flac", 16_000),
    ("webm", "libopus", 48_000),
]


@pytest.mark.parametrize(("suffix", "codec", "rate_hz"), CODECS)
def test_rows_are_those_of_reading_the_file_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, codec: str, rate_hz: int
) -> None:
    video = "libvpx" if suffix == "webm" else "libx264"
    clip = write_clip(
        tmp_path / f"clip.{suffix}", 2.0,
        sound=click_at(1.1, 0.3), audio_codec=codec, rate_hz=rate_hz, video_codec=video, sound_delay_s=0.12,
    )  # fmt: skip

    def rows(start_s: float, end_s: float) -> Decoded:
        return decode_source(clip, SOUND, PICTURE, start_s=start_s, end_s=end_s)

    stretches = [(0.0, 2.0), (0.0, 0.5), (0.7, 1.3), (1.1, 1.7), (1.6, 2.0)]
    kept = [rows(*stretch) for stretch in stretches]
    monkeypatch.setattr(packet_index, "MAX_KEPT_BYTES", 0)
    for found, stretch in zip(kept, stretches, strict=True):
        again = rows(*stretch)
        assert statuses(found) == statuses(again)
        assert (found.start_s, found.end_s) == (again.start_s, again.end_s)
        for name, track in again.tracks.items():
            assert found.tracks[name].times_s == track.times_s
            if track.row is not None:
                np.testing.assert_array_equal(row_of(found, name), track.row)


def kept_packets(data: bytes) -> list[int] | None:
    """Sizes of the packets that a scan of all streams keeps."""
    container = open_container(data, "mov", MediaLimits())
    assert container is not None
    with container:
        packets = scan(container, container.streams.get(), keep=True).packets
        return None if packets is None else [packet.size for packet in packets]


def test_all_packets_are_kept_and_those_that_flush(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 1.0)
    with av.open(str(clip)) as container:
        sizes = [packet.size for packet in container.demux()]
    assert kept_packets(clip.read_bytes()) == sizes
    assert sizes[-2:] == [0, 0]


def test_no_packets_are_kept_above_the_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_clip(tmp_path / "clip.mp4", 1.0).read_bytes()
    sizes = kept_packets(data)
    assert sizes is not None
    monkeypatch.setattr(packet_index, "MAX_KEPT_BYTES", sum(sizes) - 1)
    assert kept_packets(data) is None
    monkeypatch.setattr(packet_index, "MAX_KEPT_BYTES", sum(sizes))
    assert kept_packets(data) == sizes
