"""Series from .npy, CSV and sound files: the samples that a row has, what is missing, and what is refused."""

from __future__ import annotations

import io
import itertools
import resource
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from dimml.errors import TooLargeError
from dimml.media import DecodedTrack, DecodeRequest, decode
from dimml.media.decoders.time_range import WindowPlan
from dimml.media.decoders.windows import decode_windows
from dimml.modality import Flow, Frames, Series, Waveform
from support.data import REPOSITORY_ROOT

IMU = Series(name="imu", channels=3, sample_rate_hz=50, samples=100)
RNG = np.random.default_rng(7)
#: Four seconds; a row of two takes the middle.
VALUES = RNG.standard_normal((200, 3)).astype(np.float32)
MIDDLE = VALUES[50:150]


def npy(array: npt.NDArray[Any], *, allow_pickle: bool = False) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=allow_pickle)
    return buffer.getvalue()


def wav(array: npt.NDArray[Any], rate_hz: int, subtype: str = "FLOAT", form: str = "WAV") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, array, rate_hz, subtype=subtype, format=form)
    return buffer.getvalue()


def csv(array: npt.NDArray[Any], header: Sequence[str] | None = None, times: npt.NDArray[Any] | None = None) -> bytes:
    lines = [] if header is None else [",".join(header)]
    for number, row in enumerate(array):
        cells = [] if times is None else [repr(float(times[number]))]
        lines.append(",".join([*cells, *("" if np.isnan(value) else repr(float(value)) for value in row)]))
    return "\n".join(lines).encode()


def track(data: bytes, modality: Series = IMU, clip_s: float = 2.0, **fields: Any) -> DecodedTrack:
    return decode(DecodeRequest((modality,), {modality.name: data}, clip_s, **fields)).tracks[modality.name]


def row(data: bytes, modality: Series = IMU, clip_s: float = 2.0, **fields: Any) -> npt.NDArray[np.float32]:
    found = track(data, modality, clip_s, **fields)
    assert found.status.ok, f"{found.status} {found.status.detail}"
    assert found.row is not None
    return found.row


def refused(data: bytes, modality: Series = IMU) -> tuple[str, str]:
    status = track(data, modality).status
    return str(status), status.detail or ""


def changed(**fields: Any) -> Series:
    return Series.model_validate(IMU.model_dump() | fields)


@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<f2", "<i2", ">i4", "|u1"])
@pytest.mark.parametrize("axes", ["time_channels", "channels_time"])
def test_an_array_gives_its_own_numbers(dtype: str, order: Any, axes: str) -> None:
    values = np.arange(600).reshape(200, 3).astype(dtype)
    stored = np.array(values if axes == "time_channels" else values.T, order=order)
    np.testing.assert_array_equal(row(npy(stored), changed(axes=axes)), values[50:150].astype(np.float32))


def test_one_channel_needs_no_second_axis() -> None:
    one = changed(channels=1)
    np.testing.assert_array_equal(row(npy(VALUES[:, 0]), one)[:, 0], MIDDLE[:, 0])


def test_a_range_is_read_and_past_the_end_is_missing() -> None:
    found = row(npy(VALUES), start_s=3.0)
    np.testing.assert_array_equal(found[:50], VALUES[150:])
    assert np.isnan(found[50:]).all()


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_text_says_the_same_as_an_array(separator: str) -> None:
    plain = csv(VALUES).decode().replace(",", separator)
    np.testing.assert_array_equal(row(plain.encode()), MIDDLE)
    np.testing.assert_array_equal(row(("\ufeff" + plain.replace("\n", "\r\n") + "\r\n").encode()), MIDDLE)


@pytest.mark.parametrize(("column", "unit"), [("time", 1.0), ("Time_S", 1.0), ("time_ms", 1e-3), ("time_ns", 1e-9)])
def test_columns_are_chosen_by_name_and_samples_have_times(column: str, unit: float) -> None:
    times = (1000.0 + np.arange(200) / 50) / unit
    shuffled = changed(names=("c", "a", "b"))
    found = row(csv(VALUES, [column, "a", "b", "c"], times), shuffled)
    np.testing.assert_allclose(found, MIDDLE[:, [2, 0, 1]], atol=1e-4)
    assert refused(csv(VALUES, [column, "a", "b", "d"], times), shuffled)[0] == "absent:no_track"


