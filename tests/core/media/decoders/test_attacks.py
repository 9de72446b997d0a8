"""Files that are not plain recordings: playlists, references to other files, wrong headers, damage, noise."""

from __future__ import annotations

import contextlib
import math
import random
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dimml.errors import DimmlError
from dimml.media import MediaLimits
from dimml.media.decoders.container import open_container
from dimml.media.decoders.file_type import identify, sniff
from support.data import shared_data
from support.decoding import AUDIO, VISUAL, decode_source, row_of, statuses
from support.media_maker import damage_packets, tone, write_clip

UNSUPPORTED = {"audio": "unusable:unsupported", "visual": "unusable:unsupported"}
#: Every demuxer that any signature leads to.
DEMUXERS = (
    *("mov", "matroska", "avi", "flv", "mpegts", "mpeg", "asf", "mxf", "ogg", "mp3", "aac", "wav", "flac"),
    *("aiff", "au", "caf", "w64", "nistsphere", "voc", "amr", "ac3", "eac3", "wv"),
)


ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
MXF = bytes.fromhex("060e2b34020501010d01020101020400")


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording that only someone on this machine may read."""
    return write_clip(tmp_path_factory.mktemp("secret") / "secret.mp4", 1.0)


def playlists(secret: Path) -> dict[str, bytes]:
    return {
        "m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{secret}\n#EXT-X-ENDLIST\n".encode(),
        "m3u8 by url": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{secret}\n#EXT-X-ENDLIST\n".encode(),
        "ffconcat": f"ffconcat version 1.0\nfile '{secret}'\n".encode(),
        "dash": (
            '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet>'
            f'<Representation id="1"><BaseURL>{secret}</BaseURL></Representation></AdaptationSet></Period></MPD>'
        ).encode(),
        "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
        "imf": b'<?xml version="1.0"?><CompositionPlaylist/>',
    }


@pytest.mark.parametrize("kind", ["m3u8", "m3u8 by url", "ffconcat", "dash", "sdp", "imf"])
def test_playlists_are_refused_whatever_they_are_called(secret: Path, tmp_path: Path, kind: str) -> None:
    data = playlists(secret)[kind]
    assert statuses(decode_source(data)) == UNSUPPORTED
    for name in ("clip.m3u8", "clip.mp4", "clip.ffconcat"):
        path = tmp_path / name
        path.write_bytes(data)
        assert statuses(decode_source(path)) == UNSUPPORTED


@pytest.mark.parametrize("kind", ["m3u8", "ffconcat"])
def test_no_demuxer_follows_a_playlist_even_if_it_gets_one(secret: Path, kind: str) -> None:
    """The whitelists that go with every open, behind the sniffing."""
    for demuxer in DEMUXERS:
        frames = []
        with contextlib.suppress(av.error.FFmpegError):
            container = open_container(playlists(secret)[kind], demuxer, MediaLimits())
            if container is not None:
                frames = [frame for packet in container.demux() for frame in packet.decode()]
        assert not frames, demuxer


def external_mov(target: Path, template: bytes) -> bytes:
    """A QuickTime file whose sound is said to lie in ``target`` (an ``alis`` data reference with a path)."""
    # A classic alias record of 150 bytes: here only the volume's name matters. Then the absolute path (tag 2), which
    # begins with the volume and has colons for slashes, and the end mark.
    record = bytearray(150)
    record[10:12] = b"\x01V"
    path = b"V" + str(target).replace("/", ":").encode()
    record += struct.pack(">hH", 2, len(path)) + path + b"\0" * (len(path) % 2) + struct.pack(">hH", -1, 0)
    return _with_data_reference(template, b"alis", bytes(record))


def _with_data_reference(template: bytes, kind_of_reference: bytes, record: bytes) -> bytes:
    """A QuickTime file whose only data reference is replaced."""
    entry = struct.pack(">I4sI", 12 + len(record), kind_of_reference, 0) + record

    def grown(data: bytes, path: tuple[bytes, ...]) -> bytes:
        """``data``, a run of boxes, with the data reference beneath ``path`` replaced."""
        result, position = b"", 0
        while position < len(data):
            size, kind = struct.unpack_from(">I4s", data, position)
            body = data[position + 8 : position + size]
            if kind == path[0]:
                body = grown(body, path[1:]) if len(path) > 1 else body[:8] + entry
            result += struct.pack(">I4s", 8 + len(body), kind) + body
            position += size
        return result

    return grown(template, (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"))


def test_a_quicktime_reference_to_another_file_is_not_followed(tmp_path: Path) -> None:
    template = write_clip(tmp_path / "own.mov", picture=None, audio_codec="pcm_s16le", sound=tone(300, 0.1))
    other = write_clip(tmp_path / "other.mov", picture=None, audio_codec="pcm_s16le", sound=tone(900, 0.8))
    path = tmp_path / "reference.mov"
    path.write_bytes(external_mov(other, template.read_bytes()))
    for source in (path, path.read_bytes()):
        track = decode_source(source, AUDIO).tracks["audio"]
        assert track.row is None or np.abs(track.row).max() < 0.2


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A server that must see no connection; one that it does see gets no answer."""
    with socket.create_server(("127.0.0.1", 0)) as it:
        it.settimeout(0)
        yield it


