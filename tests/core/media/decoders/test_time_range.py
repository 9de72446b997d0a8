"""Time ranges and limits: what is judged, and what is refused with which field."""

from __future__ import annotations

import math
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from dimml.errors import DataError, InvalidParameterError, TooLargeError
from dimml.media import DecodeRequest, MediaLimits, decode
from dimml.modality import Frames, Waveform
from dimml.status import Reason
from support.data import shared_data
from support.decoding import AUDIO, VISUAL, decode_source, loudest_s, request_for, row_of, statuses
from support.media_maker import click_at, read_number, write_clip


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3 s of numbered pictures, with a click at 1.5 s."""
    return write_clip(tmp_path_factory.mktemp("ranges") / "clip.mp4", 3.0, sound=click_at(1.5))


@pytest.mark.parametrize(
    ("start_s", "end_s", "judged"),
    [
        (None, None, (1.0, 2.0)),
        (0.0, 3.0, (1.0, 2.0)),
        (1.0, None, (1.5, 2.5)),
        (None, 2.0, (0.5, 1.5)),
        (1.2, 1.8, (1.2, 1.8)),
        (2.5, 3.05, (2.5, 3.0)),
    ],
)
def test_the_middle_of_a_range_is_judged(
    clip: Path, start_s: float | None, end_s: float | None, judged: tuple[float, float]
) -> None:
    decoded = decode_source(clip, AUDIO, VISUAL, clip_s=1.0, start_s=start_s, end_s=end_s)
    assert (decoded.start_s, decoded.end_s) == pytest.approx(judged, abs=1e-3)
    numbers = [read_number(frame) for frame in row_of(decoded, "visual")]
    wanted_s = [judged[0] + (i + 0.5) / 5 * (judged[1] - judged[0]) for i in range(5)]
    assert numbers == [int(25 * moment_s + 1e-6) for moment_s in wanted_s]
    if judged[0] <= 1.5 < judged[1]:
        assert loudest_s(row_of(decoded, "audio"), 8000) == pytest.approx(1.51 - judged[0], abs=0.004)


@pytest.mark.parametrize(
    ("start_s", "end_s", "judged"),
    [
        (1.2, 1.4, (0.95, 1.65)),
        (0.1, 0.3, (0.0, 0.55)),
        (2.6, 3.05, (2.35, 3.0)),
        (0.5, 2.0, (0.75, 1.75)),
        (2.0, None, (1.875, 2.875)),
        (None, 0.3, (0.0, 0.55)),
        (None, None, (1.0, 2.0)),
    ],
)
def test_a_margin_widens_a_range_up_to_the_ends_of_the_media(
    clip: Path, start_s: float | None, end_s: float | None, judged: tuple[float, float]
) -> None:
    decoded = decode(request_for(clip, AUDIO, VISUAL, clip_s=1.0, start_s=start_s, end_s=end_s, margin_s=0.25))
    assert (decoded.start_s, decoded.end_s) == pytest.approx(judged, abs=1e-3)


def test_a_margin_lets_no_range_past_the_end_through(clip: Path) -> None:
    for field, start_s, end_s in (("end_s", 2.0, 3.2), ("start_s", 3.1, None)):
        with pytest.raises(InvalidParameterError) as raised:
            decode(request_for(clip, VISUAL, clip_s=1.0, start_s=start_s, end_s=end_s, margin_s=0.25))
        assert raised.value.field == field


@pytest.mark.parametrize(
    ("start_s", "end_s", "field"),
    [
        (-0.1, None, "start_s"),
        (math.nan, None, "start_s"),
        (math.inf, None, "start_s"),
        (None, -1.0, "end_s"),
        (None, math.nan, "end_s"),
        (None, 0.0, "end_s"),
        (1.0, 1.0, "end_s"),
        (2.0, 1.0, "end_s"),
        (3.0, None, "start_s"),
        (17.0, 18.0, "start_s"),
        (1.0, 3.2, "end_s"),
    ],
)
def test_a_wrong_range_names_its_field(clip: Path, start_s: float | None, end_s: float | None, field: str) -> None:
    with pytest.raises(InvalidParameterError, match=field) as caught:
        decode_source(clip, start_s=start_s, end_s=end_s)
    assert caught.value.field == field


def test_a_range_past_the_end_of_a_sound_file() -> None:
    with pytest.raises(InvalidParameterError, match="past the end of the media"):
        decode_source(shared_data("media") / "bear.flac", AUDIO, start_s=1.0, end_s=9.0)


def test_a_range_does_not_apply_to_an_image() -> None:
    image = cv2.imencode(".png", np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8))[1].tobytes()
    sound = (shared_data("media") / "bear.flac").read_bytes()
    request = DecodeRequest((AUDIO, VISUAL), {"audio": sound, "visual": image}, clip_s=1.0, start_s=1.0, end_s=2.0)
    decoded = decode(request)
    assert statuses(decoded) == {"audio": "ok", "visual": "ok"}
    assert (decoded.start_s, decoded.end_s) == (1.0, 2.0)


def test_each_modality_may_have_its_own_source(tmp_path: Path) -> None:
    picture = write_clip(tmp_path / "picture.mp4", 2.0, sound=None)
    sound = write_clip(tmp_path / "sound.wav", 2.0, picture=None, audio_codec="pcm_s16le")
    rear = Frames(name="rear", tensor="REAR", frames=1, height=32, width=48)
    request = DecodeRequest((AUDIO, VISUAL, rear), {"audio": sound, "visual": picture}, clip_s=1.0)
    decoded = decode(request)
    assert statuses(decoded) == {"audio": "ok", "visual": "ok", "rear": "absent:not_sent"}
    assert list(decoded.tracks) == ["audio", "visual", "rear"]


def test_headers_that_lie_about_the_duration(tmp_path: Path) -> None:
    """The fragmented sample's header is absurd; a file cut in two lasts as long as what is left of it."""
    whole = decode_source(shared_data("media") / "sample_fragmented.mp4", clip_s=30.0)
    assert whole.end_s == pytest.approx(1.068, abs=0.01)
    path = write_clip(tmp_path / "clip.mkv", 4.0)
    data = path.read_bytes()
    half = decode_source(data[: len(data) // 2], clip_s=30.0)
    assert statuses(half) == {"audio": "ok", "visual": "ok"}
    assert half.end_s is not None
    assert 1.0 < half.end_s < 3.5


@pytest.mark.parametrize(
    ("limits", "named"),
    [
        (MediaLimits(max_bytes=1000), "max_bytes"),
        (MediaLimits(max_seconds=2.9), "max_seconds"),
        (MediaLimits(max_pixels=96 * 64 - 1), "max_pixels"),
        (MediaLimits(max_frames_decoded=10), "max_frames_decoded"),
    ],
)
def test_a_limit_that_is_exceeded_is_named(clip: Path, limits: MediaLimits, named: str) -> None:
    for source in (clip, clip.read_bytes()):
        with pytest.raises(TooLargeError, match=named):
            decode_source(source, limits=limits)


def test_limits_are_inclusive(clip: Path) -> None:
    size = clip.stat().st_size
    limits = MediaLimits(max_bytes=size, max_seconds=3.001, max_pixels=96 * 64, max_frames_decoded=80)
    assert statuses(decode_source(clip, limits=limits)) == {"audio": "ok", "visual": "ok"}


def test_a_range_within_the_limits_of_a_longer_recording(clip: Path) -> None:
    limits = MediaLimits(max_seconds=1.0, max_frames_decoded=40)
    assert statuses(decode_source(clip, start_s=1.0, end_s=2.0, limits=limits)) == {"audio": "ok", "visual": "ok"}
    with pytest.raises(TooLargeError, match="max_seconds"):
        decode_source(clip, start_s=1.0, end_s=2.5, limits=limits)
    with pytest.raises(TooLargeError, match="max_seconds"):
        decode_source(clip, start_s=0.5, limits=limits)


def test_sound_alone_is_not_held_to_the_limits_of_pictures(clip: Path) -> None:
    limits = MediaLimits(max_pixels=10, max_frames_decoded=1)
    assert statuses(decode_source(clip, AUDIO, limits=limits)) == {"audio": "ok"}


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp"])
def test_an_image_is_measured_before_it_is_decoded(suffix: str) -> None:
    data = cv2.imencode(f".{suffix}", np.zeros((64, 96, 3), np.uint8))[1].tobytes()
    with pytest.raises(TooLargeError, match="96x64"):
        decode_source(data, VISUAL, limits=MediaLimits(max_image_pixels=96 * 64 - 1))
    lossless = cv2.imencode(".webp", np.zeros((64, 96, 3), np.uint8), [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes()
    with pytest.raises(TooLargeError, match="96x64"):
        decode_source(lossless, VISUAL, limits=MediaLimits(max_image_pixels=96 * 64 - 1))


def test_the_decompression_bomb_is_refused_quickly() -> None:
    began = time.perf_counter()
    with pytest.raises(TooLargeError, match="max_seconds"):
        decode_source(shared_data("media") / "long_4k_av1.mp4")
    assert time.perf_counter() - began < 5.0


def test_a_path_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.mp4", tmp_path):
        with pytest.raises(DataError, match=str(path)) as caught:
            decode_source(path)
        assert caught.value.field == str(path)


def test_a_recording_of_one_picture(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", 0.04, sound=None)
    decoded = decode_source(path, VISUAL)
    assert statuses(decoded) == {"visual": "ok"}
    assert len(set(decoded.tracks["visual"].times_s)) == 1


def test_rows_have_the_shape_and_dtype_of_their_modality(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4")
    modalities = (
        Waveform(name="audio", sample_rate_hz=11_025, samples=5001),
        Frames(name="visual", frames=3, height=9, width=17),
    )
    decoded = decode(request_for(clip, *modalities))
    for modality in modalities:
        row = row_of(decoded, modality.name)
        assert (row.shape, row.dtype) == (modality.shape, modality.dtype)


def test_an_unusable_track_has_a_reason_and_no_row(tmp_path: Path) -> None:
    decoded = decode_source(write_clip(tmp_path / "clip.mp4", picture=None, sound="silence"))
    for track in decoded.tracks.values():
        assert track.row is None
        assert track.status.reason in {Reason.SILENT, Reason.NO_TRACK}
