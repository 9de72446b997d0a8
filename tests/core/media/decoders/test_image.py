"""Image files: formats, rotation, transparency, depth, size; expected values by arithmetic and by OpenCV or Pillow."""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from dimml.errors import DimmlError, TooLargeError
from dimml.media import MediaLimits
from dimml.media.decoders.images.image import decode_image, reduction
from dimml.media.decoders.video import enough_pixels
from dimml.media.workers.pool import DecodePool
from dimml.modality import Flow, Frames, Modality, Region
from support.decoding import AUDIO, decode_source, request_for, row_of, statuses
from support.heif_muxer import Colour, picture_grid, tiles_for

RED, GREEN, BLUE, YELLOW, WHITE = (200, 20, 20), (20, 180, 40), (30, 40, 210), (220, 220, 60), (255, 255, 255)
QUARTERS = ((RED, GREEN), (BLUE, YELLOW))
WIDTH, HEIGHT = 40, 24
#: What is done to a picture so that it is upright, by EXIF's number (CIPA DC-008, 4.6.4).
UPRIGHT = {
    1: lambda rgb: rgb,
    2: np.fliplr,
    3: lambda rgb: np.rot90(rgb, 2),
    4: np.flipud,
    5: lambda rgb: np.swapaxes(rgb, 0, 1),
    6: lambda rgb: np.rot90(rgb, -1),
    7: lambda rgb: np.swapaxes(np.rot90(rgb, 2), 0, 1),
    8: np.rot90,
}


