"""Which channel is heard: the mix by layout, another one where the mix cancels, or the one that was asked for."""

from __future__ import annotations

import io
import math
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from dimml.media import Decoded
from dimml.media.decoders.audio import SoundBuffer
from dimml.media.decoders.mixing import MONO, STEREO, Layout, Sound, mix_weights
from dimml.media.decoders.time_range import Window
from dimml.media.decoders.windows import WindowPlan, decode_windows
from dimml.modality import Channel, Waveform, as_decoder_1
from support.decoding import AUDIO, decode_source, request_for, row_of, statuses

RATE_HZ = 8000
TIME_S = np.arange(RATE_HZ) / RATE_HZ
SPEECH = 0.4 * np.sin(2 * np.pi * 300 * TIME_S)
#: BS.775 for one channel: centre 1, fronts -3 dB, surrounds -6 dB, no LFE; in the order FL FR FC LFE and surrounds.
_BS775 = np.array([math.sqrt(0.5), math.sqrt(0.5), 1.0, 0.0, 0.5, 0.5])
WEIGHTS = _BS775 / _BS775.sum()

Samples = npt.NDArray[np.float64]


def heard(channel: Channel) -> Waveform:
    return AUDIO.model_copy(update={"channel": channel})


def sound_file(samples_NC: Samples, form: str = "WAV", subtype: str = "PCM_16") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples_NC, RATE_HZ, format=form, subtype=subtype)
    return file.getvalue()


def container(path: Path, samples_NC: Samples, codec: str, layout: str) -> Path:
    """The samples in a container of the suffix."""
    with av.open(str(path), "w") as target:
        stream = target.add_stream(codec, rate=RATE_HZ, layout=layout)
        packed = np.ascontiguousarray((samples_NC * 32767).round().astype(np.int16).reshape(1, -1))
        frame = av.AudioFrame.from_ndarray(packed, format="s16", layout=layout)
        frame.sample_rate, frame.pts = RATE_HZ, 0
        for packet in (*stream.encode(frame), *stream.encode(None)):
            target.mux(packet)
    return path


def made(kind: str, folder: Path, samples_NC: Samples) -> bytes | Path:
    """The samples as a file of this kind."""
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[samples_NC.shape[1]]
    if kind in {"WAV", "WAVEX", "FLAC"}:
        return sound_file(samples_NC, kind)
    return container(folder / f"clip.{kind}", samples_NC, {"mkv": "pcm_s16le", "mp4": "aac"}[kind], layout)


def channel_of(decoded: Decoded) -> str | None:
    return decoded.tracks["audio"].channel


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "mkv", "mp4"])
def test_an_inverted_channel_is_no_silence(kind: str, tmp_path: Path) -> None:
    for level, better in ((0.9, "left"), (1.1, "right")):
        source = made(kind, tmp_path, np.stack([SPEECH, -level * SPEECH], axis=1))
        decoded = decode_source(source, AUDIO)
        assert statuses(decoded) == {"audio": "ok"}
        assert channel_of(decoded) == better
        # AAC's edges are not the tone's.
        middle = slice(1000, 7000)
        expected = (SPEECH if better == "left" else -level * SPEECH)[middle]
        np.testing.assert_allclose(row_of(decoded, "audio")[middle], expected, atol=0.02 if kind == "mp4" else 1e-3)


@pytest.mark.parametrize("kind", ["WAV", "WAVEX", "FLAC", "mkv"])
def test_surround_is_mixed_by_layout(kind: str, tmp_path: Path) -> None:
    tones_hz = 200 + 250 * np.arange(6)
    samples_NC = 0.5 * np.sin(2 * np.pi * np.outer(TIME_S, tones_hz))
    decoded = decode_source(made(kind, tmp_path, samples_NC), AUDIO)
    assert channel_of(decoded) == "mix"
    amplitudes = 2 * np.abs(np.fft.rfft(row_of(decoded, "audio")))[tones_hz] / RATE_HZ
    np.testing.assert_allclose(amplitudes, 0.5 * WEIGHTS, atol=1e-3)


def test_the_cancellation_is_decided_in_every_window_by_itself(tmp_path: Path) -> None:
    polarity = np.where(TIME_S < 0.5, -1.0, 1.0)
    samples_NC = np.stack([SPEECH, polarity * SPEECH], axis=1)
    for source in (made("WAV", tmp_path, samples_NC), made("mkv", tmp_path, samples_NC)):
        request = request_for(source, AUDIO, clip_s=0.5)
        windows = [one.decoded for one in decode_windows(request, WindowPlan(0.5, 0.5))]
        assert [channel_of(one) for one in windows] == ["left", "mix"]
        ranges = [decode_source(source, AUDIO, start_s=begin, end_s=begin + 0.5) for begin in (0.0, 0.5)]
        for window, whole in zip(windows, ranges, strict=True):
            assert channel_of(window) == channel_of(whole)
            np.testing.assert_allclose(row_of(window, "audio"), row_of(whole, "audio"), atol=1e-6)