def test_a_files_channels_are_picked_by_number() -> None:
    two = changed(channels=2, pick=(2, 0))
    for data in (npy(VALUES), csv(VALUES), wav(VALUES, 50)):
        np.testing.assert_array_equal(row(data, two), MIDDLE[:, [2, 0]])


@pytest.mark.parametrize("form", ["WAV", "FLAC", "AIFF", "CAF"])
def test_the_channels_of_lossless_sound_are_a_series(form: str) -> None:
    values = np.round(np.clip(VALUES / 8, -1, 1) * 2**15).clip(-(2**15), 2**15 - 1) / 2**15
    rate_hz = 1000 if form == "FLAC" else 50
    modality = changed(sample_rate_hz=rate_hz)
    found = row(wav(values.astype(np.float32), rate_hz, "PCM_16", form), modality, clip_s=100 / rate_hz)
    np.testing.assert_allclose(found, values[50:150], atol=1e-6)


def test_a_faster_file_is_filtered_and_a_slower_one_interpolated() -> None:
    def of(hertz: float, rate_hz: float) -> npt.NDArray[np.float64]:
        return np.tile(9.0 + np.sin(2 * np.pi * hertz * np.arange(int(4 * rate_hz)) / rate_hz)[:, None], (1, 3))

    expected = 9.0 + np.sin(2 * np.pi * 3.0 * (1.0 + np.arange(100) / 50))
    fast = changed(file_rate_hz=400)
    np.testing.assert_allclose(row(npy(of(3, 400)), fast)[:, 0], expected, atol=2e-3)
    # 60 Hz would be 10 Hz at a rate of 50: it is gone.
    np.testing.assert_allclose(row(npy(of(60, 400)), fast), 9.0, atol=2e-2)
    slow = changed(file_rate_hz=25)
    np.testing.assert_allclose(
        row(npy(of(1, 25)), slow)[:, 0], 9.0 + np.sin(2 * np.pi * (1 + np.arange(100) / 50)), atol=0.01
    )


def test_resampling_does_not_ring_at_the_ends() -> None:
    """Gravity is a constant: sound would fade in from zero, a sensor does not."""
    constant = np.full((1600, 3), 9.81) + RNG.standard_normal((1600, 3)) * 1e-3
    found = row(npy(constant), changed(file_rate_hz=400), clip_s=4.0)
    np.testing.assert_allclose(found, 9.81, atol=0.01)


def test_uneven_times_are_put_on_an_even_clock() -> None:
    times = np.cumsum(np.tile([0.015, 0.025], 100)) - 0.015
    ramp = np.stack([times, 2 * times, -times], axis=1)
    found = row(csv(ramp, ["time", "a", "b", "c"], times))
    steps = np.diff(found, axis=0)
    np.testing.assert_allclose(steps, np.tile([0.02, 0.04, -0.02], (99, 1)), atol=1e-4)


def test_short_gaps_are_bridged_and_long_ones_are_missing() -> None:
    ramp = np.tile(np.arange(200.0)[:, None], (1, 3))
    ramp[60:63, 1] = np.nan  # 80 ms from neighbour to neighbour
    ramp[100:120, 2] = np.nan
    for data in (npy(ramp), csv(ramp)):
        found = row(data)
        np.testing.assert_allclose(found[:, :2], np.tile(np.arange(50.0, 150.0)[:, None], (1, 2)))
        assert np.flatnonzero(np.isnan(found[:, 2])).tolist() == list(range(50, 70))
    assert np.isnan(row(npy(ramp), changed(bridge_s=0.0))[10:13, 1]).all()


def test_rows_that_the_clock_skips_are_a_gap() -> None:
    keep = np.r_[0:90, 130:200]
    times = np.arange(200)[keep] / 50
    found = row(csv(VALUES[keep], ["time", "a", "b", "c"], times))
    assert np.flatnonzero(np.isnan(found).all(axis=1)).tolist() == list(range(40, 80))
    np.testing.assert_allclose(found[:40], VALUES[50:90], atol=1e-5)


