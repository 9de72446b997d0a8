"""A recording in windows: each holds what ``decode`` gives for the same range, decoded in one pass."""

from __future__ import annotations

import os
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dimml.errors import InvalidParameterError, UnreadableError
from dimml.media import decode
from dimml.media.decoders.time_range import Window
from dimml.media.decoders.windows import WindowDecoded, WindowPlan, decode_windows
from dimml.media.types import MediaLimits, Source
from dimml.media.workers.pool import DecodePool
from dimml.media.workers.timeline import decode_timeline
from support.decoding import AUDIO, VISUAL, request_for, statuses
from support.media_maker import tone, write_clip


def windows(source: Source, window_s: float, stride_s: float, **options: object) -> list[WindowDecoded]:
    request = request_for(source, clip_s=1.0, **options)  # type: ignore[arg-type]
    return list(decode_windows(request, WindowPlan(window_s, stride_s)))


def test_too_many_windows_are_refused_before_they_are_listed(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.wav", 5.0, picture=None, audio_codec="pcm_s16le")
    plan = WindowPlan(1.0, 1e-9, most=2000)
    with pytest.raises(InvalidParameterError, match="more than timeline_windows = 2000; ask for a longer hop_s"):
        next(decode_windows(request_for(path, clip_s=1.0), plan))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", {}),
        ("b.mkv", {"audio_codec": "libopus", "rate_hz": 48_000}),
        ("short_sound.mp4", {"sound_seconds": 3.2}),
        ("late_picture.mp4", {"picture_delay_s": 1.3}),
        ("alone.mp4", {"sound": None}),
        ("c.wav", {"picture": None, "audio_codec": "pcm_s16le"}),
    ],
)
@pytest.mark.parametrize(("window_s", "stride_s"), [(2.0, 1.0), (0.6, 0.25), (1.0, 1.7)])
def test_a_window_is_what_decoding_its_range_alone_gives(
    tmp_path: Path, name: str, options: dict[str, object], window_s: float, stride_s: float
) -> None:
    path = write_clip(tmp_path / name, 5.0, **options)  # type: ignore[arg-type]
    found = windows(path, window_s, stride_s)
    assert found[0].span is not None
    assert len(found) == found[0].count == WindowPlan(window_s, stride_s).count(found[0].span)
    for number, one in enumerate(found):
        assert one.number == number
        assert one.window is not None
        assert one.window.start_s == pytest.approx(number * stride_s)
        alone = decode(request_for(path, clip_s=1.0, start_s=one.window.start_s, end_s=one.window.end_s))
        assert statuses(one.decoded) == statuses(alone)
        for modality, track in one.decoded.tracks.items():
            wanted = alone.tracks[modality]
            assert track.times_s == wanted.times_s
            if wanted.row is not None and track.row is not None:
                if modality == "visual":
                    assert np.array_equal(track.row, wanted.row)
                elif name.endswith(".mkv"):
                    # Opus that starts in the middle lies some ms beside where it lies when it is decoded throughout.
                    assert np.abs(track.row).mean() == pytest.approx(np.abs(wanted.row).mean(), rel=0.05)
                else:
                    # A codec that starts elsewhere has another past: sound may differ a little.
                    assert np.abs(track.row - wanted.row).max() <= 0.02
    last = found[-1].window
    assert last is not None
    if stride_s < window_s:
        assert last.end_s == pytest.approx(found[0].span.end_s, abs=0.1)


