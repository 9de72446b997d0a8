"""Formats of cameras, recorders and research sites: length, offset, level and pictures, by arithmetic.

Every file is made here, by PyAV, by soundfile, or byte for byte; what is right follows from how it was made.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from dimml.media import MediaLimits
from dimml.media.decoders.container import open_container
from dimml.media.decoders.file_type import identify, sniff
from dimml.media.workers.pool import DecodePool
from dimml.modality import Frames, Waveform
from support.decoding import decode_source, loudest_s, request_for, row_of, statuses
from support.media_maker import click_at, read_number, tone, write_clip

SOUND = Waveform(name="audio", sample_rate_hz=8000, samples=32_000)
PICTURE = Frames(name="visual", frames=5, height=32, width=48)
#: Length of every file here, and where its only sound stands: 20 ms of a full-scale sine of 1 kHz.
SECONDS, CLICK_S, CLICK_LENGTH_S = 3.0, 1.3, 0.02
#: What the issue of this project allows: 10 ms, and one frame (of a codec, or a picture).
OFFSET_S = 0.010

Maker = Callable[[Path], Path]


def click(rate_hz: int, amplitude: float = 0.5) -> npt.NDArray[np.float64]:
    return amplitude * np.asarray(click_at(CLICK_S, CLICK_LENGTH_S)(np.arange(round(SECONDS * rate_hz)) / rate_hz))


def by_soundfile(form: str, subtype: str, rate_hz: int = 16_000, **options: str) -> Maker:
    def make(folder: Path) -> Path:
        path = folder / "sound"
        with path.open("wb") as file:
            soundfile.write(file, click(rate_hz), rate_hz, format=form, subtype=subtype, **options)
        return path

    return make


def by_pyav(suffix: str, codec: str, rate_hz: int, form: str | None = None) -> Maker:
    """A sound file of one track; named after nothing."""

    def make(folder: Path) -> Path:
        path = folder / f"clip.{suffix}"
        with av.open(str(path), "w", format=form) as container:
            stream = container.add_stream(codec, rate=rate_hz, layout="mono")
            stream.bit_rate = {"libopencore_amrnb": 12_200, "wmav2": 96_000}.get(codec, 192_000)
            samples = click(rate_hz).astype(np.float32)
            block = stream.codec_context.frame_size or 1024
            for begin in range(0, len(samples), block):
                frame = av.AudioFrame.from_ndarray(samples[None, begin : begin + block], format="fltp", layout="mono")
                frame.sample_rate, frame.pts, frame.time_base = rate_hz, begin, Fraction(1, rate_hz)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path.rename(folder / "sound")

    return make


def voc(folder: Path) -> Path:
    """Creative Voice File of 16-bit sound, in blocks of a tenth of a second with a header each."""
    rate_hz = 16_000
    data = (click(rate_hz) * 32_767).astype("<i2").tobytes()
    first = struct.pack("<IBBHI", rate_hz, 16, 1, 4, 0)
    blocks = [data[begin : begin + 3200] for begin in range(0, len(data), 3200)]
    body = bytes([9]) + (len(first) + len(blocks[0])).to_bytes(3, "little") + first + blocks[0]
    body += b"".join(bytes([2]) + len(block).to_bytes(3, "little") + block for block in blocks[1:]) + b"\0"
    path = folder / "sound"
    path.write_bytes(b"Creative Voice File\x1a" + struct.pack("<HHH", 26, 0x010A, 0x1129) + body)
    return path


#: FFmpeg's encoder puts one frame of silence before the sound, which ASF has no field to take away by; ffmpeg's own
#: times of decoded frames say the same.
WMA_DELAY_S: Final = 2048 / 44_100
#: By name: how it is made, and the length of a codec's frame in seconds (a file is made of whole ones).
SOUND_FILES: Final[dict[str, tuple[Maker, float]]] = {
    "aiff": (by_soundfile("AIFF", "PCM_16"), 0.0),
    "aiff 24 bit": (by_soundfile("AIFF", "PCM_24"), 0.0),
    "aiff-c": (by_soundfile("AIFF", "ULAW"), 0.0),
    "aiff-c of floats": (by_soundfile("AIFF", "FLOAT"), 0.0),
    "aiff-c little-endian": (by_soundfile("AIFF", "PCM_16", endian="LITTLE"), 0.0),
    "au": (by_soundfile("AU", "PCM_16"), 0.0),
    "au of a telephone": (by_soundfile("AU", "ULAW", 8000), 0.0),
    "caf": (by_soundfile("CAF", "PCM_16"), 0.0),
    "caf alac": (by_soundfile("CAF", "ALAC_16", 44_100), 0.0),
    "w64": (by_soundfile("W64", "PCM_16"), 0.0),
    "sphere": (by_soundfile("NIST", "PCM_16"), 0.0),
    "sphere of a telephone": (by_soundfile("NIST", "ULAW", 8000), 0.0),
    "rifx": (by_soundfile("WAV", "PCM_16", endian="BIG"), 0.0),
    "voc": (voc, 0.0),
    "amr": (by_pyav("amr", "libopencore_amrnb", 8000), 0.02),
    "ac-3": (by_pyav("ac3", "ac3", 48_000), 1536 / 48_000),
    "ac-3 at 44.1 kHz": (by_pyav("ac3", "ac3", 44_100), 1536 / 44_100),
    "e-ac-3": (by_pyav("eac3", "eac3", 48_000), 1536 / 48_000),
    "wavpack": (by_pyav("wv", "wavpack", 44_100), 0.0),
    "wma": (by_pyav("wma", "wmav2", 44_100, "asf"), 2048 / 44_100),
}


@pytest.mark.parametrize("name", SOUND_FILES)
def test_a_sound_file_has_its_length_offset_and_level(tmp_path: Path, name: str) -> None:
    make, frame_s = SOUND_FILES[name]
    decoded = decode_source(make(tmp_path), SOUND, PICTURE, clip_s=4.0)
    assert statuses(decoded) == {"audio": "ok", "visual": "absent:no_track"}
    assert decoded.start_s == 0.0
    assert decoded.end_s == pytest.approx(SECONDS, abs=frame_s + 1e-3)
    row = row_of(decoded, "audio")
    late_s = WMA_DELAY_S if name == "wma" else 0.0
    assert loudest_s(row, SOUND.sample_rate_hz) == pytest.approx(CLICK_S + CLICK_LENGTH_S / 2 + late_s, abs=OFFSET_S)
    assert np.abs(row).max() == pytest.approx(0.5, abs=0.1)
    # Silence but for the click: no header is taken for samples.
    quiet = np.abs(np.concatenate([row[: 8 * 1250], row[8 * 1420 :]]))
    assert quiet.max() < 0.02


@pytest.mark.parametrize("name", SOUND_FILES)
def test_a_part_of_a_sound_file_is_that_part_of_the_whole(tmp_path: Path, name: str) -> None:
    make, _ = SOUND_FILES[name]
    decoded = decode_source(make(tmp_path), SOUND, clip_s=4.0, start_s=1.0, end_s=1.75)
    assert (decoded.start_s, decoded.end_s) == (1.0, 1.75)
    middle_s = CLICK_S + CLICK_LENGTH_S / 2 - 1.0 + (WMA_DELAY_S if name == "wma" else 0.0)
    assert loudest_s(row_of(decoded, "audio"), SOUND.sample_rate_hz) == pytest.approx(middle_s, abs=OFFSET_S)


def test_wideband_amr_has_twenty_milliseconds_a_frame() -> None:
    """Frames of 6.6 kbit/s: 132 bits, so 17 bytes behind the one with the mode (RFC 4867, section 5.3)."""
    frame = bytes([0b0_0000_1_00]) + np.random.default_rng(1).bytes(17)
    decoded = decode_source(b"#!AMR-WB\n" + 60 * frame, SOUND, PICTURE, clip_s=4.0)
    assert statuses(decoded) == {"audio": "ok", "visual": "absent:no_track"}
    assert decoded.end_s == pytest.approx(60 * 0.02, abs=1e-3)


#: Containers of pictures: codecs, rate of the sound. FFmpeg reports 2.9 s or less for a program stream of 3.0 s.
CONTAINERS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "mpeg-1 program stream": ("mpg", {"video_codec": "mpeg1video", "audio_codec": "mp2", "rate_hz": 44_100}),
    "program stream without sound": ("mpg", {"video_codec": "mpeg1video", "sound": None}),
    "dvd program stream": ("vob", {"video_codec": "mpeg2video", "audio_codec": "ac3", "rate_hz": 48_000}),
    "wmv": ("wmv", {"video_codec": "wmv2", "audio_codec": "wmav2", "rate_hz": 44_100}),
    "wmv 7": ("asf", {"video_codec": "wmv1", "audio_codec": "wmav1", "rate_hz": 44_100}),
    "mxf": ("mxf", {"video_codec": "mpeg2video", "audio_codec": "pcm_s16le", "rate_hz": 48_000}),
}


def made(folder: Path, name: str) -> Path:
    suffix, options = CONTAINERS[name]
    sound = options.get("sound", click_at(CLICK_S, CLICK_LENGTH_S))
    return write_clip(folder / f"clip.{suffix}", SECONDS, keyframe_every=20, **{**options, "sound": sound})


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_container_has_its_length_pictures_and_sound(tmp_path: Path, name: str) -> None:
    path = made(tmp_path, name)
    decoded = decode_source(path.rename(tmp_path / "clip"), SOUND, PICTURE, clip_s=4.0)
    mute = "sound" in CONTAINERS[name][1]
    assert statuses(decoded) == {"audio": "absent:no_track" if mute else "ok", "visual": "ok"}
    assert decoded.start_s == 0.0
    # Sound may end within a frame of its codec behind the last picture.
    assert decoded.end_s == pytest.approx(SECONDS, abs=1e-3 if mute else 0.06)
    assert decoded.end_s is not None
    times_s = [(i + 0.5) * decoded.end_s / 5 for i in range(5)]
    # In ASF and program streams the picture begins up to a frame of the sound's codec after it.
    for shown, time_s in zip(row_of(decoded, "visual"), times_s, strict=True):
        assert int((time_s - 0.047) * 25) <= read_number(shown) <= int(time_s * 25)
    if not mute:
        assert loudest_s(row_of(decoded, "audio"), 8000) == pytest.approx(CLICK_S + CLICK_LENGTH_S / 2, abs=0.06)


@pytest.mark.parametrize("name", [name for name, (_, options) in CONTAINERS.items() if "sound" not in options])
def test_sound_and_pictures_keep_their_distance(tmp_path: Path, name: str) -> None:
    """The click stands 1.3 s after the first picture, wherever the container puts its zero."""
    path = made(tmp_path, name)
    many = Frames(name="visual", frames=300, height=16, width=64)
    decoded = decode_source(path, SOUND, many, clip_s=4.0)
    times_s = decoded.tracks["visual"].times_s
    numbers = [read_number(shown) for shown in row_of(decoded, "visual")]
    first_s = times_s[numbers.index(10)] - 0.4
    at_s = loudest_s(row_of(decoded, "audio"), 8000) - first_s
    assert at_s == pytest.approx(CLICK_S + CLICK_LENGTH_S / 2, abs=OFFSET_S)


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_part_of_a_container_is_that_part_of_the_whole(tmp_path: Path, name: str) -> None:
    """A seek into a stream whose pictures have no times of their own in most packets must land where it says."""
    path = made(tmp_path, name)
    dense = Frames(name="visual", frames=300, height=16, width=64)
    whole = decode_source(path, dense, clip_s=4.0)
    shown = dict(zip(whole.tracks["visual"].times_s, row_of(whole, "visual"), strict=True))
    for start_s in np.arange(0.0, 2.7, 0.13):
        part = decode_source(path, PICTURE, clip_s=4.0, start_s=float(start_s), end_s=float(start_s) + 0.3)
        times_s = part.tracks["visual"].times_s
        for time_s, picture in zip(times_s, row_of(part, "visual"), strict=True):
            assert read_number(picture) == read_number(shown[min(shown, key=lambda t: abs(t - time_s))]), start_s
        assert list(times_s) == pytest.approx([start_s + (i + 0.5) * 0.06 for i in range(5)], abs=0.061)


def test_all_of_them_are_read_in_a_worker_that_is_shut_in(tmp_path: Path) -> None:
    with DecodePool(1) as pool:
        pool.warm_up()
        for name, (make, _) in SOUND_FILES.items():
            data = make(tmp_path).read_bytes()
            assert statuses(pool.decode_blocking(request_for(data, SOUND), timeout_s=20)) == {"audio": "ok"}, name
        for name in CONTAINERS:
            data = made(tmp_path, name).read_bytes()
            found = statuses(pool.decode_blocking(request_for(data, PICTURE), timeout_s=20))
            assert found == {"visual": "ok"}, name


def test_a_file_is_not_believed_by_its_name(tmp_path: Path) -> None:
    """soundfile takes a file that is called .raw for one without a header."""
    for name in ("clip.raw", "clip.aiff", "clip.mpg"):
        path = by_soundfile("WAV", "PCM_16")(tmp_path).rename(tmp_path / name)
        assert statuses(decode_source(path, SOUND, PICTURE)) == {"audio": "ok", "visual": "absent:no_track"}


def test_no_demuxer_takes_the_file_of_another(tmp_path: Path) -> None:
    """Only the demuxer of the signature may open a file, whatever else FFmpeg would make of it."""
    files = {"mpeg": made(tmp_path, "dvd program stream"), "asf": made(tmp_path, "wmv"), "mxf": made(tmp_path, "mxf")}
    for own, path in files.items():
        data = path.read_bytes()
        found = sniff(data[:4096])
        assert found is not None
        assert found.demuxer == own
        for other in ("asf", "mxf", "aiff", "au", "caf", "w64", "nistsphere", "amr", "wv", "mov", "matroska"):
            if other != own:
                assert open_container(data, other, MediaLimits()) is None, (own, other)


# --- known, but not read


def aiff_c(codec: bytes) -> bytes:
    """AIFF-C of 800 samples, whose compression type is ``codec``."""
    rate = b"\x40\x0b\xfa" + bytes(7)  # 8000 as an 80-bit float
    common = struct.pack(">hIh", 1, 800, 16) + rate + codec + b"\x04XXXX\0"
    sound = struct.pack(">II", 0, 0) + b"\x01\x02" * 800
    body = b"AIFC" + b"".join(kind + struct.pack(">I", len(x)) + x for kind, x in ((b"COMM", common), (b"SSND", sound)))
    return b"FORM" + struct.pack(">I", len(body)) + body


def wav(tag: int, order: str = "<") -> bytes:
    form = struct.pack(f"{order}HHIIHH", tag, 1, 8000, 16_000, 2, 16)
    chunks = b"WAVEfmt " + struct.pack(f"{order}I", 16) + form + b"data" + struct.pack(f"{order}I", 1600)
    data = b"\x01\x02" * 800
    return (b"RIFF" if order == "<" else b"RIFX") + struct.pack(f"{order}I", len(chunks + data)) + chunks + data


UNREAD_SOUND = {
    "AIFF-C with codec QXYZ is not read": aiff_c(b"QXYZ"),
    "WAV with format tag 0x7777 is not read": wav(0x7777),
    "WAV with format tag 0xFFFE in RIFX is not read": wav(0xFFFE, ">"),
    "MIDI is not read: it holds notes": b"MThd\0\0\0\x06\0\0\0\x01\0\x60",
    "RealAudio is not read": b".ra\xfd\0\x04",
    "DTS without a container is not read": b"\x7f\xfe\x80\x01\xfc\x3c",
    "Monkey's Audio is not read": b"MAC \x96\x0f",
    "AMR with several channels is not read": b"#!AMR_MC1.0\n",
}
UNREAD = {
    "RealMedia is not read": b".RMF\0\0\0\x12",
    "NUT is not read": b"nut/multimedia container\0",
    "JPEG 2000 is not read: convert it to JPEG": b"\0\0\0\x0cjP  \r\n\x87\n\0\0\0\x14ftypjp2 ",
    "OpenEXR is not read": b"\x76\x2f\x31\x01\x02\0\0\0",
    "DPX is not read": b"SDPX\0\0\x08\0V1.0",
    "QOI is not read": b"qoif\0\0\0\x10\0\0\0\x10\3\0",
    "Photoshop (PSD) is not read": b"8BPS\0\1",
    "a portable map (PBM, PGM, PPM, PAM) is not read": b"P6\n2 1\n255\nabcdef",
    "raw DV is not read": b"\x1f\x07\x00\xbf" + bytes(200),
    "an MPEG video stream without a container is not read": b"\x00\x00\x01\xb3\x06\x00\x40\x13",
    "an archive (ZIP) is not read: unpack it": b"PK\x03\x04\x14\x00",
    "an archive (tar) is not read": b"clip.mp4".ljust(257, b"\0") + b"ustar\0" + b"00",
    "a compressed file (gzip) is not read": b"\x1f\x8b\x08\0",
    "PDF is not read": b"%PDF-1.7\n",
    "a Git LFS pointer is not read": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    "a web page is not read": b"\n<!DOCTYPE html><title>404</title>",
    "a playlist (M3U) is not read: it only names": b"\xef\xbb\xbf#EXTM3U\n",
    "a playlist (ASX) is not read": b"<ASX version='3.0'>",
    "a playlist (DASH) is not read": b"<?xml version='1.0'?>\n<MPD type='static'/>",
}


@pytest.mark.parametrize("words", [*UNREAD, *UNREAD_SOUND])
def test_a_known_format_that_is_not_read_is_called_by_its_name(words: str) -> None:
    decoded = decode_source((UNREAD | UNREAD_SOUND)[words], SOUND, PICTURE)
    picture = "absent:no_track" if words in UNREAD_SOUND else "unusable:unsupported"
    assert statuses(decoded) == {"audio": "unusable:unsupported", "visual": picture}
    detail = decoded.tracks["audio"].status.detail
    assert detail is not None
    assert words in detail
    assert ": " in detail, "the way out"


def test_tracks_whose_packets_say_no_time_are_refused_by_name(tmp_path: Path) -> None:
    """FFmpeg writes a time for one in 37 packets of H.264 into MPEG-PS, and none for Flash's ADPCM into WAV."""
    pictured = write_clip(tmp_path / "clip.mpg", 1.0, video_codec="libx264", audio_codec="mp2", rate_hz=48_000)
    decoded = decode_source(pictured, SOUND, PICTURE)
    assert statuses(decoded) == {"audio": "ok", "visual": "unusable:unsupported"}
    heard = write_clip(tmp_path / "clip.wav", 1.0, picture=None, audio_codec="adpcm_swf", rate_hz=44_100)
    alone = decode_source(heard, SOUND, PICTURE)
    assert statuses(alone) == {"audio": "unusable:unsupported", "visual": "absent:no_track"}
    for status in (decoded.tracks["visual"].status, alone.tracks["audio"].status):
        assert status.detail is not None
        assert "most packets say no time" in status.detail


