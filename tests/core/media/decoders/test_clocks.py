"""Recordings whose clocks wrap, begin again, jump, drift or jitter: sound and pictures stand where they were made."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from dimml.media import DecodeRequest
from dimml.media.decoders.mixing import MONO, Sound
from dimml.media.decoders.recording import decode
from dimml.media.decoders.streams.sound_clock import SoundClock
from dimml.media.decoders.windows import WindowPlan, decode_windows
from dimml.modality import Frames, Waveform
from support.decoding import AUDIO, decode_source, loudest_s, request_for, row_of, statuses
from support.media_maker import click_at, read_number, tone, write_clip

RATE_HZ = 8000
TEN = Frames(name="visual", frames=10, height=32, width=48)
LONG = Waveform(name="audio", sample_rate_hz=RATE_HZ, samples=10 * RATE_HZ)
#: The clock of MPEG-TS has 33 bits at 90 kHz; FFmpeg writes a recording's time 0 as 1.4 s.
WRAP_S = 2**33 / 90_000


def restamped(path: Path, target: Path, stamp: Callable[[int, int, float], int]) -> Path:
    """The sound of a recording in a file of its own, with the stamp that ``stamp`` makes of number, ticks and tick."""
    with av.open(str(path)) as source, av.open(str(target), "w") as container:
        stream = source.streams.audio[0]
        new = container.add_stream_from_template(stream)
        for number, packet in enumerate(packet for packet in source.demux(stream) if packet.size):
            packet.pts = packet.dts = stamp(number, packet.pts, float(stream.time_base))
            packet.stream = new
            container.mux(packet)
    return target


def extent_s(path: Path) -> tuple[float, float]:
    """The first and the last moment of any packet."""
    with av.open(str(path)) as container:
        spans = [
            (float(packet.pts * packet.time_base), float((packet.pts + packet.duration) * packet.time_base))
            for packet in container.demux()
            if packet.size
        ]
    return min(begin for begin, _ in spans), max(end for _, end in spans)


@pytest.mark.parametrize("wraps_after_s", [0.5, 3.0, 30.0])
def test_a_transport_stream_that_wraps_its_clock(tmp_path: Path, wraps_after_s: float) -> None:
    offset_s = WRAP_S - 1.4 - wraps_after_s
    options = {"output_ts_offset": f"{offset_s:.6f}"}
    plain = write_clip(tmp_path / "plain.ts", 6.0, fps=10, sound=click_at(4.5), rate_hz=48_000)
    wraps = write_clip(tmp_path / "wraps.ts", 6.0, fps=10, sound=click_at(4.5), rate_hz=48_000, options=options)
    wanted, found = (
        decode(request_for(path, AUDIO, TEN, start_s=4.0, end_s=5.0, clip_s=1.0)) for path in (plain, wraps)
    )
    assert loudest_s(row_of(found, "audio"), RATE_HZ) == pytest.approx(0.51, abs=0.03)
    np.testing.assert_array_equal(row_of(found, "visual"), row_of(wanted, "visual"))
    np.testing.assert_allclose(row_of(found, "audio"), row_of(wanted, "audio"), atol=2e-3)
    whole = list(decode_windows(request_for(wraps, AUDIO, TEN), WindowPlan(1.0, 1.0)))
    assert whole[0].span is not None
    assert whole[0].span.end_s == pytest.approx(6.0, abs=0.1)


@pytest.mark.parametrize("offsets_s", [(0.0, 0.0), (0.0, 3600.0), (3600.0, 0.0), (100.0, 40.0), (0.0, 500.0, 0.0)])
def test_joined_transport_streams_follow_one_another(tmp_path: Path, offsets_s: tuple[float, ...]) -> None:
    """Each piece begins where the one before ends, with its sound and pictures as far apart as they were."""
    pieces = [
        write_clip(
            tmp_path / f"{number}.ts",
            3.0,
            fps=10,
            sound=click_at(1.55),
            rate_hz=48_000,
            options={"output_ts_offset": str(offset_s)},
        )
        for number, offset_s in enumerate(offsets_s)
    ]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(piece.read_bytes() for piece in pieces))
    begin_s, end_s = extent_s(pieces[0])
    for number in range(len(pieces)):
        at_s = number * (end_s - begin_s)
        decoded = decode_source(joined, AUDIO, TEN, start_s=at_s + 1.0, end_s=at_s + 2.0)
        alone = decode_source(pieces[number], AUDIO, TEN, start_s=1.0, end_s=2.0)
        here, there = (loudest_s(row_of(one, "audio"), RATE_HZ) for one in (decoded, alone))
        assert here == pytest.approx(there, abs=0.002), number
        np.testing.assert_array_equal(row_of(decoded, "visual"), row_of(alone, "visual"))
    found = list(decode_windows(request_for(joined, AUDIO, TEN), WindowPlan(1.0, 1.0)))
    assert found[0].span is not None
    assert found[0].span.end_s == pytest.approx(len(pieces) * (end_s - begin_s), abs=0.01)
    assert all(set(statuses(one.decoded).values()) <= {"ok", "unusable:silent"} for one in found)


def test_rare_pictures_beside_sound_are_no_jump(tmp_path: Path) -> None:
    """Slides that stay for 12 and 13 s in a transport stream: nothing was joined."""
    path = write_clip(
        tmp_path / "slides.ts", 28.0, picture_times_s=[0.0, 12.0, 25.0], sound=click_at(26.5), rate_hz=16_000
    )
    decoded = decode_source(path, AUDIO, TEN, start_s=26.0, end_s=27.0)
    assert loudest_s(row_of(decoded, "audio"), RATE_HZ) == pytest.approx(0.51, abs=0.07)
    assert {read_number(frame) for frame in row_of(decoded, "visual")} == {2}
    before = decode_source(path, TEN, start_s=20.0, end_s=21.0)
    assert {read_number(frame) for frame in row_of(before, "visual")} == {1}


@pytest.mark.parametrize(("suffix", "codec"), [("mkv", "pcm_s16le"), ("ts", "aac"), ("mp4", "aac"), ("flv", "aac")])
@pytest.mark.parametrize("speed", [1.005, 0.995])
def test_a_sound_clock_that_is_half_a_percent_off(tmp_path: Path, suffix: str, codec: str, speed: float) -> None:
    """The sound follows its stamps all along, without a gap or a click."""
    steady = tone(440.0, 0.2)
    sound = lambda time_s: steady(time_s) + 0.7 * click_at(7.0)(time_s)  # noqa: E731
    path = write_clip(tmp_path / f"a.{suffix}", 10.0, picture=None, sound=sound, audio_codec=codec, rate_hz=44_100)
    moved = restamped(path, tmp_path / f"b.{suffix}", lambda _, pts, __: round(pts * speed))
    before, wave = (
        row_of(decode(DecodeRequest((LONG,), {"audio": one}, clip_s=20.0)), "audio") for one in (path, moved)
    )
    assert loudest_s(wave, RATE_HZ) == pytest.approx(loudest_s(before, RATE_HZ) * speed, abs=0.003)
    for begin_s, end_s in ((0.5, 6.5), (7.5, 9.5)):
        part = wave[round(begin_s * RATE_HZ) : round(end_s * RATE_HZ)]
        assert np.abs(part.reshape(-1, RATE_HZ // 200)).max(axis=1).min() > 0.15
        assert np.abs(np.diff(part)).max() < 1.2 * 0.2 * 2 * np.pi * 440 / RATE_HZ


@pytest.mark.parametrize("jump_s", [0.015, -0.015, 0.03])
def test_a_jump_of_the_sound_is_followed(tmp_path: Path, jump_s: float) -> None:
    """As in fragmented MP4, whose first sample is long: all after it stands later by as much."""
    path = write_clip(tmp_path / "a.mkv", 2.0, picture=None, sound=click_at(1.3), audio_codec="pcm_s16le")
    stamp = lambda number, pts, tick_s: pts + (round(jump_s / tick_s) if number else 0)  # noqa: E731
    moved = restamped(path, tmp_path / "b.mkv", stamp)
    for source, wanted_s in ((path, 1.31), (moved, 1.31 + jump_s)):
        wave = row_of(decode(DecodeRequest((LONG,), {"audio": source}, clip_s=10.0)), "audio")
        assert loudest_s(wave, RATE_HZ) == pytest.approx(wanted_s, abs=0.001)


def test_fragmented_mp4_has_its_sound_in_time(tmp_path: Path) -> None:
    fragmented = write_clip(
        tmp_path / "clip.mp4", 2.0, sound=click_at(1.3), options={"movflags": "frag_keyframe+empty_moov"}
    )
    with av.open(str(fragmented)) as container:
        first, second = [packet.pts for packet in container.demux(audio=0) if packet.size][:2]
        assert (first, second) == (0, 1024 + 256)
        picture_s = float(container.streams.video[0].start_time * container.streams.video[0].time_base)
    wave = row_of(decode(DecodeRequest((LONG,), {"audio": fragmented}, clip_s=10.0)), "audio")
    # The pictures begin at 80 ms, and so does the sound behind the encoder's 64 ms and the gap of 16 ms.
    assert loudest_s(wave, RATE_HZ) == pytest.approx(1.31 + picture_s, abs=0.002)


def placed(clock: SoundClock, stamps_s: list[float], samples: int) -> tuple[list[int], list[int]]:
    """Starts and lengths of frames of ones."""
    frames = [clock.add(Sound(np.ones((1, samples), np.float32), MONO), time_s) for time_s in stamps_s]
    found = [pair for some in [*frames, clock.finish()] for pair in some]
    return [at for at, _ in found if at is not None], [len(mono) for _, mono in found]


def test_stamps_within_a_tick_leave_frames_in_a_row() -> None:
    """Rounded down, up and to the nearest 1 ms."""
    exact = [number * 1024 / 48_000 for number in range(50)]
    for rounded in (np.floor, np.ceil, np.round):
        starts, lengths = placed(SoundClock(48_000, 0.001), [rounded(t * 1000) / 1000 for t in exact], 1024)
        assert (np.diff(starts) == 1024).all()
        assert set(lengths) == {1024}


def test_one_stamp_that_is_off_moves_nothing() -> None:
    """FFmpeg's Vorbis decoder gives some frames a stamp of half a block too much."""
    stamps_s = [number * 512 / 16_000 for number in range(20)]
    stamps_s[7] += 0.008
    starts, _ = placed(SoundClock(16_000, 1 / 16_000), stamps_s, 512)
    assert (np.diff(starts) == 512).all()


def test_stamps_of_a_jittery_clock_are_followed_without_gaps() -> None:
    """A browser's MP4: stamps by the wall clock, up to 1.4 ms around a clock that is 0.2 % slow."""
    rng = np.random.default_rng(3)
    true_s = np.arange(200) * 2880 / 48_000 * 1.002
    starts, lengths = placed(SoundClock(48_000, 1 / 48_000), list(true_s + rng.uniform(0, 0.0014, 200)), 2880)
    assert (np.diff(starts) == lengths[:-1]).all()
    assert np.abs(np.array(starts) / 48_000 - true_s).max() < 0.002
    assert max(lengths) - 2880 < 0.001 * 48_000


def test_frames_without_stamps_follow() -> None:
    clock = SoundClock(8000, Fraction(1, 8000))
    frames = [clock.add(np.ones(100, np.float32), time_s) for time_s in (1.0, None, None, 1.5, None)]
    found = [at for some in [*frames, clock.finish()] for at, _ in some]
    assert found == [8000, 8100, 8200, 12_000, 12_100]