def files_that_name_an_address(url: str, template: bytes) -> dict[str, bytes]:
    return {
        "m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{url}/a.ts\n#EXT-X-ENDLIST\n".encode(),
        "m3u8 master": f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{url}/a.m3u8\n".encode(),
        "m3u8 key": (
            f'#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXT-X-KEY:METHOD=AES-128,URI="{url}/k"\n#EXTINF:1,\n{url}/a.ts\n'
        ).encode(),
        "ffconcat": f"ffconcat version 1.0\nfile '{url}/a.mp4'\n".encode(),
        "file list": f"{url}/a.mp4\n{url}/b.mp4\n".encode(),
        "dash": (
            '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet>'
            f'<Representation id="1"><BaseURL>{url}/a.mp4</BaseURL></Representation></AdaptationSet></Period></MPD>'
        ).encode(),
        "rtsp redirect": f"RTSPtext\n{url.replace('http', 'rtsp')}/a\n".encode(),
        "vobsub": f"# VobSub index file, v7\nid: en, index: 0\nlangidx: 0\n# {url}\n".encode(),
        "subtitles": f"1\n00:00:00,000 --> 00:00:01,000\n<img src='{url}/a.png'>\n".encode(),
        "svg": f'<svg xmlns:x="http://www.w3.org/1999/xlink"><image x:href="{url}/a.png"/></svg>'.encode(),
        "mov reference": _with_data_reference(template, b"url ", url.encode() + b"\0"),
        "ogg with a playlist": b"OggS" + f"\n#EXTM3U\n#EXTINF:1,\n{url}/a.ts\n".encode(),
        "asx": f"<asx version='3.0'><entry><ref href='{url}/a.wmv'/></entry></asx>".encode(),
        "asf with a playlist": ASF + f"\n#EXTM3U\n#EXTINF:1,\n{url}/a.ts\n".encode(),
        "asf redirect": f"[Reference]\nRef1={url}/a.wmv?MSWMExt=.asf\n".encode(),
        "mxf with a playlist": MXF + f"\n#EXTM3U\n#EXTINF:1,\n{url}/a.ts\n".encode(),
        "mpeg with a playlist": b"\x00\x00\x01\xba\x44\x00" + f"\n#EXTM3U\n#EXTINF:1,\n{url}/a.ts\n".encode(),
        "aiff with a playlist": b"FORM\0\0\1\0AIFF" + f"\n#EXTM3U\n#EXTINF:1,\n{url}/a.ts\n".encode(),
        "caf with a playlist": b"caff\0\1\0\0" + f"\n#EXTM3U\n#EXTINF:1,\n{url}/a.ts\n".encode(),
        "mp4 with a playlist": b"\0\0\0\x18ftypisom" + f"\n#EXTM3U\n#EXTINF:1,\n{url}/a.ts\n".encode(),
    }


