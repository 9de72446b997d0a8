"""Stamps of decoding where stamps of presentation belong: ASF with B-pictures of MPEG-1 and MPEG-2."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from dimml.media.decoders.streams.picture_order import stamped_by_decoding
from dimml.modality import Frames, Waveform
from support.decoding import decode_source, statuses

PICTURE = Frames(name="visual", frames=4, height=16, width=16)
SOUND = Waveform(name="audio", sample_rate_hz=8000, samples=8000)


def clip(path: Path, codec: str, b_pictures: int) -> Path:
    with av.open(str(path), "w", format="asf" if path.suffix == ".wmv" else None) as container:
        video = container.add_stream(codec, rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.codec_context.options = {"bf": str(b_pictures)}
        for number in range(25):
            rgb = np.full((48, 64, 3), 9 * number, np.uint8)
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts = number
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    return path


@pytest.mark.parametrize("codec", ["mpeg1video", "mpeg2video"])
def test_asf_without_the_order_of_its_pictures_is_refused_by_name(tmp_path: Path, codec: str) -> None:
    decoded = decode_source(clip(tmp_path / "clip.wmv", codec, 2), PICTURE, SOUND)
    assert statuses(decoded) == {"visual": "unusable:unsupported", "audio": "absent:no_track"}
    assert "B-pictures" in str(decoded.tracks["visual"].status.detail)
    assert "MP4" in str(decoded.tracks["visual"].status.detail)


@pytest.mark.parametrize(
    ("name", "codec", "b_pictures"),
    [
        ("clip.wmv", "mpeg2video", 0),
        ("clip.wmv", "mpeg1video", 0),
        ("clip.wmv", "mpeg4", 2),
        ("clip.mkv", "mpeg2video", 2),
    ],
)
def test_others_are_read(tmp_path: Path, name: str, codec: str, b_pictures: int) -> None:
    assert statuses(decode_source(clip(tmp_path / name, codec, b_pictures), PICTURE)) == {"visual": "ok"}


def packets(*pictures: tuple[int, str]) -> list[av.Packet]:
    """One packet of a picture header for each stamp and type, ISO/IEC 13818-2, 6.2.3."""
    made = []
    for pts, kind in pictures:
        packet = av.Packet(b"\0\0\1\0" + (("IPB".index(kind) + 1) << 3).to_bytes(2, "big") + bytes(4))
        packet.pts = pts
        made.append(packet)
    return made


@pytest.mark.parametrize(
    ("pictures", "wrong"),
    [
        ([(0, "I"), (1, "P"), (2, "B")], True),
        ([(0, "I"), (2, "P"), (1, "B")], False),  # as recorders of television write it, in an extension of ASF
        ([(0, "I"), (1, "P"), (2, "P")], False),
        ([], False),
    ],
)
def test_b_pictures_behind_rising_stamps_are_what_tells(pictures: list[tuple[int, str]], wrong: bool) -> None:
    assert stamped_by_decoding(packets(*pictures)) is wrong
