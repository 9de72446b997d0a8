"""Sound: the right samples, at the right rate, at the right time, from every kind of file."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from dimml.modality import Waveform
from support.decoding import AUDIO, VISUAL, decode_source, loudest_s, row_of, statuses
from support.media_maker import click_at, tone, write_clip

RATE_HZ = 8000


def frequency_hz(wave: np.ndarray, rate_hz: int = RATE_HZ) -> float:
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave))))
    return float(spectrum.argmax() * rate_hz / len(wave))


def wav_bytes(samples: np.ndarray, rate_hz: int, subtype: str = "PCM_16", file_format: str = "WAV") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate_hz, format=file_format, subtype=subtype)
    return file.getvalue()


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        ("mp4", {}),
        ("mov", {"audio_codec": "pcm_s16le", "rate_hz": 48_000}),
        ("mkv", {"audio_codec": "pcm_s16le", "rate_hz": 44_100}),
        ("mkv", {"audio_codec": "flac", "rate_hz": 22_050}),
        ("webm", {"video_codec": "libvpx", "audio_codec": "libopus", "rate_hz": 48_000}),
        ("avi", {"video_codec": "mpeg4", "audio_codec": "libmp3lame", "rate_hz": 44_100}),
        ("flv", {"rate_hz": 44_100}),
        ("ts", {"rate_hz": 48_000}),
        ("mp4", {"picture": None, "channels": 2, "rate_hz": 44_100}),
        ("wav", {"picture": None, "audio_codec": "pcm_s16le"}),
        ("flac", {"picture": None, "audio_codec": "flac"}),
        ("mp3", {"picture": None, "audio_codec": "libmp3lame"}),
        ("ogg", {"picture": None, "audio_codec": "libopus", "rate_hz": 48_000}),
        ("aac", {"picture": None, "rate_hz": 44_100}),
    ],
)
def test_a_tone_keeps_its_pitch_and_loudness(tmp_path: Path, suffix: str, options: dict) -> None:
    path = write_clip(tmp_path / f"clip.{suffix}", 2.0, sound=tone(440.0, 0.4), **options)
    wave = row_of(decode_source(path, AUDIO), "audio")
    assert wave.shape == (8000,)
    assert wave.dtype == np.float32
    assert frequency_hz(wave) == pytest.approx(440.0, abs=1.5)
    # The spectrum's peak rather than the largest sample: lossy encoders crackle.
    assert 2 * np.abs(np.fft.rfft(wave * np.hanning(8000))).max() / 4000 == pytest.approx(0.4, rel=0.1)


def test_no_clicks_from_rounded_time_stamps(tmp_path: Path) -> None:
    """Matroska and FLV round times to 1 ms; samples must still follow one another."""
    for suffix in ("mkv", "flv"):
        path = write_clip(tmp_path / f"clip.{suffix}", 2.0, sound=tone(440.0, 0.4), rate_hz=44_100)
        wave = row_of(decode_source(path, AUDIO), "audio")
        spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave))))
        peak = int(spectrum.argmax())
        rest = np.delete(spectrum, range(peak - 5, peak + 6))
        assert rest.max() < 0.01 * spectrum[peak], suffix


def test_resampling_equals_the_tone_itself() -> None:
    time_s = np.arange(44_100) / 44_100
    data = wav_bytes((0.5 * np.sin(2 * np.pi * 300 * time_s)).astype(np.float32), 44_100, "FLOAT")
    wave = row_of(decode_source(data, AUDIO, start_s=0.25, end_s=0.75), "audio")
    expected = 0.5 * np.sin(2 * np.pi * 300 * (0.25 + np.arange(4000) / RATE_HZ))
    # The window's edges are as exact as its middle: the resampler saw what lies around it.
    np.testing.assert_allclose(wave[:4000], expected, atol=2e-3)
    assert not wave[4000:].any()


def test_mono_is_the_mean_of_the_channels(tmp_path: Path) -> None:
    time_s = np.arange(8000) / RATE_HZ
    left, right = np.sin(2 * np.pi * 200 * time_s) * 0.6, np.sin(2 * np.pi * 900 * time_s) * 0.2
    stereo = np.stack([left, right], axis=1)
    for file_format in ("WAV", "FLAC"):
        wave = row_of(decode_source(wav_bytes(stereo, RATE_HZ, file_format=file_format), AUDIO), "audio")
        np.testing.assert_allclose(wave, stereo.mean(axis=1), atol=1e-4)
    path = write_clip(tmp_path / "clip.mov", audio_codec="pcm_s16le", channels=2, rate_hz=RATE_HZ, sound=tone(200, 0.6))
    np.testing.assert_allclose(row_of(decode_source(path, AUDIO), "audio"), left, atol=1e-3)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW"])
def test_every_sample_format_has_full_scale_one(subtype: str) -> None:
    samples = 0.5 * np.sin(2 * np.pi * 250 * np.arange(8000) / RATE_HZ)
    wave = row_of(decode_source(wav_bytes(samples, RATE_HZ, subtype), AUDIO), "audio")
    np.testing.assert_allclose(wave, samples, atol=0.02)


@pytest.mark.parametrize("codec", ["pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le"])
def test_every_sample_format_of_a_container(tmp_path: Path, codec: str) -> None:
    path = write_clip(tmp_path / "clip.mkv", audio_codec=codec, rate_hz=RATE_HZ, sound=tone(250, 0.5))
    expected = 0.5 * np.sin(2 * np.pi * 250 * np.arange(8000) / RATE_HZ)
    np.testing.assert_allclose(row_of(decode_source(path, AUDIO), "audio"), expected, atol=0.02)


def test_louder_than_full_scale_is_clipped() -> None:
    data = wav_bytes(np.full(8000, 3.0, np.float32), RATE_HZ, "FLOAT")
    assert row_of(decode_source(data, AUDIO), "audio").max() == 1.0


def test_numbers_that_are_not_finite_are_undecodable() -> None:
    samples = np.full(8000, 0.3, np.float32)
    samples[4000] = np.nan
    assert statuses(decode_source(wav_bytes(samples, RATE_HZ, "FLOAT"), AUDIO)) == {"audio": "unusable:undecodable"}


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov"])
@pytest.mark.parametrize("moment_s", [0.3, 1.5])
def test_sound_stands_at_its_presentation_time(tmp_path: Path, suffix: str, moment_s: float) -> None:
    codec = "aac" if suffix == "mp4" else "pcm_s16le"
    path = write_clip(tmp_path / f"clip.{suffix}", 2.0, sound=click_at(moment_s), audio_codec=codec)
    wave = row_of(decode_source(path, AUDIO, start_s=moment_s - 0.25, end_s=moment_s + 0.25), "audio")
    assert loudest_s(wave, RATE_HZ) == pytest.approx(0.26, abs=0.004)


def test_sound_that_starts_late_is_preceded_by_zeros(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mov", sound=tone(440, 0.4), audio_codec="pcm_s16le", sound_delay_s=0.4)
    wave = row_of(decode_source(path, AUDIO, clip_s=1.0, end_s=1.0), "audio")
    assert np.abs(wave[: round(0.39 * RATE_HZ)]).max() < 1e-3
    assert np.abs(wave[round(0.41 * RATE_HZ) :]).max() > 0.35


def test_a_late_picture_does_not_move_the_sound(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mov", sound=click_at(0.5), audio_codec="pcm_s16le", picture_delay_s=0.3)
    wave = row_of(decode_source(path, AUDIO, end_s=1.0), "audio")
    assert loudest_s(wave, RATE_HZ) == pytest.approx(0.51, abs=0.003)


def test_a_gap_in_the_sound_is_silent_and_what_follows_stays_in_time(tmp_path: Path) -> None:
    """Two stretches of tone, with packets left out between them."""
    whole = write_clip(tmp_path / "whole.mkv", 1.0, sound=tone(440, 0.4), audio_codec="pcm_s16le", picture=None)
    holed = tmp_path / "holed.mkv"
    with av.open(str(whole)) as source, av.open(str(holed), "w") as target:
        stream = target.add_stream("pcm_s16le", rate=16_000, layout="mono")
        for packet in source.demux(audio=0):
            if packet.dts is None or 0.35 <= float(packet.pts * packet.time_base) < 0.6:
                continue
            packet.stream = stream
            target.mux(packet)
    wave = row_of(decode_source(holed, AUDIO), "audio")
    assert np.abs(wave[round(0.46 * RATE_HZ) : round(0.56 * RATE_HZ)]).max() < 1e-4
    expected = 0.4 * np.sin(2 * np.pi * 440 * np.arange(8000) / RATE_HZ)
    np.testing.assert_allclose(wave[round(0.75 * RATE_HZ) :], expected[round(0.75 * RATE_HZ) :], atol=0.02)


def test_short_sound_is_padded_at_the_end(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.wav", 0.5, picture=None, audio_codec="pcm_s16le")
    wave = row_of(decode_source(path, AUDIO, clip_s=1.0), "audio")
    assert np.abs(wave[:4000]).max() > 0.3
    assert not wave[4010:].any()


def test_silence_is_reported_even_through_a_lossy_codec(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", sound="silence")
    decoded = decode_source(path, AUDIO, VISUAL)
    assert statuses(decoded) == {"audio": "unusable:silent", "visual": "ok"}
    assert decoded.tracks["audio"].row is None


def test_sound_that_ended_or_has_not_begun_is_absent(tmp_path: Path) -> None:
    ended = write_clip(tmp_path / "ended.mkv", 3.0, sound_seconds=1.0)
    assert statuses(decode_source(ended, start_s=2.0, end_s=3.0)) == {"audio": "absent:track_ended", "visual": "ok"}
    late = write_clip(tmp_path / "late.mkv", 3.0, sound_seconds=1.0, sound_delay_s=2.0)
    assert statuses(decode_source(late, end_s=1.0)) == {"audio": "absent:track_not_started", "visual": "ok"}
    assert statuses(decode_source(late, start_s=1.5, end_s=2.5)) == {"audio": "ok", "visual": "ok"}


def test_two_rates_from_one_open(tmp_path: Path) -> None:
    low, high = AUDIO, Waveform(name="high", tensor="HIGH", sample_rate_hz=16_000, samples=16_000)
    path = write_clip(tmp_path / "clip.mp4", sound=tone(440, 0.4))
    decoded = decode_source(path, low, high)
    assert frequency_hz(row_of(decoded, "audio"), 8000) == pytest.approx(440, abs=1.5)
    assert frequency_hz(row_of(decoded, "high"), 16_000) == pytest.approx(440, abs=1.5)


def test_sound_files_have_no_picture_and_pictures_no_sound(tmp_path: Path) -> None:
    sound = write_clip(tmp_path / "clip.wav", picture=None, audio_codec="pcm_s16le")
    assert statuses(decode_source(sound)) == {"audio": "ok", "visual": "absent:no_track"}
    mute = write_clip(tmp_path / "clip.mp4", sound=None)
    assert statuses(decode_source(mute)) == {"audio": "absent:no_track", "visual": "ok"}
    ogg = write_clip(tmp_path / "clip.ogg", picture=None, audio_codec="libopus", rate_hz=48_000)
    assert statuses(decode_source(ogg)) == {"audio": "ok", "visual": "absent:no_track"}


def test_libsndfile_and_ffmpeg_give_the_same_sound(tmp_path: Path) -> None:
    """An Ogg file goes through FFmpeg when pictures are wanted of it, and through libsndfile otherwise."""
    path = write_clip(tmp_path / "clip.ogg", 2.0, picture=None, audio_codec="libopus", rate_hz=48_000)
    alone = row_of(decode_source(path, AUDIO, start_s=0.5, end_s=1.5), "audio")
    beside = row_of(decode_source(path, AUDIO, VISUAL, start_s=0.5, end_s=1.5), "audio")
    np.testing.assert_allclose(alone, beside, atol=5e-3)


@pytest.mark.parametrize("layout", ["5.1", "7.1", "hexadecagonal"])
def test_many_channels(tmp_path: Path, layout: str) -> None:
    """Planar and interleaved sound of few and many channels comes out as the tone that went in."""
    path = tmp_path / "clip.mkv"
    codec = "pcm_s16le" if layout == "hexadecagonal" else "aac"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=48_000, layout=layout)
        channels = stream.layout.nb_channels
        mono = 0.4 * np.sin(2 * np.pi * 440 * np.arange(48_000) / 48_000)
        for begin in range(0, 48_000 - 1024, 1024):
            block = np.repeat(mono[begin : begin + 1024].astype(np.float32), channels)[None]
            frame = av.AudioFrame.from_ndarray(block, format="flt", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = 48_000, begin, Fraction(1, 48_000)
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    wave = row_of(decode_source(path, AUDIO), "audio")
    assert frequency_hz(wave) == pytest.approx(440.0, abs=1.5)