def test_infinity_is_missing_like_nan() -> None:
    broken = VALUES.copy()
    broken[100:120] = np.inf
    assert np.flatnonzero(np.isnan(row(npy(broken))).any(axis=1)).tolist() == list(range(50, 70))


def test_what_is_no_signal() -> None:
    assert refused(npy(np.tile([1.0, 2.0, 3.0], (200, 1))))[0] == "unusable:flat"
    assert refused(npy(np.full((200, 3), np.nan))) == ("unusable:gaps", "100% of its values in the range are missing")
    lost = VALUES.copy()
    lost[50:102] = np.nan
    assert refused(npy(lost))[0] == "unusable:gaps"
    lost[50:60] = 1.0
    assert track(npy(lost)).status.ok
    limited = changed(limits=((-1, 1),) * 3)
    assert refused(npy(np.clip(VALUES * 100, -1, 1)), limited)[0] == "unusable:saturated"
    assert track(npy(np.clip(VALUES, -1, 1)), limited).status.ok
    assert refused(npy(np.zeros((0, 3))))[0] == "unusable:empty"
    assert refused(b"a,b,c\n")[0] == "unusable:empty"


def test_one_dead_channel_is_not_a_dead_sensor() -> None:
    dead = VALUES.copy()
    dead[:, 1] = 0.0
    np.testing.assert_array_equal(row(npy(dead)), dead[50:150])


def header(text: str, version: bytes = b"\x01\x00") -> bytes:
    body = text.encode() + b"\n"
    length = len(body).to_bytes(2 if version == b"\x01\x00" else 4, "little")
    return b"\x93NUMPY" + version + length + body


HUGE = "{'descr': '<f4', 'fortran_order': False, 'shape': (999999999999, 3), }"


