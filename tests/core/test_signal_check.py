"""The signal check: silence, black and frozen pictures, and what must not be taken for them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dimml.media import decode
from dimml.modality import Flow, Frames, Region, Waveform
from dimml.signal_check import QualityThresholds, largest_change, no_signal
from dimml.status import OK, Reason
from support.data import shared_data
from support.decoding import request_for

WAVE = Waveform(name="audio", sample_rate_hz=8000, samples=800)
CLIP = Frames(name="visual", frames=3, height=8, width=8)
STILL = Frames(name="front", frames=1, height=8, width=8)
FLOW = Flow(name="flow", frames=3, height=8, width=8)
DEFAULT = QualityThresholds()


def noise(seed: int, low: int = 0, high: int = 256) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, CLIP.shape, dtype=np.uint8)


@pytest.mark.parametrize(("peak_dbfs", "reason"), [(-81.0, Reason.SILENT), (-79.0, None), (0.0, None)])
def test_silence_is_a_peak_below_the_threshold(peak_dbfs: float, reason: Reason | None) -> None:
    row = np.zeros(800, np.float32)
    row[100] = -(10 ** (peak_dbfs / 20))
    assert no_signal(WAVE, row, DEFAULT) is reason


def test_exact_zeros_are_silence() -> None:
    assert no_signal(WAVE, np.zeros(800, np.float32), DEFAULT) is Reason.SILENT


def test_what_is_not_finite_is_left_to_the_encoder() -> None:
    assert no_signal(WAVE, np.full(800, np.nan, np.float32), DEFAULT) is None


def test_black_is_dark_and_even() -> None:
    assert no_signal(CLIP, np.full(CLIP.shape, 7, np.uint8), DEFAULT) is Reason.BLACK
    assert no_signal(STILL, np.zeros(STILL.shape, np.uint8), DEFAULT) is Reason.BLACK


def test_dark_but_textured_is_a_picture() -> None:
    assert no_signal(CLIP, noise(0, 0, 12), DEFAULT) is None


def test_even_but_bright_still_pictures_are_not_black() -> None:
    assert no_signal(STILL, np.full(STILL.shape, 200, np.uint8), DEFAULT) is None


def test_frozen_means_equal_pictures_at_different_times() -> None:
    row = np.repeat(noise(1)[:1], 3, axis=0)
    assert no_signal(CLIP, row, DEFAULT) is Reason.FROZEN
    assert no_signal(CLIP, row, DEFAULT, (0.0, 0.1, 0.2)) is Reason.FROZEN
    assert no_signal(CLIP, row, DEFAULT, (0.0, 0.1, 0.1)) is Reason.FROZEN


def test_one_picture_shown_again_is_not_frozen() -> None:
    row = np.repeat(noise(1)[:1], 3, axis=0)
    assert no_signal(CLIP, row, DEFAULT, (0.1, 0.1, 0.1)) is None
    assert no_signal(STILL, row[:1], DEFAULT) is None


def test_one_changed_pixel_is_movement_to_bits_alone() -> None:
    row = np.repeat(noise(1)[:1], 3, axis=0)
    row[2, 0, 0, 0] ^= 1
    assert no_signal(CLIP, row, DEFAULT) is Reason.FROZEN
    assert no_signal(CLIP, row, QualityThresholds(frozen_change=0.0)) is None


def test_the_change_is_a_mean_over_the_cell_where_it_is_largest() -> None:
    """Of 20 x 36 pixels, rows 0 and 1 and columns 0 to 3 make the first cell: 8 pixels, 24 values."""
    clip = Frames(name="visual", frames=3, height=20, width=36)
    for raised, reason in ((14, Reason.FROZEN), (15, None)):
        row = np.full(clip.shape, 100, np.uint8)
        cell = row[1, :2, :4].reshape(-1)
        cell[:raised] += 1
        row[1, :2, :4] = cell.reshape(2, 4, 3)
        assert largest_change(row[1], row[0]) == pytest.approx(raised / 24)
        assert no_signal(clip, row, DEFAULT) is reason


def test_pictures_that_may_rest_are_never_frozen() -> None:
    row = np.repeat(noise(1)[:1], 3, axis=0)
    slides = CLIP.model_copy(update={"may_rest": True})
    for thresholds in (DEFAULT, QualityThresholds(frozen_change=0.0)):
        assert no_signal(slides, row, thresholds, (0.0, 0.1, 0.2)) is None
    assert no_signal(slides, np.zeros_like(row), DEFAULT) is Reason.BLACK


def test_one_or_two_pictures_are_no_camera_that_hangs() -> None:
    row = np.repeat(noise(1)[:1], 3, axis=0)
    for pictures, reason in ((1, None), (2, None), (3, Reason.FROZEN)):
        assert no_signal(CLIP, row, DEFAULT, (0.0, 0.1, 0.1), pictures) is reason
    assert no_signal(CLIP, row, QualityThresholds(frozen_change=0.0), (0.0, 0.1, 0.1), 2) is Reason.FROZEN


def test_a_camera_that_froze_before_a_lossy_encoder() -> None:
    clip = Frames(name="visual", frames=8, height=64, width=64)
    folder = shared_data("mediarecorder")
    frozen = request_for(folder / "frozen_vp8.webm", clip, clip_s=1.2, start_s=3.5, end_s=4.7)
    assert str(decode(frozen).tracks["visual"].status) == "unusable:frozen"
    assert decode(replace(frozen, quality=QualityThresholds(frozen_change=0.0))).tracks["visual"].status == OK
    for name in ("frozen_vp8.webm", "default.webm", "av1.webm", "h264.mkv", "mp4.mp4"):
        request = request_for(folder / name, clip, clip_s=0.8, start_s=0.0, end_s=0.8)
        assert decode(request).tracks["visual"].status == OK, name
    # A still canvas: the browser wrote two packets, 7 ms apart.
    assert decode(request_for(folder / "canvas_still.webm", clip, clip_s=0.8)).tracks["visual"].status == OK


def test_flow_at_rest_is_a_signal() -> None:
    assert no_signal(FLOW, np.full(FLOW.shape, 128, np.uint8), DEFAULT) is None


def test_thresholds_are_the_callers() -> None:
    strict = QualityThresholds(silence_dbfs=-20.0, black_mean=100.0, black_spread=50.0)
    assert no_signal(WAVE, np.full(800, 0.05, np.float32), strict) is Reason.SILENT
    assert no_signal(CLIP, noise(2, 30, 60), strict) is Reason.BLACK


def test_no_false_alarm_on_real_clips() -> None:
    sound = Waveform(name="audio", sample_rate_hz=16_000, samples=8000)
    mouth = Frames(
        name="visual", frames=8, height=48, width=64, region=Region(left=0.29, top=0.59, right=0.6, bottom=0.87)
    )
    for path in sorted((shared_data("grid_s1") / "clips").glob("*.mp4"))[:12]:
        tracks = decode(request_for(path, sound, mouth, clip_s=0.5)).tracks
        assert {track.status for track in tracks.values()} == {OK}, path.name
