"""Pictures: the right ones by presentation time, upright, cut, resized; flow; image files."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from dimml.media.decoders.flow import flow_between, quantised
from dimml.media.decoders.video import prepared, upright
from dimml.modality import Flow, Frames, Region
from support.data import shared_data
from support.decoding import VISUAL, decode_source, row_of, statuses
from support.media_maker import numbered_picture, read_number, set_display_matrix, write_clip


def numbers(source: Path | bytes, frames: int, **options: float) -> list[int]:
    modality = Frames(name="visual", frames=frames, height=32, width=48)
    return [read_number(frame) for frame in row_of(decode_source(source, modality, **options), "visual")]


def test_pictures_are_spread_evenly_and_shown_until_the_next(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", 2.0, fps=25)
    # Of 2 s, the middle second; 5 frames at 0.6, 0.8, 1.0, 1.2 and 1.4 s.
    decoded = decode_source(path, Frames(name="visual", frames=5, height=32, width=48))
    assert [read_number(frame) for frame in row_of(decoded, "visual")] == [15, 20, 25, 30, 35]
    assert decoded.tracks["visual"].times_s == pytest.approx([0.6, 0.8, 1.0, 1.2, 1.4])
    assert (decoded.start_s, decoded.end_s) == pytest.approx((0.5, 1.5))


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov", "avi", "flv", "ts"])
def test_every_range_shows_what_a_player_would(tmp_path: Path, suffix: str) -> None:
    """Seeking changes nothing: whatever the container, the number on screen is floor(25 t)."""
    codec = "mpeg4" if suffix == "avi" else "libx264"
    path = write_clip(tmp_path / f"clip.{suffix}", 4.0, sound=None, video_codec=codec, keyframe_every=10)
    for start_s, end_s in ((0.0, 0.4), (0.37, 0.9), (1.0, 1.2), (2.33, 3.1), (3.5, 4.0)):
        wanted_s = [start_s + (i + 0.5) / 4 * (end_s - start_s) for i in range(4)]
        shown = [int(25 * t + 1e-6) for t in wanted_s]
        assert numbers(path, 4, start_s=start_s, end_s=end_s) == shown, (start_s, end_s)


def test_more_frames_than_pictures_repeats_them(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", 0.4, fps=10, sound=None)
    assert numbers(path, 8) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_variable_frame_rate_goes_by_time(tmp_path: Path) -> None:
    times_s = [0.0, 0.1, 0.5, 0.52, 0.54, 0.9]
    path = write_clip(tmp_path / "clip.mp4", 1.0, picture_times_s=times_s)
    # Frames at 0.05, 0.15, …, 0.95 s.
    assert numbers(path, 10, end_s=1.0) == [0, 1, 1, 1, 1, 4, 4, 4, 4, 5]


def test_before_the_first_picture_the_first_is_shown(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mkv", 1.0, picture_delay_s=0.3, audio_codec="pcm_s16le")
    decoded = decode_source(path, Frames(name="visual", frames=10, height=32, width=48), end_s=1.0)
    shown = [read_number(frame) for frame in row_of(decoded, "visual")]
    assert shown[:4] == [0, 0, 0, 1]
    assert decoded.tracks["visual"].times_s[0] == pytest.approx(0.3, abs=0.002)


def test_after_the_last_picture_the_last_is_shown(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mkv", 0.5, fps=10, sound_seconds=1.0, audio_codec="pcm_s16le")
    assert numbers(path, 4, end_s=1.0) == [1, 3, 4, 4]


@pytest.mark.parametrize("matrix", [(a, 0, 0, d) for a in (1, -1) for d in (1, -1)])
@pytest.mark.parametrize("quarter", [False, True])
def test_rotation_and_reflection_are_applied(tmp_path: Path, matrix: tuple[int, ...], quarter: bool) -> None:
    first, _, _, last = matrix
    a, b, c, d = (0, first, last, 0) if quarter else (first, 0, 0, last)
    stored = np.zeros((64, 96, 3), np.uint8)
    stored[:32, :48], stored[:32, 48:], stored[32:, :48] = (200, 30, 30), (30, 200, 30), (30, 30, 200)
    path = write_clip(tmp_path / "clip.mp4", 0.2, picture=lambda index: stored, sound=None)
    data = set_display_matrix(path.read_bytes(), (a, b, c, d))
    height, width = (96, 64) if quarter else (64, 96)
    modality = Frames(name="visual", frames=1, height=height, width=width)
    shown = row_of(decode_source(data, modality), "visual")[0]
    # Where each quadrant's middle goes, by the definition: (x, y) to (a·x + c·y, b·x + d·y) about the middle.
    for x, y in ((-24, -16), (24, -16), (-24, 16), (24, 16)):
        to_x, to_y = a * x + c * y, b * x + d * y
        np.testing.assert_allclose(shown[height // 2 + to_y, width // 2 + to_x], stored[32 + y, 48 + x], atol=25)


def test_the_real_rotated_recording_is_upright() -> None:
    """Its matrix mirrors along the diagonal; the unrotated twin has the same pictures."""
    folder = shared_data("media")
    rotated = Frames(name="visual", frames=2, height=108, width=72)
    plain = Frames(name="visual", frames=2, height=72, width=108)
    one = row_of(decode_source(folder / "sample_rotate_and_reflect.mp4", rotated), "visual")
    two = row_of(decode_source(folder / "sample_mdat_too_long.mp4", plain), "visual")
    assert np.abs(one.astype(int) - two.transpose(0, 2, 1, 3)).mean() < 2.0


def test_upright_leaves_a_picture_without_matrix_alone() -> None:
    picture = numbered_picture(3)
    assert upright(picture, None) is picture


def test_the_region_is_cut_from_the_upright_picture_before_resizing(tmp_path: Path) -> None:
    picture = np.full((64, 96, 3), 60, np.uint8)
    picture[16:48, 24:72] = (220, 40, 90)
    path = write_clip(tmp_path / "clip.mkv", 0.2, picture=lambda index: picture, sound=None, video_codec="ffv1")
    modality = Frames(
        name="visual",
        frames=1,
        height=16,
        width=16,
        region=Region(left=0.25, top=0.25, right=0.75, bottom=0.75),
    )
    shown = row_of(decode_source(path, modality), "visual")
    assert (np.abs(shown.astype(int) - (220, 40, 90)) <= 1).all()
    # Turned by a quarter, the same fractions name another rectangle of the stored picture.
    turned = write_clip(tmp_path / "clip.mp4", 0.2, picture=lambda index: picture, sound=None)
    data = set_display_matrix(turned.read_bytes(), (0, 1, -1, 0))
    corner = modality.model_copy(update={"region": Region(left=0.0, top=0.0, right=0.2, bottom=1.0)})
    np.testing.assert_allclose(row_of(decode_source(data, corner), "visual"), 60, atol=8)


def test_resizing_averages_when_shrinking_and_interpolates_when_growing() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    small = prepared(picture, Frames(name="visual", frames=1, height=8, width=12))
    means = picture.reshape(8, 8, 12, 8, 3).mean(axis=(1, 3))
    assert np.abs(small - means).max() <= 0.51
    large = prepared(picture, Frames(name="visual", frames=1, height=128, width=192))
    np.testing.assert_array_equal(large, cv2.resize(picture, (192, 128), interpolation=cv2.INTER_LINEAR))


def test_a_region_smaller_than_a_pixel_is_a_pixel() -> None:
    region = Region(left=0.999, top=0.999, right=1.0, bottom=1.0)
    shown = prepared(numbered_picture(255), Frames(name="visual", frames=1, height=8, width=8, region=region))
    assert (shown == 235).all()


def test_colours_are_those_of_a_direct_conversion(tmp_path: Path) -> None:
    """RGB order, and the same as PyAV's own conversion of the same picture."""
    path = write_clip(tmp_path / "clip.mp4", 0.2, sound=None)
    with av.open(str(path)) as container:
        expected = next(container.decode(video=0)).to_ndarray(format="rgb24")
    shown = row_of(decode_source(path, Frames(name="visual", frames=1, height=64, width=96), end_s=0.03), "visual")
    np.testing.assert_array_equal(shown[0], expected)


