"""Pictures that are neither shown nor needed by others are not decoded; every row is the same, bit for bit.

So it is whether the packets of the scan are decoded or the file is read again from a keyframe.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.frame import PictureType

from dimml.media.decoders import packet_index
from dimml.media.decoders.streams import picture_reader
from dimml.media.decoders.streams.picture_reader import PictureReader
from dimml.media.types import Decoded, Source
from dimml.modality import Flow, Frames
from support.decoding import AUDIO, decode_source, row_of, statuses
from support.media_maker import numbered_picture, read_number, write_clip

FPS, PICTURES = 25, 75
FRAMES = Frames(name="visual", frames=4, height=64, width=96)
MOTION = Flow(name="motion", frames=3, height=16, width=24, bound_px=8.0)
X264 = {"crf": "12", "bf": "3", "b_strategy": "0", "x264-params": "b-pyramid=strict:keyint=40"}
X265 = {"crf": "12", "preset": "ultrafast"}
#: Codec, container, options of the encoder.
CLIPS: dict[str, tuple[str, str, dict[str, str]]] = {
    "H.264 in MP4": ("libx264", "mp4", X264),
    "H.264 in Matroska": ("libx264", "mkv", X264),
    "H.264 without a pyramid": ("libx264", "mov", X264 | {"x264-params": "b-pyramid=none:keyint=250"}),
    "H.264, open groups": ("libx264", "mp4", X264 | {"x264-params": "open-gop=1:keyint=20"}),
    "H.264, interlaced": ("libx264", "mp4", X264 | {"x264-params": "interlaced=1:keyint=40"}),
    "HEVC": ("libx265", "mp4", X265 | {"x265-params": "bframes=4:keyint=40:log-level=none"}),
    "HEVC, open groups": ("libx265", "mkv", X265 | {"x265-params": "bframes=3:open-gop=1:keyint=12:log-level=none"}),
    "HEVC, layers": ("libx265", "mp4", X265 | {"x265-params": "bframes=3:temporal-layers=3:log-level=none"}),
    "MPEG-4": ("mpeg4", "mp4", {"bf": "2", "q": "3"}),
    "MPEG-2": ("mpeg2video", "mkv", {"bf": "2", "q": "3"}),
}


def written(path: Path, codec: str, options: dict[str, str]) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for number in range(PICTURES):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(numbered_picture(number), format="rgb24")))
        container.mux(stream.encode(None))
    return path


class Counted:
    """Decodes with pictures left out, and all of them, and counts what comes out of the decoder."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch
        self.taken = 0
        take = PictureReader.take

        def counted(reader: PictureReader, frame: Any) -> None:
            self.taken += 1
            take(reader, frame)

        monkeypatch.setattr(PictureReader, "take", counted)

    def decode(
        self, source: Source, *, all_pictures: bool = False, read_again: bool = False, **options: Any
    ) -> Decoded:
        self.taken = 0
        with self._patch.context() as patch:
            if read_again:
                patch.setattr(packet_index, "MAX_KEPT_BYTES", 0)
            if all_pictures:
                patch.setattr(picture_reader, "_LEAVING_OUT", frozenset())
            return decode_source(source, FRAMES, MOTION, AUDIO, **options)

    def compare(self, source: Source, **options: Any) -> tuple[int, int]:
        """Assert that both give the same; return how many pictures were decoded with some left out, and of all."""
        right = self.decode(source, all_pictures=True, read_again=True, **options)
        of_all = self.taken
        read_again = self.decode(source, read_again=True, **options)
        some = self.taken
        for found in (read_again, self.decode(source, **options)):
            assert self.taken == some
            assert (found.start_s, found.end_s) == (right.start_s, right.end_s)
            assert statuses(found) == statuses(right)
            for name, track in right.tracks.items():
                assert found.tracks[name].times_s == track.times_s
                if track.row is not None:
                    np.testing.assert_array_equal(row_of(found, name), track.row)
        return some, of_all


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(monkeypatch)


@pytest.mark.parametrize("name", CLIPS)
def test_rows_are_the_same(tmp_path: Path, counted: Counted, name: str) -> None:
    codec, suffix, options = CLIPS[name]
    path = written(tmp_path / f"a.{suffix}", codec, options)
    some, of_all = counted.compare(path)
    assert some < 0.8 * of_all
    for first in (0, 7, 30, 39, 61):
        stretch = {"start_s": first / FPS, "end_s": (first + 8) / FPS}
        counted.compare(path, **stretch)
        numbers = [read_number(frame) for frame in row_of(counted.decode(path, **stretch), "visual")]
        assert numbers == [first + 1, first + 3, first + 5, first + 7]


def test_where_a_picture_does_not_come_all_are_decoded(tmp_path: Path, counted: Counted) -> None:
    """What is on screen in its place is the one before it, which no other needs."""
    path = written(tmp_path / "a.mp4", "mpeg4", {"bf": "2", "q": "3"})
    with av.open(str(path)) as container:
        sizes = {round(p.pts * p.time_base * FPS): (p.pos, p.size) for p in container.demux(video=0) if p.size}
    with av.open(str(path)) as container:
        between = [frame.pict_type == PictureType.B for frame in container.decode(video=0)]
    damaged = next(n for n in range(30, PICTURES) if between[n - 1] and between[n])
    place, size = sizes[damaged]
    data = bytearray(path.read_bytes())
    data[place : place + size] = bytes(size)
    stretch = {"start_s": (damaged - 5) / FPS, "end_s": (damaged + 3) / FPS}
    some, of_all = counted.compare(bytes(data), **stretch)
    assert some > of_all
    numbers = [read_number(frame) for frame in row_of(counted.decode(bytes(data), **stretch), "visual")]
    assert numbers == [damaged - 4, damaged - 2, damaged - 1, damaged + 2]


def test_how_many_pictures_there_are_counts_those_left_out(tmp_path: Path, counted: Counted) -> None:
    path = written_at_rest(tmp_path / "a.mp4")
    counted.compare(path)
    assert statuses(counted.decode(path))["visual"] == "unusable:frozen"


def written_at_rest(path: Path) -> Path:
    """The same picture all the time, with pictures between that no other needs."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options=X264)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for _ in range(PICTURES):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(numbered_picture(77), format="rgb24")))
        container.mux(stream.encode(None))
    return path


def test_where_packets_have_the_times_of_decoding_all_are_decoded(tmp_path: Path, counted: Counted) -> None:
    made = written(tmp_path / "a.mp4", "libx264", X264)
    path = tmp_path / "b.mp4"
    with av.open(str(made)) as source, av.open(str(path), "w") as container:
        copy = container.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.pts, packet.stream = packet.dts, copy
                container.mux(packet)
    some, of_all = counted.compare(path)
    assert some == of_all


def test_in_formats_without_a_time_for_each_picture_all_are_decoded(tmp_path: Path, counted: Counted) -> None:
    path = write_clip(tmp_path / "a.ts", 2.0)
    some, of_all = counted.compare(path)
    assert some == of_all