@pytest.mark.parametrize("kind", sorted(files_that_name_an_address("", b"")))
def test_no_file_opens_a_connection(tmp_path: Path, listener: socket.socket, kind: str) -> None:
    template = write_clip(tmp_path / "own.mov", picture=None, audio_codec="pcm_s16le").read_bytes()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    data = files_that_name_an_address(url, template)[kind]
    for name in ("clip", "clip.m3u8", "clip.mp4", "clip.idx"):
        path = tmp_path / name
        path.write_bytes(data)
        for source in (path, data):
            assert "visual" in statuses(decode_source(source))
    with pytest.raises(BlockingIOError):
        listener.accept()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"\0", "undecodable"),
        (b"hello, this is text", "undecodable"),
        (bytes(range(256)) * 8, "undecodable"),
        (random.Random(1).randbytes(100_000), "undecodable"),
        (b"\x00\x00\x00\x20ftypisom" + b"\0" * 500, "undecodable"),
        (b"RIFF\xff\xff\xff\xffWAVEfmt ", "undecodable"),
        (b"RIFF\xff\xff\xff\xffAVI LIST", "undecodable"),
        (b"\x1a\x45\xdf\xa3" + b"\xff" * 64, "undecodable"),
        (b"OggS" + b"\0" * 200, "undecodable"),
        (b"fLaC" + b"\xff" * 200, "undecodable"),
        (b"FLV\x01" + b"\xff" * 200, "undecodable"),
        (b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + b"\xff\xfb\x90\x64" * 50, "undecodable"),
        (b"\xff\xfb\x90\x64" + b"\0" * 2000, "undecodable"),
        (b"G" + (b"\0" * 187 + b"G") * 20, "undecodable"),
        (ASF + b"\xff" * 200, "undecodable"),
        (MXF + b"\xff" * 200, "undecodable"),
        (b"\x00\x00\x01\xba\x44" + b"\xff" * 200, "undecodable"),
        (b"FORM\xff\xff\xff\xffAIFFCOMM", "undecodable"),
        (b"FORM\xff\xff\xff\xffAIFCCOMM" + b"\xff" * 200, "undecodable"),
        (b".snd" + b"\xff" * 200, "undecodable"),
        (b"caff\0\1" + b"\xff" * 200, "undecodable"),
        (b"NIST_1A\n   1024\n" + b"\xff" * 2000, "undecodable"),
        (b"Creative Voice File\x1a" + b"\xff" * 200, "undecodable"),
        (b"wvpk" + b"\xff" * 200, "undecodable"),
    ],
)
def test_what_is_no_recording_is_unusable_and_raises_nothing(data: bytes, reason: str) -> None:
    decoded = decode_source(data)
    assert {track.row is None for track in decoded.tracks.values()} == {True}
    assert decoded.tracks["audio"].status.reason == reason


@pytest.mark.parametrize("magic", [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"BM", b"RIFF\0\0\0\0WEBPVP8 "])
def test_broken_images_are_undecodable(magic: bytes) -> None:
    for tail in (b"", b"\0" * 10, b"\0" * 200, b"\xff" * 200, bytes(range(1, 200))):
        try:
            found = statuses(decode_source(magic + tail, VISUAL))
        except DimmlError:
            continue
        assert found == {"visual": "unusable:undecodable"}


def test_an_image_of_gigabytes_is_refused_by_its_header() -> None:
    header = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII5B", 13, b"IHDR", 60_000, 60_000, 8, 2, 0, 0, 0)
    with pytest.raises(DimmlError, match="max_image_pixels"):
        decode_source(header + b"\0" * 100, VISUAL)