def test_what_only_partly_cancels_or_has_nothing_in_common_is_mixed(tmp_path: Path) -> None:
    """Two channels of equal level at correlation r: the mix stands at 10·log10(1 + r) dB; -6 dB is at r = -0.75."""
    noise = np.random.default_rng(3).normal(0.0, 0.1, (2, RATE_HZ))
    noise[1] -= noise[0] * (noise[0] @ noise[1]) / (noise[0] @ noise[0])
    noise[1] *= np.linalg.norm(noise[0]) / np.linalg.norm(noise[1])
    for correlation, channel in ((0.0, "mix"), (-0.7, "mix"), (-0.8, "left")):
        other = correlation * noise[0] + math.sqrt(1 - correlation**2) * noise[1]
        source = sound_file(np.stack([noise[0] * 1.0001, other], axis=1), subtype="FLOAT")
        assert channel_of(decode_source(source, AUDIO)) == channel, correlation


def test_an_offset_of_both_channels_hides_no_cancellation() -> None:
    source = sound_file(np.stack([0.2 + SPEECH, 0.2 - 0.9 * SPEECH], axis=1))
    assert channel_of(decode_source(source, AUDIO)) == "left"


@pytest.mark.parametrize("samples_NC", [np.zeros((RATE_HZ, 2)), np.outer(SPEECH, [0, 0, 0, 1, 0, 0])])
def test_silence_stays_silence(samples_NC: Samples, tmp_path: Path) -> None:
    """Nothing in any channel, or in the LFE alone."""
    for kind in ("FLAC", "mkv"):
        decoded = decode_source(made(kind, tmp_path, samples_NC), AUDIO)
        assert statuses(decoded) == {"audio": "unusable:silent"}
        assert channel_of(decoded) == "mix"


@pytest.mark.parametrize("kind", ["WAV", "mkv"])
@pytest.mark.parametrize(
    ("channel", "level", "name"),
    [
        ("left", 0.2, "left"),
        ("right", 0.5, "right"),
        ("loudest", 0.5, "right"),
        (0, 0.2, "left"),
        ("mean", 0.35, "mean"),
    ],
)
def test_the_channel_that_was_asked_for(kind: str, channel: Channel, level: float, name: str, tmp_path: Path) -> None:
    decoded = decode_source(made(kind, tmp_path, np.outer(SPEECH, [0.2, 0.5])), heard(channel))
    assert channel_of(decoded) == name
    np.testing.assert_allclose(row_of(decoded, "audio"), level * SPEECH, atol=1e-3)


def test_a_number_of_six(tmp_path: Path) -> None:
    samples_NC = np.outer(SPEECH, np.arange(1, 7) / 6)
    for kind in ("WAV", "FLAC", "mkv"):
        decoded = decode_source(made(kind, tmp_path, samples_NC), heard(4))
        assert channel_of(decoded) == "4"
        np.testing.assert_allclose(row_of(decoded, "audio"), SPEECH * 5 / 6, atol=1e-3)
        assert statuses(decode_source(made(kind, tmp_path, samples_NC), heard(6))) == {"audio": "absent:no_track"}


def test_mono_is_heard_whatever_side_was_asked_for(tmp_path: Path) -> None:
    source = made("WAV", tmp_path, SPEECH[:, None])
    for channel in ("mix", "mean", "left", "right", "loudest", 0):
        decoded = decode_source(source, heard(channel))
        assert channel_of(decoded) is None
        np.testing.assert_allclose(row_of(decoded, "audio"), SPEECH, atol=1e-3)


def test_what_was_trained_before_hears_the_mean(tmp_path: Path) -> None:
    document = AUDIO.model_dump(mode="json", exclude={"channel"})
    before = Waveform.model_validate(as_decoder_1(document))
    assert (before.channel, Waveform.model_validate(document).channel) == ("mean", "mix")
    samples_NC = np.outer(SPEECH, [0.0, 0.0, 0.6, 1.0, 0.0, 0.0])
    for kind in ("FLAC", "mkv"):
        decoded = decode_source(made(kind, tmp_path, samples_NC), before)
        np.testing.assert_allclose(row_of(decoded, "audio"), SPEECH * 1.6 / 6, atol=1e-3)


def test_layouts_without_roles() -> None:
    for count in (3, 4, 5, 12):
        assert mix_weights(Layout(f"{count} channels", ("NONE",) * count)) == (1 / count,) * count
    assert mix_weights(Layout("6 channels", ("NONE",) * 6)) == pytest.approx(WEIGHTS, abs=1e-6)
    ambisonic = Layout("ambisonic 1", ("AMBI0", "AMBI1", "AMBI2", "AMBI3"))
    assert mix_weights(ambisonic) == (1.0, 0.0, 0.0, 0.0)


def test_a_stream_that_changes_its_layout_midway_goes_on() -> None:
    buffer = SoundBuffer(Window(0.0, 1.0), RATE_HZ, STEREO)
    halves = np.split(SPEECH.astype(np.float32), 2)
    buffer.write(Sound(np.stack([halves[0], halves[0]]), STEREO), 0.0)
    buffer.write(Sound(halves[1][None], MONO), 0.5)
    found = buffer.row(AUDIO)
    assert found.row is not None
    np.testing.assert_allclose(found.row, SPEECH, atol=1e-6)
