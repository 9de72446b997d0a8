"""Lengths come from the sound that is there: a header that is missing, wrong or about a part only changes nothing.

Right values are the samples that were encoded, within one frame of the codec (MP3 adds a frame at most at each end).
"""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from dimml.errors import InvalidParameterError, TooLargeError
from dimml.media.decoders.framing.mpeg_audio import chained, count_frames, xing_frame
from dimml.media.decoders.framing.ogg_chain import MAX_LINKS, link_starts
from dimml.media.decoders.windows import WindowPlan, decode_windows
from dimml.modality import Waveform
from support.data import unavailable
from support.decoding import decode_source, request_for, row_of
from support.media_maker import write_clip

RATE_HZ = 16_000
SECONDS = 4.0
AUDIO = Waveform(name="audio", sample_rate_hz=RATE_HZ, samples=4000)
#: MP3's at this rate; FLAC's and Ogg's lengths are exact.
FRAME_S = 576 / RATE_HZ


def steps(seconds: float = SECONDS, rate_hz: int = RATE_HZ, first: int = 0) -> npt.NDArray[np.float32]:
    """A tone that is an octave third higher in every second: 400, 500, 600 ... Hz."""
    time_s = np.arange(round(seconds * rate_hz)) / rate_hz
    hertz = 400 + 100 * (first + np.floor(time_s))
    return (0.4 * np.sin(2 * np.pi * hertz * time_s)).astype(np.float32)


def hertz_of(wave: npt.NDArray[Any]) -> float:
    """Frequency of a tone of 0.25 s, by its sign changes."""
    inner = wave[400:-400]
    return float(np.count_nonzero(np.diff(np.signbit(inner))) * RATE_HZ / 2 / (len(inner) - 1))


def mp3(samples: npt.NDArray[np.float32], *, xing: bool, quality: int = 2) -> bytes:
    """Variable bit rate, with or without a Xing frame."""
    file = io.BytesIO()
    options = {"write_xing": str(int(xing)), "id3v2_version": "0"}
    with av.open(file, "w", format="mp3", options=options) as container:
        # The quality in FFmpeg's units, 118 for each of LAME's.
        codec = {"flags": "+qscale", "global_quality": str(118 * quality)}
        stream = container.add_stream("libmp3lame", rate=RATE_HZ, layout="mono", options=codec)
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate = RATE_HZ
        fifo = av.AudioFifo()
        fifo.write(frame)
        while piece := fifo.read(576, partial=True):
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return file.getvalue()


def stored(form: str, subtype: str, samples: npt.NDArray[np.float32], rate_hz: int = RATE_HZ) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate_hz, format=form, subtype=subtype)
    return file.getvalue()


def of_unknown_length(flac: bytes) -> bytes:
    """As an encoder leaves it that writes into a pipe: 36 bits of zero for the number of samples."""
    header = bytearray(flac)
    header[21] &= 0xF0
    header[22:26] = bytes(4)
    return bytes(header)


def with_frames(data: bytes, frames: int) -> bytes:
    """Another number of frames in the Xing frame."""
    at = max(data.find(b"Xing"), data.find(b"Info")) + 8
    return data[:at] + frames.to_bytes(4) + data[at + 4 :]


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


FLAC = stored("FLAC", "PCM_16", steps())
VBR, VBR_XING = mp3(steps(), xing=False), mp3(steps(), xing=True)
VORBIS = stored("OGG", "VORBIS", steps())
OPUS = stored("OGG", "OPUS", steps(first=4))

CASES = {
    "FLAC of unknown length": (of_unknown_length(FLAC), SECONDS, 0.0),
    "FLAC": (FLAC, SECONDS, 0.0),
    "MP3 of variable rate without Xing": (VBR, SECONDS, 3 * FRAME_S),
    "MP3 with Xing": (VBR_XING, SECONDS, 0.001),
    "MP3, joined": (VBR_XING + VBR_XING, 2 * SECONDS, 5 * FRAME_S),
    "MP3 whose Xing frame describes a part": (with_frames(VBR_XING, 40), SECONDS, 3 * FRAME_S),
    "MP3 joined with one without Xing": (VBR_XING + VBR, 2 * SECONDS, 5 * FRAME_S),
    "Ogg chain of one serial number": (VORBIS + VORBIS, 2 * SECONDS, 0.0),
    "Ogg chain of two codecs": (VORBIS + OPUS, 2 * SECONDS, 0.001),
}