def test_black_and_frozen_pictures_are_unusable_and_sound_is_not(tmp_path: Path) -> None:
    for picture in ("black", "frozen"):
        # All keyframes and no loss: what is frozen comes out bit for bit the same.
        path = write_clip(tmp_path / f"{picture}.mkv", picture=picture, video_codec="ffv1")
        assert statuses(decode_source(path)) == {"audio": "ok", "visual": f"unusable:{picture}"}


def moving_texture(index: int) -> np.ndarray:
    """A smooth random texture, 2 px further right and 1 px further down in each picture."""
    texture = np.random.default_rng(0).integers(0, 256, (160, 160), dtype=np.uint8)
    texture = cv2.GaussianBlur(texture, (0, 0), 3)
    texture = cv2.normalize(texture, None, 0, 255, cv2.NORM_MINMAX)
    top, left = 40 - index, 60 - 2 * index
    return np.repeat(texture[top : top + 64, left : left + 96, None], 3, axis=2)


def test_flow_is_the_displacement_to_the_next_picture(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mkv", 0.8, picture=moving_texture, sound=None, video_codec="ffv1")
    modality = Flow(name="flow", frames=4, height=64, width=96, bound_px=10.0)
    flow = row_of(decode_source(path, modality), "flow")
    assert flow.shape == (4, 64, 96, 2)
    assert flow.dtype == np.uint8
    middle = np.median(flow[:, 16:48, 24:72], axis=(1, 2))
    np.testing.assert_allclose(middle, np.tile([round(2 * 12.7) + 128, round(1 * 12.7) + 128], (4, 1)), atol=2)


def test_flow_in_pixels_of_the_resized_picture_and_bounded(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mkv", 0.8, picture=moving_texture, sound=None, video_codec="ffv1")
    half = Flow(name="flow", frames=2, height=32, width=48, bound_px=10.0)
    flow = row_of(decode_source(path, half), "flow")
    np.testing.assert_allclose(np.median(flow[:, 8:24, 12:36], axis=(1, 2))[:, 0], 128 + 12.7, atol=2)
    tight = Flow(name="flow", frames=2, height=64, width=96, bound_px=1.0)
    assert np.median(row_of(decode_source(path, tight), "flow")[:, 16:48, 24:72, 0]) == 255


def test_flow_bytes_are_rounded_and_bounded() -> None:
    displacement = np.array([0.0, 20.0, -20.0, 99.0, -99.0, 0.08, -0.08, 10.0, -10.0], np.float32)
    # 127 / 20 = 6.35 steps a pixel: 0.08 px is half a step and a little, 10 px are 63.5, which rounds to even.
    np.testing.assert_array_equal(quantised(displacement, 20.0), [128, 255, 1, 255, 1, 129, 127, 192, 64])


def test_flow_of_nothing_following_is_at_rest() -> None:
    picture = numbered_picture(5)
    assert (flow_between(picture, picture, 20.0) == 128).all()


def test_flow_of_the_smallest_picture() -> None:
    one, two = (np.random.default_rng(i).integers(0, 256, (8, 8, 3), dtype=np.uint8) for i in range(2))
    assert flow_between(one, two, 20.0).shape == (8, 8, 2)


def test_frames_and_flow_from_one_open(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", 1.0)
    flow = Flow(name="flow", frames=3, height=32, width=48)
    assert statuses(decode_source(path, VISUAL, flow)) == {"visual": "ok", "flow": "ok"}


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp"])
def test_images_are_one_picture_clips(suffix: str) -> None:
    rgb = numbered_picture(0b1011)
    written, data = cv2.imencode(f".{suffix}", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    assert written
    decoded = decode_source(data.tobytes())
    assert statuses(decoded) == {"audio": "absent:no_track", "visual": "ok"}
    shown = row_of(decoded, "visual")
    assert [read_number(frame) for frame in shown] == [0b1011] * 5
    assert decoded.tracks["visual"].times_s == (0.0,) * 5
    assert decoded.start_s is None
    full = row_of(decode_source(data.tobytes(), Frames(name="visual", frames=1, height=64, width=96)), "visual")
    assert np.abs(full[0].astype(int) - rgb).mean() < 6


def test_grey_sixteen_bit_and_transparent_images() -> None:
    grey = np.tile(np.linspace(0, 65535, 96, dtype=np.uint16), (64, 1))
    transparent = np.dstack([numbered_picture(9), np.full((64, 96), 128, np.uint8)])
    for pixels in (grey, transparent):
        data = cv2.imencode(".png", pixels)[1].tobytes()
        assert statuses(decode_source(data, VISUAL)) == {"visual": "ok"}


def test_exif_orientation_is_applied() -> None:
    rgb = np.zeros((64, 96, 3), np.uint8)
    rgb[:, :48] = 230
    jpeg = cv2.imencode(".jpg", rgb)[1].tobytes()
    # APP1 with one tag, 0x0112 = 6: turn a quarter clockwise to see it upright.
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    turned = jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:]
    shown = row_of(decode_source(turned, Frames(name="visual", frames=1, height=96, width=64)), "visual")[0]
    assert shown[:40].min() > 200
    assert shown[56:].max() < 30


def test_real_views_are_read() -> None:
    view = next((shared_data("modelnet10_views")).glob("*/test/*.png"))
    modality = Frames(name="front", frames=1, height=96, width=96)
    expected = cv2.cvtColor(cv2.imread(str(view)), cv2.COLOR_BGR2RGB)
    np.testing.assert_array_equal(row_of(decode_source(view, modality), "front")[0], expected)