def test_a_wav_header_that_promises_gigabytes() -> None:
    header = (
        b"RIFF" + struct.pack("<I", 0xFFFFFFFE) + b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 2, 8000, 32000, 4, 16)
    )
    data = header + b"data" + struct.pack("<I", 0xFFFFFF00) + (b"\x00\x20" * 8000)
    decoded = decode_source(data, AUDIO, end_s=0.5)
    assert statuses(decoded) == {"audio": "ok"}


@pytest.mark.parametrize("rate_hz", [8000, 16_000])
@pytest.mark.parametrize(("sample", "status"), [(math.nan, "undecodable"), (math.inf, "undecodable"), (3.4e38, None)])
def test_floats_that_are_no_sound_never_reach_an_encoder(sample: float, status: str | None, rate_hz: int) -> None:
    """An encoder would make NaN of them, and that reads as the server's fault. Resampling may overflow, too."""
    samples = np.full(rate_hz, 0.25, "<f4") * np.sin(np.arange(rate_hz, dtype="<f4"))
    samples[4000:4100:2], samples[4001:4100:2] = sample, -sample
    form = struct.pack("<HHIIHH", 3, 1, rate_hz, 4 * rate_hz, 4, 32)
    data = samples.tobytes()
    wav = b"WAVEfmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", len(data)) + data
    track = decode_source(b"RIFF" + struct.pack("<I", len(wav)) + wav, AUDIO).tracks["audio"]
    assert track.row is None or np.isfinite(track.row).all()
    assert status is None or track.status.reason == status


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "flv", "mov"])
@pytest.mark.parametrize("kind", ["video", "audio"])
def test_damage_to_one_track_leaves_the_other(tmp_path: Path, suffix: str, kind: str) -> None:
    codecs = {"video_codec": "mpeg4", "audio_codec": "libmp3lame"} if suffix == "avi" else {}
    path = write_clip(tmp_path / f"clip.{suffix}", 1.0, rate_hz=44_100, **codecs)
    decoded = decode_source(damage_packets(path, kind))
    found = statuses(decoded)
    hurt, whole = ("visual", "audio") if kind == "video" else ("audio", "visual")
    assert found[whole] == "ok"
    assert found[hurt] in {"unusable:undecodable", "unusable:silent"}
    if found[hurt] == "unusable:undecodable":
        with av.open(str(path)) as container:
            codec = container.streams.best(kind).codec_context.codec.canonical_name
        detail = decoded.tracks[hurt].status.detail
        assert detail is not None
        assert f"track ({codec}) decodes" in detail


SOUND_CODECS = {
    **{"wav": "pcm_s16le", "mp3": "libmp3lame", "ogg": "libopus", "flac": "flac", "aac": "aac"},
    **{"aiff": "pcm_s16be", "au": "pcm_s16be", "caf": "pcm_s16be", "w64": "pcm_s16le", "voc": "pcm_s16le"},
    **{"ac3": "ac3", "eac3": "eac3", "wv": "wavpack", "wma": "wmav2"},
}
VIDEO_CODECS = {
    "avi": {"video_codec": "mpeg4", "audio_codec": "libmp3lame"},
    "mpg": {"video_codec": "mpeg1video", "audio_codec": "mp2"},
    "wmv": {"video_codec": "wmv2", "audio_codec": "wmav2"},
    "mxf": {"video_codec": "mpeg2video", "audio_codec": "pcm_s16le"},
}


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "flv", "ts", *VIDEO_CODECS, *SOUND_CODECS])
def test_truncated_anywhere(tmp_path: Path, suffix: str) -> None:
    """Every prefix gives rows or reasons; long prefixes of formats that need no index give rows."""
    if suffix in SOUND_CODECS:
        codec = SOUND_CODECS[suffix]
        # Longer than an Ogg page, which lasts a second and is all or nothing.
        path = write_clip(tmp_path / f"clip.{suffix}", 4.0, picture=None, audio_codec=codec, rate_hz=48_000)
    else:
        rate_hz = 48_000 if suffix == "mxf" else 44_100
        path = write_clip(tmp_path / f"clip.{suffix}", 1.0, rate_hz=rate_hz, **VIDEO_CODECS.get(suffix, {}))
    data = path.read_bytes()
    for share in (0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99):
        decoded = decode_source(data[: int(len(data) * share)])
        for track in decoded.tracks.values():
            assert (track.row is None) != track.status.ok
        if share >= 0.5 and suffix != "mp4":
            assert decoded.tracks["audio"].status.ok, share