def test_windows_can_begin_in_the_middle(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", 5.0)
    plan, request = WindowPlan(1.0, 0.5), request_for(path)
    whole, rest = list(decode_windows(request, plan)), list(decode_windows(request, plan, first=5))
    assert [one.number for one in rest] == [one.number for one in whole[5:]]
    for a, b in zip(whole[5:], rest, strict=True):
        assert np.array_equal(a.decoded.tracks["visual"].row, b.decoded.tracks["visual"].row)  # type: ignore[arg-type]


def test_windows_of_a_range(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", 5.0)
    request = replace(request_for(path), start_s=1.0, end_s=3.5)
    found = [one.window for one in decode_windows(request, WindowPlan(1.0, 1.0))]
    assert found == [Window(1.0, 2.0), Window(2.0, 3.0), Window(3.0, 3.5)]
    with pytest.raises(InvalidParameterError, match="past the end"):
        list(decode_windows(replace(request_for(path), start_s=9.0), WindowPlan(1.0, 1.0)))


def test_what_has_no_time_is_one_window_without_one(tmp_path: Path) -> None:
    text = tmp_path / "a.mp4"
    text.write_bytes(b"no recording" * 99)
    (one,) = windows(text, 1.0, 1.0)
    assert (one.window, one.count) == (None, 1)
    assert statuses(one.decoded) == {"audio": "unusable:undecodable", "visual": "unusable:undecodable"}
    with pytest.raises(UnreadableError):
        windows(tmp_path / "gone.mp4", 1.0, 1.0)


def test_a_file_for_each_modality_and_one_that_ends_first(tmp_path: Path) -> None:
    sound = write_clip(tmp_path / "a.wav", 4.0, picture=None, audio_codec="pcm_s16le", sound=tone(500.0))
    picture = write_clip(tmp_path / "b.mp4", 2.0, sound=None)
    request = replace(request_for(sound), sources={"audio": sound, "visual": picture})
    found = [statuses(one.decoded) for one in decode_windows(request, WindowPlan(1.0, 1.0))]
    assert [one["audio"] for one in found] == ["ok"] * 4
    assert [one["visual"] for one in found] == ["ok", "ok", "absent:track_ended", "absent:track_ended"]


def test_memory_does_not_grow_with_the_recording(tmp_path: Path) -> None:
    """Of a recording ten times as long, the peak of what Python allocates stays the same (but for packet times)."""
    peaks = []
    for seconds in (6.0, 60.0):
        path = write_clip(tmp_path / f"{seconds}.mp4", seconds, fps=10)
        request = replace(request_for(path, AUDIO, VISUAL), limits=MediaLimits(max_seconds=10.0))
        tracemalloc.start()
        count = sum(1 for _ in decode_windows(request, WindowPlan(2.0, 0.5)))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert count > seconds
    assert peaks[1] < 2.0 * peaks[0]


def test_windows_out_of_a_worker_are_the_same(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", 6.0)
    plan, request = WindowPlan(1.0, 0.1), request_for(path)
    wanted = list(decode_windows(request, plan))
    with DecodePool(1) as pool:
        found = list(decode_timeline(pool, request, plan, timeout_s=60.0))
        assert [one.window for one in found] == [one.window for one in wanted]
        for a, b in zip(found, wanted, strict=True):
            assert np.array_equal(a.decoded.tracks["visual"].row, b.decoded.tracks["visual"].row)  # type: ignore[arg-type]
        assert pool.workers_lost == 0
        with pytest.raises(UnreadableError):
            list(decode_timeline(pool, request_for(tmp_path / "gone.mp4"), plan, timeout_s=60.0))


def test_a_worker_killed_in_the_middle_costs_no_window(tmp_path: Path) -> None:
    """The next worker goes on from the window that was next; nothing is to blame, so nothing is unusable."""
    path = write_clip(tmp_path / "a.mp4", 20.0)
    with DecodePool(1) as pool:
        found = []
        for one in decode_timeline(pool, request_for(path), WindowPlan(1.0, 0.05), timeout_s=60.0):
            if one.number == 3:
                worker = pool._supervisors[0]._worker
                assert worker is not None
                worker.kill()
            found.append(one)
        assert pool.workers_lost >= 1
    assert [one.number for one in found] == list(range(found[0].count))
    assert all(set(statuses(one.decoded).values()) == {"ok"} for one in found)


def test_a_track_that_kills_workers_costs_itself_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decode worker that is made to die at every picture."""
    path = write_clip(tmp_path / "a.mp4", 4.0)
    crashing = tmp_path / "site" / "sitecustomize.py"
    crashing.parent.mkdir()
    crashing.write_text(
        "import os, sys\n"
        "sys.path[:0] = os.environ['DIMML_TEST_PATH'].split(os.pathsep)\n"
        "import dimml.media.decoders.streams.picture_reader as t\n"
        "t.PictureReader.take = lambda self, frame: os._exit(9)\n"
    )
    monkeypatch.setenv("DIMML_TEST_PATH", os.pathsep.join(sys.path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(crashing.parent), os.environ.get("PYTHONPATH", "")]))
    with DecodePool(1) as pool:
        found = list(decode_timeline(pool, request_for(path), WindowPlan(1.0, 0.5), timeout_s=60.0))
    assert [one.number for one in found] == list(range(7))
    assert [statuses(one.decoded) for one in found] == [{"audio": "ok", "visual": "unusable:decoder_crashed"}] * 7