@pytest.mark.parametrize(
    ("data", "because"),
    [
        (npy(VALUES[:, :2]), "it has 2 channels, and 'imu' has 3"),
        (npy(np.zeros((2, 3, 4))), "one or two axes"),
        (npy(np.array([{"a": 1}], dtype=object), allow_pickle=True), "no array of numbers"),
        (npy(np.zeros(4, dtype=[("a", "<f4")])), "no array of numbers"),
        (npy(np.zeros((9, 3), np.complex64)), "no array of numbers"),
        (npy(np.zeros((9, 3), bool)), "no array of numbers"),
        (npy(VALUES)[:-1], "too short"),
        (header(HUGE), "too short"),
        (header(HUGE, b"\x02\x00"), "too short"),
        (header(HUGE.replace("999999999999, 3", "3, 999999999999")), "set axes: channels_time"),
        (header(HUGE, b"\x03\x00"), "another version"),
        (header("__import__('os').getcwd()"), "no array of numbers"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff", "no array of numbers"),
        (b"\x93NUMPY\x01\x00", "cut off"),
        (b"1,2,3\n4,5\n6,7,8\n", "line 2 has 2 cells where the first has 3"),
        (b"a,b,c\n1,2,3\n4,5,six\n7,8,9\n", "line 3 has a cell that is no number"),
        (b"time,a,b,c\n0,1,2,3\n-1,1,2,3\n", "times do not rise"),
        (b"time,a,b,c\n0,1,2,3\n,1,2,3\n", "without a time"),
        (b"time,a,b,c\n0,1,2,3\n2e9,4,5,6\n", "span more than 1e+09 s"),
        (b"time,a,b,c\n-1e308,1,2,3\n1e308,4,5,6\n", "span more than 1e+09 s"),
        (",".join(map(str, range(5000))).encode(), "5000 columns"),
        (b"1" * 2**18, "has 131072 bytes or more"),
        (b"1,2,3\n\xff\xfe,5,6\n" * 3, "first bytes"),
        (b"\x00\x01\x02\x03" * 200, "first bytes"),
    ],
)
def test_what_is_no_series_says_so(data: bytes, because: str) -> None:
    status, detail = refused(data)
    assert status == "unusable:undecodable"
    assert because in detail


@pytest.mark.parametrize("step", [1e-9, 5e-324])
def test_times_that_hardly_rise_amount_to_no_rate_without_bound(step: float) -> None:
    """What is resampled grows with the file's rate, and times can be as near to each other as numbers can."""
    found = track(csv(VALUES, ["time", "a", "b", "c"], step * np.arange(200)))
    assert str(found.status) == "unusable:flat"  # all of it is in one sample of the row


def test_a_million_columns_cost_no_memory() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert refused(b"1," * 20_000_000)[0] == "unusable:undecodable"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000


def test_a_file_of_too_many_values_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dimml.media.decoders.series.series_file.MOST_VALUES", 500)
    for data in (csv(VALUES), npy(VALUES)):
        with pytest.raises(TooLargeError, match="500 that are read at a time"):
            track(data, clip_s=4.0)


def test_a_line_that_is_cut_off_at_the_end_is_left_out() -> None:
    cut = csv(VALUES[:150])[: -len(csv(VALUES[149:150])) + 3]
    np.testing.assert_array_equal(row(cut, start_s=1.0)[:99], VALUES[50:149])


def test_a_recording_without_series_has_no_such_track() -> None:
    for name in ("no_sound.mp4",):
        status, detail = refused((REPOSITORY_ROOT / "samples" / name).read_bytes())
        assert status == "absent:no_track"
        assert "MP4" in detail
    status, detail = refused(wav(VALUES[:, :1], 50))
    assert status == "absent:no_track"
    assert detail == "it has 1 channels, and 'imu' has 3"


def test_the_modality_says_what_an_array_is() -> None:
    """One file for two modalities: flow to the one, a series to the other."""
    flow = np.zeros((4, 16, 16, 2), np.float32)
    motion = Flow(name="motion", frames=2, height=16, width=16)
    sound = Waveform(name="audio", sample_rate_hz=8000, samples=8000)
    still = Frames(name="still", frames=1, height=16, width=16)
    for data, ok in ((npy(flow), "motion"), (npy(VALUES), "imu")):
        given = (IMU, motion, sound, still)
        found = decode(DecodeRequest(given, dict.fromkeys(("imu", "motion", "audio", "still"), data), 2.0))
        assert [name for name, one in found.tracks.items() if one.status.ok] == [ok]
        assert str(found.tracks["audio"].status) == "absent:no_track"


def test_sound_and_series_of_one_file() -> None:
    sound = Waveform(name="audio", sample_rate_hz=8000, samples=16000, channel="mean")
    fast = changed(sample_rate_hz=8000, samples=16000)
    values = RNG.uniform(-0.5, 0.5, (32000, 3)).astype(np.float32)
    source = wav(values, 8000)
    found = decode(DecodeRequest((sound, fast), {"audio": source, "imu": source}, 2.0)).tracks
    np.testing.assert_array_equal(found["imu"].row, values[8000:24000])
    audio = found["audio"].row
    assert audio is not None
    np.testing.assert_allclose(audio, values[8000:24000].mean(axis=1), atol=1e-6)


def test_windows_of_a_long_series() -> None:
    long = RNG.standard_normal((1000, 3)).astype(np.float32)
    for data in (npy(long), csv(long), wav(long, 50)):
        request = DecodeRequest((IMU,), {"imu": data}, 2.0)
        windows = list(decode_windows(request, WindowPlan(2.0, 3.0)))
        assert [one.count for one in windows] == [7] * 7
        for one in itertools.islice(windows, 6):
            begin = one.number * 150
            np.testing.assert_array_equal(one.decoded.tracks["imu"].row, long[begin : begin + 100])


def test_limits_of_time_hold() -> None:
    long = npy(np.tile(VALUES, (40, 1)))
    request = DecodeRequest((IMU,), {"imu": long}, 2.0)
    with pytest.raises(TooLargeError, match="max_seconds"):
        decode(request)
    assert decode(replace(request, start_s=10.0, end_s=12.0)).tracks["imu"].status.ok


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"names": ("a", "b")}, "names must have one entry for each of 3 channels, got 2"),
        ({"pick": (0, 0, 1)}, "pick must not repeat"),
        ({"limits": ((1, -1),) * 3}, "limits must be pairs"),
        ({"samples": 2**24}, "samples x channels"),
        ({"sample_rate_hz": 0}, "sample_rate_hz"),
    ],
)
def test_a_modality_that_makes_no_sense_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        changed(**fields)