@pytest.mark.parametrize("name", CASES)
def test_a_recording_is_as_long_as_the_sound_in_it(name: str) -> None:
    data, seconds, tolerance_s = CASES[name]
    whole = decode_source(data, AUDIO, clip_s=100.0)
    assert whole.start_s == 0.0
    assert whole.end_s == pytest.approx(seconds, abs=tolerance_s + 1e-5)


@pytest.mark.parametrize("name", CASES)
def test_ranges_and_windows_hold_the_sound_of_their_time(name: str, tmp_path: Path) -> None:
    data, seconds, _ = CASES[name]
    path = tmp_path / "sound"
    path.write_bytes(data)
    for second in range(int(seconds)):
        expected = 400 + 100 * (second if "two codecs" in name else second % SECONDS)
        begin_s = second + 0.4
        ranged = decode_source(path, AUDIO, clip_s=0.25, start_s=begin_s, end_s=begin_s + 0.25)
        assert hertz_of(row_of(ranged, "audio")) == pytest.approx(expected, abs=8.0)
    windows = list(decode_windows(request_for(path, AUDIO, clip_s=0.25), WindowPlan(1.0, 1.0)))
    assert [round(one.span.end_s - seconds, 0) for one in windows if one.span] == [0.0] * len(windows)
    for second, one in enumerate(windows[: int(seconds)]):
        expected = 400 + 100 * (second if "two codecs" in name else second % SECONDS)
        assert hertz_of(row_of(one.decoded, "audio")) == pytest.approx(expected, abs=8.0)
    with pytest.raises(InvalidParameterError, match="past the end of the media"):
        decode_source(path, AUDIO, clip_s=0.25, start_s=seconds + 1.0)


def cut_seconds(data: bytes, form: str) -> float:
    """What FFmpeg's own decoder makes of the packets, in seconds."""
    samples = 0
    with av.open(io.BytesIO(data), format=form) as container:
        rate_hz = container.streams.audio[0].rate
        try:
            for frame in container.decode(audio=0):
                samples += frame.samples
        except av.error.FFmpegError:
            pass
    return samples / rate_hz


@pytest.mark.parametrize(
    ("data", "form", "tolerance_s"),
    [(half(FLAC), "flac", 4096 / RATE_HZ), (half(VBR_XING), "mp3", 2 * FRAME_S), (half(VBR), "mp3", 2 * FRAME_S)],
    ids=["FLAC", "MP3 with Xing", "MP3 without"],
)
def test_what_is_cut_off_is_as_long_as_what_is_left(data: bytes, form: str, tolerance_s: float) -> None:
    expected = cut_seconds(data, form)
    assert 1.0 < expected < 3.0
    assert decode_source(data, AUDIO, clip_s=100.0).end_s == pytest.approx(expected, abs=tolerance_s)


def test_samples_of_flac_of_unknown_length_are_those_of_the_same_file_with_its_length() -> None:
    for start_s in (0.0, 1.3, 3.7):
        rows = [
            row_of(decode_source(data, AUDIO, clip_s=0.25, start_s=start_s), "audio")
            for data in (FLAC, of_unknown_length(FLAC))
        ]
        np.testing.assert_allclose(rows[0], rows[1], atol=1e-6)


def test_links_of_a_chain_may_differ_in_rate_and_channels() -> None:
    stereo = stored("OGG", "VORBIS", np.stack([steps(first=4, rate_hz=48_000)] * 2, axis=1), 48_000)
    for second in range(8):
        decoded = decode_source(VORBIS + stereo, AUDIO, clip_s=0.25, start_s=second + 0.3, end_s=second + 0.55)
        assert hertz_of(row_of(decoded, "audio")) == pytest.approx(400 + 100 * second, abs=8.0)


