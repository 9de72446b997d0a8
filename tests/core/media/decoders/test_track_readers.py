"""Readers that packets are handed to: no file, no scan, windows that come one by one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from dimml.media.decoders.streams.picture_reader import PictureReader
from dimml.media.decoders.time_range import Window
from dimml.media.decoders.track_readers import SoundReader
from dimml.media.decoders.windows import WindowPlan, decode_windows
from dimml.media.types import MediaLimits
from support.decoding import AUDIO, VISUAL, request_for, row_of, statuses
from support.media_maker import damage_packets, write_clip


def steps(taken: list[Window]) -> Iterator[Window]:
    """Windows of a second, every half of one, without end; notes how many were asked for."""
    number = 0
    while True:
        taken.append(Window(0.5 * number, 0.5 * number + 1.0))
        yield taken[-1]
        number += 1


def pushed(path: Path, taken: list[Window]) -> Iterator[tuple[str, Any]]:
    """Windows as they are filled, while the recording is still being read."""
    with av.open(str(path)) as container:
        sound = SoundReader(container.streams.audio[0], None, 0.0, steps(taken))
        picture = PictureReader(
            container.streams.video[0], None, 0.0, steps(taken), modalities=[VISUAL], limits=MediaLimits()
        )
        readers: dict[int, Any] = {reader.stream.index: reader for reader in (sound, picture)}
        for packet in container.demux(sound.stream, picture.stream):
            if packet.size:
                readers[packet.stream.index].feed(packet)
                yield from (("audio", segment) for segment in sound.ready())
                yield from (("visual", segment) for segment in picture.ready())
            # Four seconds and half a minute are held alike.
            assert max(len(reader._index.times_s) for reader in readers.values()) < 100


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", {}),
        ("late_picture.mp4", {"picture_delay_s": 0.7}),
        ("b.mkv", {"audio_codec": "pcm_s16le", "video_codec": "ffv1"}),
        ("c.webm", {"audio_codec": "libopus", "video_codec": "libvpx", "rate_hz": 48_000}),
    ],
)
def test_packets_from_outside_give_the_windows_of_the_file(
    tmp_path: Path, name: str, options: dict[str, object]
) -> None:
    path = write_clip(tmp_path / name, 6.0, **options)  # type: ignore[arg-type]
    wanted = list(decode_windows(request_for(path, clip_s=1.0), WindowPlan(1.0, 0.5)))
    taken: list[Window] = []
    found: dict[str, list[Any]] = {"audio": [], "visual": []}
    for kind, segment in pushed(path, taken):
        found[kind].append(segment)
    # All but what waits for the end of the track; and no window was asked for much before its time.
    assert len(found["audio"]) >= 8
    assert len(found["visual"]) >= 8
    assert max(window.start_s for window in taken) < 7.0
    for one, segment in zip(wanted, found["audio"], strict=False):
        np.testing.assert_array_equal(segment.row(AUDIO).row, row_of(one.decoded, "audio"))
    for one, segment in zip(wanted, found["visual"], strict=False):
        assert segment.decoded
        np.testing.assert_array_equal(segment.rows[0].array, row_of(one.decoded, "visual"))
        assert tuple(segment.rows[0].times_s) == one.decoded.tracks["visual"].times_s


def test_what_was_due_and_did_not_decode_is_told_from_what_never_came(tmp_path: Path) -> None:
    """As in a file: undecodable is not silence."""
    good = write_clip(tmp_path / "a.mp4", 3.0, audio_codec="aac", sound_seconds=1.2)
    for path, undecodable in ((good, False), (tmp_path / "noise.mp4", True)):
        if undecodable:
            path.write_bytes(damage_packets(good, "audio"))
        wanted = [statuses(one.decoded)["audio"] for one in decode_windows(request_for(path), WindowPlan(1.0, 1.0))]
        with av.open(str(path)) as container:
            stream = container.streams.audio[0]
            windows = (Window(float(number), number + 1.0) for number in range(3))
            reader = SoundReader(stream, None, 0.0, windows)
            segments = []
            for packet in container.demux(stream):
                if packet.size:
                    reader.feed(packet)
                    segments += reader.ready()
            reader.flush()
            segments += reader.rest()
            assert reader.done
        found = [
            f"absent:{segment.absent}"
            if segment.absent
            else "unusable:undecodable"
            if (row := segment.row(AUDIO).row) is None
            else "ok"
            if row.any()
            else "unusable:silent"
            for segment in segments
        ]
        assert found == wanted
