"""Colours: matrix, range, depth, high dynamic range, fields; expected values by the Recommendations' own formulas."""

from __future__ import annotations

import io
import math
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from dimml.bundle import Encoder
from dimml.digests import historic
from dimml.modality import Flow, Frames, as_decoder_1
from support.decoding import decode_source, row_of

WIDTH, HEIGHT = 32, 16
#: Numbers of ITU-T H.273.
BT709, PQ, HLG, BT2020, BT2020_NCL, BT601 = 1, 16, 18, 9, 9, 6
LIMITED, FULL = 1, 2
#: Levels by which FFmpeg's conversion to RGB of 8 bits was seen to be off; another matrix is off by 9 and more.
CONVERTED = 4
#: A level of PQ and HLG is up to three of SDR.
MAPPED = 3
#: Kr and Kb of the luma equations (BT.601, BT.709, BT.2020).
LUMA = {BT601: (0.299, 0.114), BT709: (0.2126, 0.0722), BT2020_NCL: (0.2627, 0.0593)}
#: Primaries of BT.709 from those of BT.2020 (BT.2407, section 2.2).
GAMUT = ((1.6605, -0.5876, -0.0728), (-0.1246, 1.1329, -0.0083), (-0.0182, -0.1006, 1.1187))


def yuv(rgb: tuple[float, ...], matrix: int, bits: int, *, full: bool = False) -> list[int]:
    """Y', Cb, Cr code values of R'G'B' in [0, 1]."""
    kr, kb = LUMA[matrix]
    red, green, blue = rgb
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    cb, cr = (blue - luma) / (2 * (1 - kb)), (red - luma) / (2 * (1 - kr))
    scale = 1 << (bits - 8)
    if full:
        most = (1 << bits) - 1
        return [round(most * luma), *(round(most * part + 128 * scale) for part in (cb, cr))]
    return [round(scale * (16 + 219 * luma)), *(round(scale * (128 + 224 * part)) for part in (cb, cr))]