@pytest.fixture(scope="module")
def small_clips(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("fuzz")
    options: dict[str, dict[str, str]] = {
        "mp4": {},
        "mkv": {"audio_codec": "pcm_s16le"},
        "avi": {"video_codec": "mpeg4", "audio_codec": "libmp3lame"},
        "ts": {},
        "flv": {},
    }
    clips = [
        write_clip(folder / f"clip.{suffix}", 0.3, fps=10, width=32, height=32, rate_hz=44_100, **codecs).read_bytes()
        for suffix, codecs in options.items()
    ]
    for suffix in ("mpg", "wmv", "mxf"):
        rate_hz = 48_000 if suffix == "mxf" else 44_100
        clip = write_clip(
            folder / f"c.{suffix}", 0.3, fps=25, width=32, height=32, rate_hz=rate_hz, **VIDEO_CODECS[suffix]
        )
        clips.append(clip.read_bytes())
    for suffix, codec in SOUND_CODECS.items():
        if suffix == "aac":
            continue
        sound = write_clip(folder / f"s.{suffix}", 0.3, picture=None, audio_codec=codec, rate_hz=48_000)
        clips.append(sound.read_bytes())
    return clips


SMALL = MediaLimits(max_bytes=2**22, max_seconds=60.0, max_pixels=512 * 512, max_frames_decoded=200)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(
    which=st.integers(0, 20),
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=8)), max_size=6),
    cut=st.none() | st.floats(0, 1),
    spliced=st.none() | st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_mutated_recordings_raise_nothing_but_our_errors(
    small_clips: list[bytes],
    which: int,
    edits: list[tuple[float, bytes]],
    cut: float | None,
    spliced: tuple[float, float] | None,
) -> None:
    data = bytearray(small_clips[which])
    for where, replacement in edits:
        position = int(where * len(data))
        data[position : position + len(replacement)] = replacement
    if spliced is not None:
        low, high = sorted(int(share * len(data)) for share in spliced)
        del data[low:high]
    if cut is not None:
        del data[int(cut * len(data)) :]
    try:
        decoded = decode_source(bytes(data), limits=SMALL)
    except DimmlError:
        return
    for modality in (AUDIO, VISUAL):
        track = decoded.tracks[modality.name]
        assert (track.row is not None) == track.status.ok
        if track.status.ok:
            assert row_of(decoded, modality.name).shape == modality.shape


def test_a_container_without_sound_or_pictures(tmp_path: Path) -> None:
    path = tmp_path / "data.ts"
    with av.open(str(path), "w") as container:
        stream = container.add_data_stream("bin_data")
        packet = av.Packet(b"hello" * 50)
        packet.pts = packet.dts = 0
        packet.time_base, packet.stream = Fraction(1, 1000), stream
        container.mux(packet)
    assert statuses(decode_source(path)) == {"audio": "absent:no_track", "visual": "absent:no_track"}


def test_a_stream_that_appears_on_the_way_is_passed_over(tmp_path: Path) -> None:
    """FLV has no list of streams: a tag of another kind in the middle is a new one, of which PyAV knows nothing."""
    data = bytearray(write_clip(tmp_path / "clip.flv", 2.0, picture=None, rate_hz=44_100).read_bytes())
    data[4] = 4  # the header's flags: there is sound, and nothing else
    position, tags = 13, 0
    while position + 11 < len(data):
        size = int.from_bytes(data[position + 1 : position + 4])
        tags += 1
        if tags == 60:
            data[position] = 9  # a picture, says the tag
            data[position + 11] = 0x14  # of Sorenson's kind
            break
        position += 11 + size + 4
    assert statuses(decode_source(bytes(data), AUDIO)) == {"audio": "ok"}


