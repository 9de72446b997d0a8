"""Recordings with several tracks: the one that is named is read, and what there is is said where it is not there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dimml.errors import InvalidParameterError
from dimml.media import Decoded, DecodeRequest, decode
from dimml.media.decoders.windows import WindowPlan, decode_windows
from dimml.modality import Frames, Waveform
from support.decoding import row_of
from support.media_maker import numbered_picture, read_number, tone, write_clip
from support.several_tracks import RATE_HZ, PictureTrack, SoundTrack, write_tracks

AUDIO = Waveform(name="audio", sample_rate_hz=RATE_HZ, samples=RATE_HZ)
VISUAL = Frames(name="visual", frames=3, height=64, width=96)
SECONDS = 3.0
SOUNDS: Sequence[SoundTrack] = (("eng", tone(500.0, 0.1)), ("fra", tone(1000.0, 0.4)), ("", tone(2000.0, 0.2)))
PICTURES: Sequence[PictureTrack] = (("eng", numbered_picture), ("deu", lambda number: numbered_picture(100 + number)))


def decoded(path: Path, **options: Any) -> Decoded:
    sources = {"audio": path, "visual": path}
    return decode(DecodeRequest((AUDIO, VISUAL), sources, clip_s=1.0, start_s=1.0, end_s=2.0, **options))


def heard_hz(row: Any) -> int:
    """The strongest frequency, to 100 Hz."""
    spectrum = np.abs(np.fft.rfft(row * np.hanning(len(row))))
    return round(float(np.argmax(spectrum)) * RATE_HZ / len(row), -2)


def sound_of(found: Decoded) -> int | str:
    track = found.tracks["audio"]
    return str(track.status) if track.row is None else heard_hz(track.row)


def first_picture(found: Decoded) -> int:
    return read_number(row_of(found, "visual")[0])


@pytest.fixture(scope="module", params=["mp4", "mkv", "ts"])
def recording(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tracks(tmp_path_factory.mktemp("tracks") / f"a.{request.param}", SOUNDS, PICTURES)


def test_a_track_by_number_or_language(recording: Path) -> None:
    """The pictures of the second track have numbers from 100; a transport stream states no language of pictures."""
    assert sound_of(decoded(recording)) == 500
    assert first_picture(decoded(recording)) < 100
    expected = {0: 500, 1: 1000, 2: 2000, "1": 1000, "eng": 500, "FRA": 1000, "loudest": 1000, "": 500}
    assert {name: sound_of(decoded(recording, audio_track=name)) for name in expected} == expected
    second = {0: False, 1: True, "1": True, "eng": False, "deu": True}
    for choice in second if recording.suffix != ".ts" else (0, 1, "1"):
        assert (first_picture(decoded(recording, video_track=choice)) >= 100) == second[choice]
    both = decoded(recording, audio_track=2, video_track=1)
    assert sound_of(both) == 2000
    assert first_picture(both) >= 100


@pytest.mark.parametrize("choice", [1, "fra", "loudest"])
def test_windows_read_the_named_track(recording: Path, choice: int | str) -> None:
    request = DecodeRequest((AUDIO, VISUAL), {"audio": recording, "visual": recording}, 1.0, audio_track=choice)
    windows = [one.decoded for one in decode_windows(request, WindowPlan(1.0, 1.0))]
    assert [sound_of(one) for one in windows] == [1000] * 3


def test_a_track_that_is_not_there(recording: Path) -> None:
    for choice in (3, "deu"):
        found = decoded(recording, audio_track=choice)
        assert sound_of(found) == "absent:no_track"
        assert str(found.tracks["visual"].status) == "ok"
        detail = found.tracks["audio"].status.detail or ""
        assert detail.startswith(f"it has no sound track {choice}" if choice == 3 else "it has no sound track in 'deu'")
        assert detail.endswith("(audio_track): there is 0 (eng), 1 (fra), 2")
    found = decoded(recording, video_track=2)
    assert (sound_of(found), str(found.tracks["visual"].status)) == (500, "absent:no_track")
    listed = "0, 1" if recording.suffix == ".ts" else "0 (eng), 1 (deu)"
    assert found.tracks["visual"].status.detail == f"it has no picture track 2 (video_track): there is {listed}"


def test_the_loudest_is_chosen_in_each_stretch(tmp_path: Path) -> None:
    early = lambda time_s: np.where(time_s < 1.5, 0.5, 0.05) * np.sin(2 * np.pi * 500 * time_s)  # noqa: E731
    path = write_tracks(tmp_path / "a.mkv", (("eng", early), ("fra", tone(1000.0, 0.2))))
    request = DecodeRequest((AUDIO,), {"audio": path}, 1.0, audio_track="loudest")
    assert [sound_of(one.decoded) for one in decode_windows(request, WindowPlan(1.0, 1.0))] == [500, 500, 1000]


def test_a_silent_track_names_another_that_is_not(tmp_path: Path) -> None:
    late = lambda time_s: np.where(time_s >= 2.2, 1.0, 0.0) * tone(1000.0)(time_s)  # noqa: E731
    path = write_tracks(tmp_path / "a.mkv", (("eng", np.zeros_like), ("", np.zeros_like), ("fra", late)), PICTURES)
    sentence = "sound track {} is silent and track 2 (fra) is not: name it as audio_track"
    for choice, words in ((None, "0 (eng)"), (1, "1")):
        request = DecodeRequest((AUDIO,), {"audio": path}, 1.0, start_s=2.0, end_s=3.0, audio_track=choice)
        status = decode(request).tracks["audio"].status
        assert str(status) == "unusable:silent"
        assert status.detail == sentence.format(words)
        whole = DecodeRequest((AUDIO, VISUAL), {"audio": path, "visual": path}, 1.0, audio_track=choice)
        details = [one.decoded.tracks["audio"].status.detail for one in decode_windows(whole, WindowPlan(1.0, 1.0))]
        assert details == [None, None, sentence.format(words)]
    early = decode(DecodeRequest((AUDIO,), {"audio": path}, 1.0, start_s=0.0, end_s=1.0)).tracks["audio"].status
    assert (str(early), early.detail) == ("unusable:silent", None)
    loudest = decode(DecodeRequest((AUDIO,), {"audio": path}, 1.0, start_s=2.0, end_s=3.0, audio_track="loudest"))
    assert sound_of(loudest) == 1000


def test_a_file_of_one_track(tmp_path: Path) -> None:
    sound = {"picture": None, "sound": tone(1000.0), "rate_hz": RATE_HZ}
    for path in (
        write_clip(tmp_path / "a.wav", SECONDS, audio_codec="pcm_s16le", **sound),
        write_clip(tmp_path / "a.mp3", SECONDS, audio_codec="libmp3lame", **sound),
        write_clip(tmp_path / "a.ogg", SECONDS, audio_codec="libopus", **{**sound, "rate_hz": 48_000}),
        write_clip(tmp_path / "a.flac", SECONDS, audio_codec="flac", **sound),
    ):
        assert [sound_of(decoded(path, audio_track=name)) for name in (0, "loudest")] == [1000, 1000]
        found = decoded(path, audio_track=1)
        assert sound_of(found) == "absent:no_track"
        assert found.tracks["audio"].status.detail == "it has no sound track 1 (audio_track): there is 0"
        assert str(found.tracks["visual"].status) == "absent:no_track"


def test_a_picture_file_has_one_track() -> None:
    import cv2

    png = cv2.imencode(".png", numbered_picture(7))[1].tobytes()
    for choice, expected in ((None, "ok"), (0, "ok"), (1, "absent:no_track"), ("eng", "absent:no_track")):
        request = DecodeRequest((VISUAL,), {"visual": png}, 1.0, video_track=choice)
        assert str(decode(request).tracks["visual"].status) == expected


@pytest.mark.parametrize("value", [-1, 1000, True, 0.5, "first", "e", "-1", "1.0", "eng;fra", ["eng"], "0x1"])
def test_what_names_no_track_is_refused(value: object) -> None:
    for field in ("audio_track", "video_track"):
        with pytest.raises(InvalidParameterError, match=f"^{field} must be a number from 0, a language") as caught:
            DecodeRequest((AUDIO,), {}, 1.0, **{field: value})
        assert caught.value.field == field
    with pytest.raises(InvalidParameterError, match="video_track"):
        DecodeRequest((VISUAL,), {}, 1.0, video_track="loudest")