def write(
    path: Path, planes: list[int], pixels: str, codec: str = "ffv1", *, tags: dict[str, int], pictures: int = 3
) -> Path:
    """A video of one colour, with the tags of its frames: ``color_trc`` and their like."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixels
        stream.codec_context.thread_count = 1
        if codec == "libx264":
            stream.codec_context.options = {"crf": "0" if pixels == "yuv420p" else "4"}
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
        for number in range(pictures):
            frame = av.VideoFrame(WIDTH, HEIGHT, pixels)
            for plane, value in zip(frame.planes, planes, strict=True):
                wide = frame.format.components[0].bits > 8
                samples = np.full(plane.buffer_size // (2 if wide else 1), value, "<u2" if wide else np.uint8)
                plane.update(samples.tobytes())
            for name, value in tags.items():
                setattr(frame, name, value)
            frame.pts, frame.time_base = number, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def shown(path: Path, **options: Any) -> npt.NDArray[np.int32]:
    """The one colour of a video."""
    modality = Frames(name="visual", frames=1, height=HEIGHT, width=WIDTH, **options)
    row = row_of(decode_source(path, modality), "visual")[0].astype(np.int32)
    assert np.ptp(row, axis=(0, 1)).max() <= 1
    return np.asarray(row[HEIGHT // 2, WIDTH // 2])


def pq_light(value: float) -> float:
    """BT.2100, table 4: cd/m²."""
    root = value ** (32 / 2523)
    return float(10_000 * (max(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (8192 / 1305))


def pq_value(light: float) -> float:
    power = (light / 10_000) ** (1305 / 8192)
    return float(((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** (2523 / 32))


def hlg_light(rgb: tuple[float, ...]) -> list[float]:
    """BT.2100, table 5: what a screen of 1000 cd/m² shows."""
    scene = [v * v / 3 if v <= 0.5 else (math.exp((v - 0.55991073) / 0.17883277) + 0.28466892) / 12 for v in rgb]
    luminance = 0.2627 * scene[0] + 0.6780 * scene[1] + 0.0593 * scene[2]
    return [1000 * luminance**0.2 * one for one in scene]


def eetf(light: float) -> float:
    """BT.2408, annex 5, from 1000 to 203 cd/m² with black at 0: cd/m²."""
    peak = pq_value(1000)
    value, most = pq_value(min(light, 1000)) / peak, pq_value(203) / peak
    knee = 1.5 * most - 0.5
    if value >= knee:
        t = (value - knee) / (1 - knee)
        value = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * most
    return pq_light(value * peak)


def standard(light: list[float], *, wide: bool = True) -> list[float]:
    """SDR code values of light of BT.2020."""
    mixed = [sum(w * one for w, one in zip(row, light, strict=True)) for row in GAMUT] if wide else light
    return [255 * (eetf(max(one, 0.0)) / 203) ** (1 / 2.4) for one in mixed]


COLOURS = [(0.38, 0.38, 0.38), (0.508, 0.508, 0.508), (0.58, 0.58, 0.58), (0.75, 0.75, 0.75), (0.5, 0.35, 0.3)]


@pytest.mark.parametrize(("codec", "suffix"), [("ffv1", "mkv"), ("libx264", "mp4")])
@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_high_dynamic_range_is_mapped_to_standard(tmp_path: Path, transfer: int, codec: str, suffix: str) -> None:
    tags = {"color_trc": transfer, "color_primaries": BT2020, "colorspace": BT2020_NCL, "color_range": LIMITED}
    for rgb in COLOURS:
        path = write(tmp_path / f"clip.{suffix}", yuv(rgb, BT2020_NCL, 10), "yuv420p10le", codec, tags=tags)
        light = [pq_light(one) for one in rgb] if transfer == PQ else hlg_light(rgb)
        np.testing.assert_allclose(shown(path), standard(light), atol=MAPPED, err_msg=f"{rgb}")


def test_reference_white_and_grey_are_where_bt_2408_puts_them(tmp_path: Path) -> None:
    """Table 1: a grey card is at 38 % in both, white at 58 % of PQ and 75 % of HLG; so both give the same rows."""
    tags = {"color_primaries": BT2020, "colorspace": BT2020_NCL, "color_range": LIMITED}
    for pq, hlg, level in ((0.38, 0.38, 108), (0.58, 0.75, 230)):
        for transfer, value in ((PQ, pq), (HLG, hlg)):
            planes = yuv((value,) * 3, BT2020_NCL, 10)
            path = write(tmp_path / "clip.mkv", planes, "yuv420p10le", tags={**tags, "color_trc": transfer})
            np.testing.assert_allclose(shown(path), level, atol=3)


def test_high_dynamic_range_in_bt_709_keeps_its_primaries(tmp_path: Path) -> None:
    rgb = (0.5, 0.35, 0.3)
    tags = {"color_trc": PQ, "color_primaries": BT709, "colorspace": BT709, "color_range": LIMITED}
    path = write(tmp_path / "clip.mkv", yuv(rgb, BT709, 10), "yuv420p10le", tags=tags)
    np.testing.assert_allclose(shown(path), standard([pq_light(one) for one in rgb], wide=False), atol=MAPPED)


def test_code_values_are_kept_where_the_modality_says_so(tmp_path: Path) -> None:
    rgb = (0.5, 0.35, 0.3)
    tags = {"color_trc": PQ, "color_primaries": BT2020, "colorspace": BT2020_NCL, "color_range": LIMITED}
    path = write(tmp_path / "clip.mkv", yuv(rgb, BT2020_NCL, 10), "yuv420p10le", tags=tags)
    np.testing.assert_allclose(shown(path, tone_map=False), [255 * one for one in rgb], atol=CONVERTED)


@pytest.mark.parametrize("kind", [Frames, Flow])
def test_modalities_of_decoder_1_keep_code_values(kind: type[Frames] | type[Flow]) -> None:
    new = kind(name="visual", frames=1, height=8, width=8)
    assert new.tone_map
    old = as_decoder_1(new.model_dump(mode="json", exclude={"tone_map"}))
    assert not Encoder(modality=old, features=1).modality.tone_map
    assert historic(new.model_copy(update={"tone_map": False}))["tone_map"] is True


def test_flow_sees_high_dynamic_range_as_frames_do(tmp_path: Path) -> None:
    """The same moving picture in PQ and in SDR has the same flow, within what 10 bits leave."""
    flows = {}
    for name, transfer in (("pq", PQ), ("sdr", BT709)):
        path = tmp_path / f"{name}.mkv"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("ffv1", rate=10)
            stream.width, stream.height, stream.pix_fmt = 64, 64, "gbrp16le"
            stream.codec_context.color_trc = transfer
            stream.codec_context.color_primaries = BT709
            for number in range(3):
                x, y = np.meshgrid(np.arange(64) - 2 * number, np.arange(64))
                # Up to 80 cd/m², which tone mapping keeps.
                light = 40 + 20 * np.sin(x / 4) + 20 * np.sin(y / 5)
                value = np.vectorize(pq_value)(light) if transfer == PQ else (light / 203) ** (1 / 2.4)
                frame = av.VideoFrame(64, 64, "gbrp16le")
                for plane in frame.planes:
                    plane.update(np.rint(value * 65535).astype("<u2").tobytes())
                frame.color_trc, frame.color_primaries = transfer, BT709
                frame.pts, frame.time_base = number, Fraction(1, 10)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        modality = Flow(name="flow", frames=1, height=64, width=64)
        flows[name] = row_of(decode_source(path, modality), "flow").astype(int)
    assert np.median(flows["pq"][0, 8:-8, 8:-8, 0]) == pytest.approx(128 + 2 * 127 / 20, abs=2)
    assert np.abs(flows["pq"] - flows["sdr"]).mean() < 1


@pytest.mark.parametrize("matrix", [BT601, BT709, BT2020_NCL])
@pytest.mark.parametrize(("pixels", "bits"), [("yuv420p", 8), ("yuv420p10le", 10), ("yuv420p12le", 12)])
@pytest.mark.parametrize("full", [False, True])
def test_the_matrix_and_range_are_the_streams(tmp_path: Path, matrix: int, pixels: str, bits: int, full: bool) -> None:
    rgb = (0.9, 0.1, 0.3)
    tags = {"colorspace": matrix, "color_range": FULL if full else LIMITED, "color_trc": BT709}
    path = write(tmp_path / "clip.mkv", yuv(rgb, matrix, bits, full=full), pixels, tags=tags)
    np.testing.assert_allclose(shown(path), [255 * one for one in rgb], atol=CONVERTED)


def test_a_stream_that_names_no_matrix_is_taken_for_bt_601(tmp_path: Path) -> None:
    rgb = (0.9, 0.1, 0.3)
    path = write(tmp_path / "clip.mkv", yuv(rgb, BT601, 8), "yuv420p", tags={})
    np.testing.assert_allclose(shown(path), [255 * one for one in rgb], atol=CONVERTED)


@pytest.mark.parametrize(
    ("pixels", "most"), [("gray", 255), ("gray10le", 1023), ("gray12le", 4095), ("gray16le", 65535)]
)
def test_depths_are_scaled_to_what_they_say_is_white(tmp_path: Path, pixels: str, most: int) -> None:
    path = write(tmp_path / "clip.mkv", [round(0.6 * most)], pixels, tags={"color_range": FULL})
    np.testing.assert_allclose(shown(path), 0.6 * 255, atol=1.5)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_twelve_bits_in_sixteen_are_as_dark_as_the_file_says(form: str) -> None:
    """Nothing in the file says that 4095 is white, so white is 65535: 4095 is 16 of 255, and 3000 are 12."""
    deep = np.full((HEIGHT, WIDTH), 3000, np.uint16)
    deep[:, WIDTH // 2 :] = 48000
    file = io.BytesIO()
    Image.fromarray(deep).save(file, form)
    row = row_of(decode_source(file.getvalue(), Frames(name="visual", frames=1, height=HEIGHT, width=WIDTH)), "visual")
    assert row[0, 0, 0].tolist() == [12] * 3
    assert row[0, 0, -1].tolist() == [187] * 3


def packed_tiff(values: npt.NDArray[np.uint16], channels: int) -> bytes:
    """A TIFF of 12 bits a sample, two in three bytes (TIFF 6.0, BitsPerSample); every channel has ``values``."""
    height, width = values.shape
    samples = np.repeat(values, channels, axis=1).reshape(height, -1, 2).astype(np.uint32)
    joined = samples[..., 0] << 12 | samples[..., 1]
    strip = np.stack([joined >> 16, joined >> 8 & 255, joined & 255], axis=-1).astype(np.uint8).tobytes()
    depths = struct.pack("<3H", 12, 12, 12)
    behind = 8 + len(strip)
    tags: dict[int, tuple[int, int, int]] = {
        256: (4, 1, width), 257: (4, 1, height), 258: (3, channels, 12 if channels == 1 else behind), 259: (3, 1, 1),
        262: (3, 1, 1 if channels == 1 else 2), 273: (4, 1, 8), 277: (3, 1, channels), 278: (4, 1, height),
        279: (4, 1, len(strip)),
    }  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, *entry) for tag, entry in tags.items())
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return struct.pack("<4sI", b"II*\0", behind + len(depths)) + strip + depths + directory


@pytest.mark.parametrize("channels", [1, 3])
def test_a_tiff_of_twelve_bits_has_its_white_at_4095(channels: int) -> None:
    values = np.full((HEIGHT, WIDTH), 3000, np.uint16)
    values[:, WIDTH // 2 :] = 4095
    modality = Frames(name="visual", frames=1, height=HEIGHT, width=WIDTH)
    row = row_of(decode_source(packed_tiff(values, channels), modality), "visual")
    np.testing.assert_allclose(row[0, 0, 0].astype(int), 255 * 3000 / 4095, atol=1)
    assert row[0, 0, -1].tolist() == [255] * 3


def test_interlaced_pictures_are_shown_with_both_fields_as_they_are(tmp_path: Path) -> None:
    """Lines of two moments side by side: neither dropped nor blended; a row of half the height has their mean."""
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg2video", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv422p"
        stream.codec_context.options = {"flags": "+ildct+ilme", "qmin": "1", "qmax": "1", "field_order": "tt"}
        for number in range(5):
            frame = av.VideoFrame(64, 64, "yuv422p")
            luma = np.full((64, 64), 60, np.uint8)
            luma[1::2] = 200
            for plane, values in zip(frame.planes, (luma, *(np.full((64, 32), 128, np.uint8),) * 2), strict=True):
                padded = np.zeros((64, plane.line_size), np.uint8)
                padded[:, : values.shape[1]] = values
                plane.update(padded.tobytes())
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    even, odd = (round(255 * (luma - 16) / 219) for luma in (60, 200))
    whole = row_of(decode_source(path, Frames(name="visual", frames=1, height=64, width=64)), "visual")[0].astype(int)
    np.testing.assert_allclose(whole[0::2], even, atol=6)
    np.testing.assert_allclose(whole[1::2], odd, atol=6)
    half = row_of(decode_source(path, Frames(name="visual", frames=1, height=32, width=32)), "visual")[0].astype(int)
    np.testing.assert_allclose(half, (even + odd) / 2, atol=6)