def test_the_cover_of_an_album_is_not_a_picture(tmp_path: Path) -> None:
    cover = cv2.imencode(".png", np.full((32, 32, 3), 200, np.uint8))[1].tobytes()
    frame = b"APIC" + struct.pack(">IH", len(cover) + 14, 0) + b"\0image/png\0\x03\0" + cover
    size = bytes(len(frame) >> shift & 0x7F for shift in (21, 14, 7, 0))
    path = write_clip(tmp_path / "clip.mp3", picture=None, audio_codec="libmp3lame", rate_hz=44_100)
    sound = path.read_bytes()
    data = b"ID3\x03\0\0" + size + frame + sound[sound.index(b"\xff\xfb") :]
    assert statuses(decode_source(data)) == {"audio": "ok", "visual": "absent:no_track"}


@pytest.mark.parametrize(
    ("head", "demuxer"),
    [
        (b"\x00\x00\x00\x18ftypmp42", "mov"),
        (b"\x00\x00\x00\x08wide\x00\x00", "mov"),
        (b"\x1a\x45\xdf\xa3\x01", "matroska"),
        (b"RIFF\0\0\0\0AVI LIST", "avi"),
        (b"RIFF\0\0\0\0WAVEfmt ", "wav"),
        (b"RF64\xff\xff\xff\xffWAVEds64", "wav"),
        (b"RIFF\0\0\0\0WEBPVP8X", "webp"),
        (b"FLV\x01\x05", "flv"),
        (b"OggS\0", "ogg"),
        (b"fLaC\0", "flac"),
        (b"\xff\xfb\x90\x64", "mp3"),
        (b"\xff\xf1\x50\x80", "aac"),
        (b"\xff\xd8\xff\xe1", "jpeg"),
        (b"\x89PNG\r\n\x1a\n", "png"),
        (b"BM\x36", "bmp"),
        (b"\x93NUMPY\x01\0", "npy"),
        (b"\xff\xff\xff\xff", None),
        (b"#EXTM3U", None),
        (b"", None),
        (b"MZ", None),
    ],
)
def test_files_are_known_by_their_first_bytes(head: bytes, demuxer: str | None) -> None:
    found = sniff(head)
    assert (None if found is None else found.demuxer) == demuxer


def test_a_tag_before_the_sound_is_passed_over(tmp_path: Path) -> None:
    tag = b"ID3\x04\0\0\0\0\x02\x00" + b"\0" * 256
    for suffix, codec, demuxer in (("mp3", "libmp3lame", "mp3"), ("aac", "aac", "aac")):
        path = write_clip(tmp_path / f"clip.{suffix}", picture=None, audio_codec=codec, rate_hz=44_100)
        path.write_bytes(tag + path.read_bytes() if suffix == "aac" else path.read_bytes())
        with path.open("rb") as file:
            found = identify(file)
        assert found is not None
        assert found.demuxer == demuxer
        assert statuses(decode_source(path, AUDIO)) == {"audio": "ok"}


def test_every_shared_file_is_sniffed_as_what_it_is() -> None:
    expected = {".mp4": "mov", ".mov": "mov", ".webm": "matroska", ".ts": "mpegts", ".avi": "avi", ".flv": "flv"}
    for path in shared_data("media").glob("*.*"):
        if path.suffix in expected:
            with path.open("rb") as file:
                found = identify(file)
            assert found is not None
            assert found.demuxer == expected[path.suffix], path.name


def test_importing_media_sets_nothing_up() -> None:
    """Importing a module does nothing: no log levels, no thread counts, no limits."""
    code = (
        "import resource, av, cv2\n"
        "before = av.logging.get_level(), cv2.getNumThreads(), resource.getrlimit(resource.RLIMIT_AS)\n"
        "import dimml.media, dimml.media.workers.pool, dimml.media.workers.main\n"
        "assert before == (av.logging.get_level(), cv2.getNumThreads(), resource.getrlimit(resource.RLIMIT_AS))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