def test_sound_that_avi_gives_wrong_times_is_refused_by_name(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.avi", 1.0, video_codec="mpeg4", audio_codec="eac3", rate_hz=48_000)
    decoded = decode_source(path, SOUND, PICTURE)
    assert statuses(decoded) == {"audio": "unusable:unsupported", "visual": "ok"}
    assert "AVI with eac3 is not read" in str(decoded.tracks["audio"].status.detail)


@pytest.mark.parametrize("form", ["wav", "w64"])
def test_aac_in_wav_is_refused_by_name(tmp_path: Path, form: str) -> None:
    """FFmpeg takes 3 s of it for 0.1 s."""
    decoded = decode_source(by_pyav(form, "aac", 44_100, form)(tmp_path), SOUND)
    assert statuses(decoded) == {"audio": "unusable:unsupported"}
    assert f"{form.upper()} with aac is not read" in str(decoded.tracks["audio"].status.detail)


def test_w64_of_floats_is_as_loud_as_it_was_written(tmp_path: Path) -> None:
    """Floats in an extensible format, as FFmpeg writes this rate, libsndfile 1.2.2 reads as integers: noise."""
    path = write_clip(
        tmp_path / "clip.w64", 1.0, picture=None, sound=tone(440, 0.1), audio_codec="pcm_f32le", rate_hz=96_000
    )
    modality = Waveform(name="audio", sample_rate_hz=96_000, samples=96_000)
    expected = 0.1 * np.sin(2 * np.pi * 440 * np.arange(96_000) / 96_000)
    np.testing.assert_allclose(row_of(decode_source(path, modality), "audio"), expected, atol=1e-4)


@pytest.mark.parametrize("name", ["aiff", "au", "caf", "w64", "rifx", "sphere", "voc", "wavpack"])
def test_a_damaged_sound_file_is_no_unknown_format_and_has_no_picture(tmp_path: Path, name: str) -> None:
    """The same signature with nothing readable behind it; a picture was never to be expected."""
    head = SOUND_FILES[name][0](tmp_path).read_bytes()[:20]
    decoded = decode_source(head + b"\0" * 40, SOUND, PICTURE)
    found = statuses(decoded)
    assert found["visual"] == "absent:no_track"
    assert found["audio"] in {"unusable:undecodable", "unusable:empty"}


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\x00\x00\x01\xba\x21\x00\x01", "MPEG program stream"),
        (b"\x00\x00\x01\xba\x44\x00\x04", "MPEG program stream"),
        (b"\x00\x00\x01\xba\xff", None),
        (bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), "ASF (WMV, WMA)"),
        (bytes.fromhex("060e2b34020501010d01020101020400"), "MXF"),
        (b"FORM\0\0\0\0AIFF", "AIFF"),
        (b"FORM\0\0\0\0AIFC", "AIFF"),
        (b"FORM\0\0\0\0ILBM", None),
        (b"RIFX\0\0\0\0WAVE", "WAV"),
        (b"RIFX\0\0\0\0AVI ", None),
        (b".snd\0\0\0\x18", "AU"),
        (b"caff\x00\x01\0\0", "CAF"),
        (bytes.fromhex("726966662e91cf11a5d628db04c10000"), "W64"),
        (b"NIST_1A\n   1024\n", "NIST SPHERE"),
        (b"Creative Voice File\x1a", "VOC"),
        (b"#!AMR\n", "AMR"),
        (b"#!AMR-WB\n", "AMR"),
        (b"wvpk\0\0\0\0", "WavPack"),
        (b"\x0b\x77" + bytes(126) + b"\x0b\x77", "AC-3"),
        (b"\x0b\x77" + bytes(125) + b"\x0b\x77", None),
        (b"\x0b\x77\x00\x3f\x00\x80" + bytes(122) + b"\x0b\x77", "E-AC-3"),
    ],
)
def test_new_formats_are_known_by_their_first_bytes(head: bytes, name: str | None) -> None:
    found = identify(io.BytesIO(head))
    assert (None if found is None else found.name) == name