def quarters(width: int = WIDTH, height: int = HEIGHT) -> npt.NDArray[np.uint8]:
    """Four colours, one in each quarter."""
    return np.kron(np.array(QUARTERS, np.uint8), np.ones((height // 2, width // 2, 1), np.uint8))


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def shown(data: bytes, width: int = WIDTH, height: int = HEIGHT, **options: Any) -> npt.NDArray[np.int32]:
    """The one picture of a file, in its own size."""
    modality = Frames(name="visual", frames=1, height=height, width=width, **options)
    return row_of(decode_source(data, modality), "visual")[0].astype(np.int32)


def corners(picture: npt.NDArray[Any]) -> list[list[Any]]:
    return [picture[y, x].tolist() for y in (2, -3) for x in (2, -3)]


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


LOSSLESS: dict[str, dict[str, Any]] = {
    "PNG": {}, "WEBP": {"lossless": True}, "GIF": {}, "TIFF": {"compression": "tiff_lzw"}, "BMP": {},
}  # fmt: skip


@pytest.mark.parametrize("form", LOSSLESS)
def test_lossless_formats_give_the_pixels_that_were_written(form: str) -> None:
    np.testing.assert_array_equal(shown(saved(Image.fromarray(quarters()), form, **LOSSLESS[form])), quarters())
    decoded = decode_source(saved(Image.fromarray(quarters()), form), AUDIO)
    assert statuses(decoded) == {"audio": "absent:no_track"}


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_picture_is_taken(form: str) -> None:
    frames = [Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in (RED, GREEN)]
    options = {"save_all": True, "append_images": frames[1:], "duration": 100}
    np.testing.assert_array_equal(shown(saved(frames[0], form, **LOSSLESS[form], **options)), np.array(frames[0]))


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "RGB"])
@pytest.mark.parametrize("compression", [None, "tiff_adobe_deflate", "jpeg"])
def test_tiff_of_every_common_kind(mode: str, compression: str | None) -> None:
    if compression == "jpeg" and mode in {"1", "P", "CMYK"}:
        return
    image = Image.fromarray(quarters()).convert(mode)
    options = {"quality": 95} if compression == "jpeg" else {}
    found = shown(saved(image, "TIFF", compression=compression, **options))
    assert np.abs(found - np.array(image.convert("RGB"), np.int32)).max() <= (0 if compression != "jpeg" else 6)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_orientation_is_applied_once(form: str, orientation: int) -> None:
    """Pillow turns EXIF orientation into the file's own rotation where it writes AVIF."""
    expected = UPRIGHT[orientation](quarters(64, 48))
    image = Image.fromarray(quarters(64, 48))
    data = saved(image, form, exif=exif(orientation), quality=95, **({"lossless": True} if form == "WEBP" else {}))
    height, width = expected.shape[:2]
    found = shown(data, width, height)
    np.testing.assert_allclose(corners(found), corners(expected), atol=4)
    # As Pillow alone turns what it reads.
    upright = np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"), np.int32)
    assert np.abs(found - upright).mean() < 2


GRIDS = [
    ("none", 0, None),
    ("irot 1", 1, None),
    ("irot 3", 3, None),
    ("imir", 0, "left-right"),
    ("both", 1, "top-bottom"),
]


@pytest.mark.parametrize("form", ["heic", "avif"])
@pytest.mark.parametrize(("quarter_turns", "mirror"), [case[1:] for case in GRIDS], ids=[case[0] for case in GRIDS])
def test_tiles_are_put_together_cropped_and_turned(form: str, quarter_turns: int, mirror: Any) -> None:
    data = picture_grid(form, QUARTERS, 64, (120, 100), quarter_turns=quarter_turns, mirror=mirror)
    expected = np.rot90(
        np.kron(np.array(QUARTERS, np.uint8), np.ones((64, 64, 1), np.uint8))[:100, :120], quarter_turns
    )
    if mirror is not None:
        expected = np.fliplr(expected) if mirror == "left-right" else np.flipud(expected)
    found = shown(data, expected.shape[1], expected.shape[0])
    assert np.abs(found - expected).mean() < 2
    # The edge between two tiles stands where it is written, to the pixel of 4:2:0 chroma.
    np.testing.assert_allclose(corners(found), corners(expected), atol=4)


@pytest.mark.parametrize("form", ["heic", "avif"])
def test_the_size_of_a_grid_is_checked_and_not_its_tiles(form: str) -> None:
    data = picture_grid(form, QUARTERS, 64, (120, 100))
    visual = Frames(name="visual", frames=1, height=64, width=64)
    with pytest.raises(TooLargeError, match="a picture of 120x100 has more pixels than max_image_pixels = 11999"):
        decode_source(data, visual, limits=MediaLimits(max_image_pixels=11_999))
    assert statuses(decode_source(data, visual, limits=MediaLimits(max_image_pixels=12_000))) == {"visual": "ok"}


def test_brands_choose_the_decoder() -> None:
    """A file of the general brand is what its compatible brands say; sequences stay recordings."""
    for form in ("heic", "avif"):
        general = bytearray(picture_grid(form, QUARTERS, 64, (128, 128)))
        general[8:12] = b"mif1"
        np.testing.assert_allclose(corners(shown(bytes(general), 128, 128)), [RED, GREEN, BLUE, YELLOW], atol=4)


def half_transparent() -> npt.NDArray[np.uint8]:
    """Opaque on top; below half transparent on the left, and on the right red that is not seen at all."""
    rgba = np.dstack([quarters(), np.full((HEIGHT, WIDTH), 255, np.uint8)])
    rgba[HEIGHT // 2 :, : WIDTH // 2, 3] = 128
    rgba[HEIGHT // 2 :, WIDTH // 2 :] = (*RED, 0)
    return rgba


def composited(rgba: npt.NDArray[np.uint8], ground: Colour) -> npt.NDArray[np.int32]:
    """Source over ground (Porter and Duff, 1984), by arithmetic."""
    alpha = rgba[..., 3:] / 255
    return np.asarray(np.rint(rgba[..., :3] * alpha + np.array(ground) * (1 - alpha)), np.int32)


@pytest.mark.parametrize("ground", [None, (0, 128, 255)])
@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF", "AVIF"])
def test_transparent_pictures_are_shown_on_the_ground(form: str, ground: Colour | None) -> None:
    options: dict[str, Any] = {
        "WEBP": {"lossless": True, "exact": True},
        "AVIF": {"quality": 100, "subsampling": "4:4:4"},
    }
    data = saved(Image.fromarray(half_transparent()), form, **options.get(form, {}))
    found = shown(data) if ground is None else shown(data, ground=ground)
    expected = composited(half_transparent(), ground or WHITE)
    assert np.abs(found - expected).max() <= (3 if form == "AVIF" else 1)


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_without_a_ground_the_colour_beneath_alpha_shows_as_before(form: str) -> None:
    data = saved(
        Image.fromarray(half_transparent()), form, **({"lossless": True, "exact": True} if form == "WEBP" else {})
    )
    before = cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    np.testing.assert_array_equal(shown(data, ground=None), before)
    np.testing.assert_array_equal(before, half_transparent()[..., :3])


def test_modalities_of_one_request_have_grounds_of_their_own() -> None:
    visual: list[Modality] = [
        Frames(name="light", frames=1, height=HEIGHT, width=WIDTH),
        Frames(name="dark", frames=1, height=HEIGHT, width=WIDTH, ground=(0, 0, 0)),
        Flow(name="flow", frames=1, height=HEIGHT, width=WIDTH),
    ]
    decoded = decode_source(saved(Image.fromarray(half_transparent()), "PNG"), *visual)
    assert row_of(decoded, "light")[0, -1, -1].tolist() == [255, 255, 255]
    assert row_of(decoded, "dark")[0, -1, -1].tolist() == [0, 0, 0]
    assert (row_of(decoded, "flow") == 128).all()


@pytest.mark.parametrize("form", ["PNG", "GIF"])
def test_a_transparent_colour_of_a_palette(form: str) -> None:
    indices = np.kron(np.array([[0, 1], [2, 3]], np.uint8), np.ones((HEIGHT // 2, WIDTH // 2), np.uint8))
    image = Image.fromarray(indices).convert("P")
    image.putpalette([value for row in QUARTERS for colour in row for value in colour])
    found = shown(saved(image, form, transparency=2))
    assert corners(found) == [list(RED), list(GREEN), list(WHITE), list(YELLOW)]


def test_a_transparent_colour_of_grey_and_of_rgb() -> None:
    """A PNG's tRNS may name one grey or one colour, in 8 and in 16 bits."""
    rgb = Image.fromarray(quarters())
    assert corners(shown(saved(rgb, "PNG", transparency=BLUE))) == [list(c) for c in (RED, GREEN, WHITE, YELLOW)]
    grey = Image.fromarray(np.kron(np.array([[10, 90], [160, 230]], np.uint8), np.ones((12, 20), np.uint8)))
    assert corners(shown(saved(grey, "PNG", transparency=160))) == [[v] * 3 for v in (10, 90, 255, 230)]
    deep = Image.fromarray(np.array(grey).astype(np.uint16) * 257)
    assert corners(shown(saved(deep, "PNG", transparency=160 * 257))) == [[v] * 3 for v in (10, 90, 255, 230)]


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_scaled(suffix: str, channels: int) -> None:
    values = np.linspace(0, 65535, HEIGHT * WIDTH * channels).astype(np.uint16).reshape(HEIGHT, WIDTH, channels)
    found = shown(cv2.imencode(suffix, values[..., ::-1])[1].tobytes())
    assert np.abs(found - values / 257.0).max() <= 1


def test_sixteen_bits_with_alpha() -> None:
    rgba = half_transparent()
    data = cv2.imencode(".png", rgba[..., [2, 1, 0, 3]].astype(np.uint16) * 257)[1].tobytes()
    assert np.abs(shown(data) - composited(rgba, WHITE)).max() <= 1


@pytest.mark.parametrize("progressive", [False, True])
def test_cmyk_jpeg(progressive: bool) -> None:
    """Written as printers want it, inverted, as Adobe's programs do."""
    data = saved(Image.fromarray(quarters()).convert("CMYK"), "JPEG", quality=95, progressive=progressive)
    np.testing.assert_allclose(corners(shown(data)), [RED, GREEN, BLUE, YELLOW], atol=3)


def gradients(width: int, height: int) -> npt.NDArray[np.uint8]:
    """Slow gradients with fine stripes on top."""
    x, y = np.arange(width, dtype=np.float32)[None], np.arange(height, dtype=np.float32)[:, None]
    stripes = 30 * np.sign(np.sin(x / 5)) + 0 * y
    return np.dstack([100 + 60 * x / width + stripes, 60 + 120 * y / height + 0 * x, 130 + stripes]).astype(np.uint8)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("region", [None, Region(left=0.3, top=0.1, right=0.8, bottom=0.5)])
def test_a_jpeg_that_is_reduced_while_decoded_gives_the_same_row(orientation: int, region: Region | None) -> None:
    data = saved(Image.fromarray(gradients(1200, 1000)), "JPEG", exif=exif(orientation), quality=90)
    modality = Frames(name="visual", frames=1, height=48, width=56, region=region)
    whole, reduced = (
        row_of(decode_source(data, modality, limits=MediaLimits(max_pixels=pixels)), "visual").astype(np.int32)
        for pixels in (1200 * 1000, 1200 * 1000 - 1)
    )
    half = decode_image(data, "jpeg", MediaLimits(max_pixels=10), enough=enough_pixels([modality]))
    assert half is not None
    assert half.size <= 3 * 600 * 500
    assert not np.array_equal(whole, reduced)
    assert np.abs(whole - reduced).max() <= 4
    assert np.abs(whole - reduced).mean() < 0.5


def test_reduction_leaves_four_times_what_a_region_needs() -> None:
    region = Region(left=0.5, top=0.0, right=0.75, bottom=1.0)
    modality = Frames(name="visual", frames=1, height=100, width=100, region=region)
    assert enough_pixels([modality]) == (1600, 400)
    assert [reduction((side, 90_000), (1600, 400)) for side in (3199, 3200, 6400, 12_799, 12_800)] == [1, 2, 4, 4, 8]


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "AVIF"])
def test_the_limit_of_image_files_is_their_own_and_named(form: str) -> None:
    data = saved(Image.new("RGB", (100, 80), RED), form)
    visual = Frames(name="visual", frames=1, height=16, width=16)
    limits = MediaLimits(max_pixels=100, max_image_pixels=8000)
    assert statuses(decode_source(data, visual, limits=limits)) == {"visual": "ok"}
    with pytest.raises(TooLargeError, match="100x80 has more pixels than max_image_pixels = 7999"):
        decode_source(data, visual, limits=MediaLimits(max_image_pixels=7999))


@pytest.mark.slow(reason="a picture of 48 megapixels, in a worker")
def test_photos_of_48_megapixels_fit_into_a_worker() -> None:
    size = (8000, 6000)
    files = {
        "jpeg": cv2.imencode(".jpg", np.full((size[1], size[0], 3), RED[::-1], np.uint8))[1].tobytes(),
        "heic": picture_grid("heic", tiles_for(size, 512, RED), 512, size),
        "avif": picture_grid("avif", tiles_for(size, 512, RED), 512, size),
    }
    visual = Frames(name="visual", frames=1, height=96, width=96)
    with DecodePool(1) as pool:
        pool.warm_up()
        for form, data in files.items():
            decoded = pool.decode_blocking(request_for(data, visual), timeout_s=30)
            assert np.abs(row_of(decoded, "visual")[0].astype(int) - RED).max() <= 3, form


@pytest.mark.parametrize("form", ["PNG", "WEBP", "GIF", "TIFF", "AVIF", "heic"])
def test_cut_off_pictures_are_undecodable_or_shown_but_raise_nothing(form: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    data = picture_grid(form, QUARTERS, 64, (128, 128)) if form == "heic" else saved(Image.fromarray(noise), form)
    visual = Frames(name="visual", frames=1, height=16, width=16)
    for share in np.linspace(0.02, 0.97, 20):
        found = statuses(decode_source(data[: int(share * len(data))], visual))["visual"]
        assert found in {"ok", "unusable:undecodable"}
        assert share > 0.5 or found != "ok"


@pytest.fixture(scope="module")
def small_pictures() -> list[bytes]:
    transparent = Image.fromarray(half_transparent())
    return [
        *(saved(transparent, form) for form in ("PNG", "GIF", "TIFF", "WEBP", "AVIF")),
        saved(transparent, "TIFF", compression="tiff_lzw"),
        *(picture_grid(form, QUARTERS, 64, (120, 100), quarter_turns=1) for form in ("heic", "avif")),
    ]


@settings(max_examples=250, deadline=None, derandomize=True)
@given(
    which=st.integers(0, 7),
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=8)), max_size=6),
    cut=st.none() | st.floats(0, 1),
)
def test_mutated_pictures_raise_nothing_but_our_errors(
    small_pictures: list[bytes], which: int, edits: list[tuple[float, bytes]], cut: float | None
) -> None:
    data = bytearray(small_pictures[which])
    for where, replacement in edits:
        position = int(where * len(data))
        data[position : position + len(replacement)] = replacement
    if cut is not None:
        del data[int(cut * len(data)) :]
    visual = Frames(name="visual", frames=1, height=16, width=16)
    try:
        track = decode_source(bytes(data), visual, limits=MediaLimits(max_image_pixels=2**18)).tracks["visual"]
    except DimmlError:
        return
    assert (track.row is not None) == track.status.ok


def test_pixels_without_a_scale_are_undecodable() -> None:
    data = saved(Image.fromarray(np.linspace(0, 1, 960, dtype=np.float32).reshape(HEIGHT, WIDTH)), "TIFF")
    visual = Frames(name="visual", frames=1, height=16, width=16)
    assert statuses(decode_source(data, visual)) == {"visual": "unusable:undecodable"}
