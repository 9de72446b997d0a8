"""A recording that holds less than its header promises stays usable, and says how much of it is there."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from dimml.media import Decoded
from dimml.media.decoders.windows import WindowPlan, decode_windows
from dimml.media.types import Truncation
from dimml.media.workers.codec import encode_reply, read_reply
from dimml.media.workers.messages import DecodeResult
from support.data import REPOSITORY_ROOT, shared_data
from support.decoding import AUDIO, VISUAL, decode_source, request_for, statuses
from support.media_maker import tone, write_clip

SECONDS = 3.0
CONTAINERS = {
    "mp4": {"options": {"movflags": "+faststart"}},
    "mov": {"options": {"movflags": "+faststart"}},
    "mkv": {},
    "webm": {"video_codec": "libvpx", "audio_codec": "libopus", "rate_hz": 48_000},
    "avi": {"video_codec": "mpeg4", "audio_codec": "pcm_s16le"},
    "flv": {"rate_hz": 44_100},
}
SOUNDS = {"wav": ("WAV", "PCM_16"), "adpcm": ("WAV", "MS_ADPCM"), "rf64": ("RF64", "FLOAT"), "flac": ("FLAC", "PCM_16")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    made = {
        suffix: write_clip(folder / f"a.{suffix}", SECONDS, **options).read_bytes()  # type: ignore[arg-type]
        for suffix, options in CONTAINERS.items()
    }
    samples = tone()(np.arange(round(SECONDS * 16_000)) / 16_000)
    for name, (form, subtype) in SOUNDS.items():
        file = io.BytesIO()
        soundfile.write(file, samples, 16_000, format=form, subtype=subtype)
        made[name] = file.getvalue()
    mp3 = write_clip(folder / "a.mp3", SECONDS, picture=None, audio_codec="libmp3lame", rate_hz=44_100)
    return made | {"mp3": mp3.read_bytes()}


def held_seconds(data: bytes, kind: str) -> float:
    """When the last packet of a kind ends that PyAV finds, from the first one of any kind."""
    ends, starts = [0.0], []
    with av.open(io.BytesIO(data)) as container:
        try:
            for packet in container.demux():
                if packet.size and packet.pts is not None:
                    starts.append(float(packet.pts * packet.time_base))
                    if packet.stream.type == kind:
                        ends.append(float((packet.pts + (packet.duration or 0)) * packet.time_base))
        except (av.error.FFmpegError, OSError):
            pass
    return max(ends) - max(0.0, min(starts))


@pytest.mark.parametrize("name", [*CONTAINERS, *SOUNDS, "mp3"])
def test_what_is_cut_off_is_usable_and_says_how_much_there_is(whole: dict[str, bytes], name: str) -> None:
    modalities = (AUDIO, VISUAL) if name in CONTAINERS else (AUDIO,)
    for track in decode_source(whole[name], *modalities).tracks.values():
        assert track.truncation is None
    data = whole[name][: len(whole[name]) * 2 // 5]
    decoded = decode_source(data, *modalities)
    assert statuses(decoded) == {modality.name: "ok" for modality in modalities}
    for modality in modalities:
        truncation = decoded.tracks[modality.name].truncation
        assert truncation is not None
        assert truncation.promised_s == pytest.approx(SECONDS, abs=0.12)
        kind = "audio" if modality is AUDIO else "video"
        assert truncation.held_s == pytest.approx(held_seconds(data, kind), abs=0.3 if name == "flac" else 0.11)
        assert 0.3 < truncation.held_s < 2.0
    for window in decode_windows(request_for(data, *modalities), WindowPlan(0.5, 0.5)):
        assert {n: track.truncation for n, track in window.decoded.tracks.items()} == {
            n: track.truncation for n, track in decoded.tracks.items()
        }


@pytest.mark.parametrize("options", [{"live": "1"}, {"movflags": "frag_keyframe+empty_moov"}], ids=["WebM", "MP4"])
def test_where_no_header_promises_a_length_nothing_is_missing(tmp_path: Path, options: dict[str, str]) -> None:
    if "live" in options:
        codecs = {"video_codec": "libvpx", "audio_codec": "libopus", "rate_hz": 48_000}
        path = write_clip(tmp_path / "a.webm", SECONDS, options=options, **codecs)  # type: ignore[arg-type]
    else:
        path = write_clip(tmp_path / "a.mp4", SECONDS, options=options)
    data = path.read_bytes()
    whole = decode_source(data)
    assert [track.truncation for track in whole.tracks.values()] == [None, None]
    if "live" in options:
        cut = decode_source(data[: len(data) // 2])
        assert [track.truncation for track in cut.tracks.values()] == [None, None]


def test_lengths_that_stand_for_unknown_ones_promise_nothing(whole: dict[str, bytes]) -> None:
    """As FFmpeg and SoX leave a WAV's sizes that they write into a pipe."""
    for size in (0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF024):
        data = bytearray(whole["wav"])
        at = data.index(b"data") + 4
        data[at : at + 4] = size.to_bytes(4, "little")
        data[4:8] = size.to_bytes(4, "little")
        assert decode_source(bytes(data), AUDIO).tracks["audio"].truncation is None


def test_a_track_that_ends_before_the_other_is_whole(tmp_path: Path) -> None:
    for suffix in ("mp4", "mkv"):
        data = write_clip(tmp_path / f"a.{suffix}", SECONDS, sound_seconds=1.0).read_bytes()
        assert [track.truncation for track in decode_source(data).tracks.values()] == [None, None]


def test_no_ordinary_recording_is_taken_for_a_part() -> None:
    files = [*sorted((REPOSITORY_ROOT / "samples").glob("*.mp4")), *sorted(shared_data("mediarecorder").glob("*.*"))]
    media = {".mp4", ".webm", ".wav", ".ogg", ".mkv"}
    for path in [path for path in files if path.suffix in media]:
        decoded = decode_source(path, AUDIO, clip_s=0.1)
        assert decoded.tracks["audio"].truncation is None, path.name


def test_workers_hand_it_on(whole: dict[str, bytes]) -> None:
    decoded = decode_source(whole["mp4"][: len(whole["mp4"]) // 2], clip_s=0.2)
    text, rows = encode_reply([DecodeResult(decoded, 0.1)])
    (result,) = read_reply(text, np.frombuffer(b"".join(r.tobytes() + bytes(-r.nbytes % 64) for r in rows), np.uint8))  # type: ignore[union-attr, misc]
    assert isinstance(result.outcome, Decoded)
    assert result.outcome.truncations == decoded.truncations
    assert set(decoded.truncations) == {"audio", "visual"}
    assert isinstance(decoded.truncations["audio"], Truncation)