def test_a_chain_of_more_links_than_any_recording_has_is_refused() -> None:
    page = VORBIS[: 28 + 30]
    with pytest.raises(TooLargeError, match="chain of more than"):
        link_starts(io.BytesIO((page + bytes(50)) * (MAX_LINKS + 1)))


def test_first_pages_that_two_reads_share_are_found_once() -> None:
    for gap in range(2**20 - 400, 2**20, 50):
        assert link_starts(io.BytesIO(VORBIS[:100] + bytes(gap) + VORBIS[:400])) == [0, 100 + gap]


def test_frames_are_counted_by_their_headers_whatever_lies_between() -> None:
    packets = 0
    with av.open(io.BytesIO(VBR), format="mp3") as container:
        packets = sum(packet.size > 0 for packet in container.demux(audio=0))
    assert count_frames(io.BytesIO(VBR), 0).samples == 576 * packets
    noise = np.random.default_rng(3).bytes(5000)
    assert count_frames(io.BytesIO(VBR + noise + VBR), 0).samples == pytest.approx(2 * 576 * packets, abs=576)
    assert count_frames(io.BytesIO(b"\xff" * 2**20), 0).samples == 0
    assert chained(VBR, 0, 20)
    assert not chained(VBR, 1, 1)


def test_the_checksum_of_a_xing_frame_is_held() -> None:
    xing = xing_frame(VBR_XING, 0)
    assert xing is not None
    assert xing.checked
    assert xing.samples == SECONDS * RATE_HZ
    patched = xing_frame(with_frames(VBR_XING, 40), 0)
    assert patched is not None
    assert not patched.checked


@pytest.mark.parametrize(
    ("suffix", "codec"), [("mka", "alac"), ("mkv", "alac"), ("wv", "wavpack"), ("mka", "flac"), ("caf", "alac")]
)
@pytest.mark.parametrize("samples", [50_016, 140_016])
def test_the_last_packet_of_a_lossless_codec_is_as_long_as_it_is(
    tmp_path: Path, suffix: str, codec: str, samples: int
) -> None:
    """Containers state one length for all packets, or none; the samples that went in are what there is."""
    path = tmp_path / f"a.{suffix}"
    write_clip(path, picture=None, sound_seconds=samples / 48_000, rate_hz=48_000, audio_codec=codec)
    assert_lasts(path, samples / 48_000)


@pytest.mark.parametrize("codec", ["alac", "tta", "wavpack"])
@pytest.mark.parametrize("samples", [50_016, 140_016])
def test_lossless_sound_as_ffmpeg_writes_it(tmp_path: Path, codec: str, samples: int) -> None:
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        unavailable("ffmpeg is not there: apt-get install ffmpeg")
        return
    path = tmp_path / "a.mka"
    source = ["-f", "s16le", "-ar", "48000", "-ac", "1", "-i", "-"]
    # Whole milliseconds: FFmpeg needs TTA's length for its last packet, and takes it from Matroska's clock.
    sound = (32767 * steps(samples / 48_000, 48_000)).astype("<i2").tobytes()
    subprocess.run([ffmpeg, "-v", "error", *source, "-c:a", codec, path], input=sound, check=True, timeout=60)
    assert_lasts(path, samples / 48_000)


def assert_lasts(path: Path, seconds: float) -> None:
    """Whole, and in windows, the last of which has sound; Matroska's clock has milliseconds."""
    assert decode_source(path, AUDIO, clip_s=60.0).end_s == pytest.approx(seconds, abs=0.0011)
    (*_, last) = decode_windows(request_for(path, AUDIO, clip_s=0.25), WindowPlan(0.25, 0.25))
    assert last.span is not None
    assert last.span.end_s == pytest.approx(seconds, abs=0.0011)
    assert str(last.decoded.tracks["audio"].status) == "ok"
