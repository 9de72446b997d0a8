"""Every file of the shared media folder gives the streams that ``expected.csv`` names, or a typed reason.

Each within 10 s and 1 GB: the peak of the worker, which begins anew with each file.
"""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from dimml.errors import DimmlError, TooLargeError
from dimml.media import Decoded, MediaLimits
from dimml.media.decoders import packet_index
from dimml.media.types import DecodeRequest
from dimml.media.workers.pool import DecodePool
from dimml.modality import Frames, Waveform
from support.data import shared_data
from support.decoding import decode_source, request_for, row_of, statuses
from support.measured_decode import forget_peak, measured_decode

AUDIO = Waveform(name="audio", sample_rate_hz=16_000, samples=16_000)
VISUAL = Frames(name="visual", frames=4, height=96, width=96)
FILES = [
    "1024_incrementing_bytes.mp3",
    "bbb_1ch_16kHz_q10_vorbis.ogg",
    "bbb_2500ms.ts",
    "bbb_642x642_768kbps_30fps_vp9.webm",
    "bbb_6ch_8kHz_opus.ogg",
    "bbb_960x540_60fps_vp8.webm",
    "bear-vbr-xing-header.mp3",
    "bear.flac",
    "bear_flac.ogg",
    "sample.avi",
    "sample.flv",
    "sample_8bit.wav",
    "sample_96khz.wav",
    "sample_av1.mp4",
    "sample_float32.wav",
    "sample_fragmented.mp4",
    "sample_malformed_free_box.mp4",
    "sample_mdat_too_long.mp4",
    "sample_missing_stsd.mp4",
    "sample_rotate_and_reflect.mp4",
    "sample_sef_slow_motion.mp4",
    "sample_shorter_audio.mp4",
    "sample_simple.mp4",
    "sample_unrecognized_hevc_sei.mp4",
    "sample_with_increasing_timestamps_320w_240h_5s.mp4",
    "sine_24le.wav",
    "sowt-with-video.mov",
]
LONG = "long_4k_av1.mp4"
#: Files whose listed streams cannot be read, or that have a track beside the listed ones, and why.
REASONS = {
    "1024_incrementing_bytes.mp3": {"audio": "unusable:undecodable", "visual": "unusable:undecodable"},
    "sample_malformed_free_box.mp4": {"audio": "unusable:undecodable", "visual": "unusable:undecodable"},
    "sample_missing_stsd.mp4": {"audio": "unusable:undecodable", "visual": "ok"},
}
SECONDS, PEAK_BYTES = 10.0, 2**30


def expected_rows() -> dict[str, dict[str, str]]:
    with (shared_data("media") / "expected.csv").open(newline="") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


Measured = Callable[[DecodeRequest], Decoded]


@pytest.fixture(scope="module")
def measured() -> Iterator[Measured]:
    """Decode in one worker, which keeps nothing of the file before; fails where one takes more than 10 s or 1 GB."""
    with DecodePool(1, decode_function=measured_decode) as pool:
        pool.warm_up()

        def decode(request: DecodeRequest) -> Decoded:
            began = time.monotonic()
            decoded = pool.decode_blocking(request, timeout_s=2 * SECONDS)
            took_s = time.monotonic() - began
            for track in decoded.tracks.values():
                *times, process, peak_bytes = track.times_s
                track.times_s = tuple(times)
            forget_peak(int(process))
            assert took_s < SECONDS
            assert peak_bytes < PEAK_BYTES
            return decoded

        yield decode
        assert pool.workers_lost == 0


def test_all_files_are_covered() -> None:
    assert sorted([*FILES, LONG]) == sorted(expected_rows())


@pytest.mark.parametrize("name", FILES)
def test_each_file_gives_its_streams_or_a_reason(name: str, measured: Measured) -> None:
    row = expected_rows()[name]
    wanted = REASONS.get(name) or {
        "audio": "ok" if row["audio_codec"] else "absent:no_track",
        "visual": "ok" if row["video_codec"] else "absent:no_track",
    }
    decoded = measured(request_for(shared_data("media") / name, AUDIO, VISUAL, clip_s=60.0))
    assert statuses(decoded) == wanted
    if row["duration_s"]:
        assert decoded.start_s == 0.0
        assert decoded.end_s == pytest.approx(float(row["duration_s"]), abs=0.07)


def test_the_long_recording_is_refused_whole_and_answered_in_part(measured: Measured) -> None:
    path = shared_data("media") / LONG
    with DecodePool(1) as pool:
        pool.warm_up()
        began = time.monotonic()
        with pytest.raises(TooLargeError, match="max_seconds"):
            pool.decode_blocking(request_for(path, AUDIO, VISUAL), timeout_s=20)
        assert time.monotonic() - began < SECONDS / 2
    decoded = measured(request_for(path, AUDIO, VISUAL, clip_s=3.0, start_s=5.0, end_s=8.0))
    # It is silent and black from end to end: four pictures of 3840x2160 were decoded to find that out.
    assert statuses(decoded) == {"audio": "unusable:silent", "visual": "unusable:black"}
    assert len(decoded.tracks["visual"].times_s) == 4
    assert (decoded.start_s, decoded.end_s) == (5.0, 8.0)


def test_the_long_recording_within_generous_limits_stops_at_the_count_of_pictures() -> None:
    limits = MediaLimits(max_seconds=1000.0, max_frames_decoded=500)
    with pytest.raises(TooLargeError, match="max_frames_decoded"):
        decode_source(shared_data("media") / LONG, VISUAL, clip_s=400.0, limits=limits)


@pytest.mark.parametrize(
    "name", [n for n in FILES if Path(n).suffix in {".mp4", ".mov", ".webm", ".avi", ".flv", ".ts"}]
)
def test_seeking_gives_what_decoding_everything_gives(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a plain PyAV loop over the whole file: the same pictures at the same times, bit for bit."""
    monkeypatch.setattr(packet_index, "MAX_KEPT_BYTES", 0)
    path = shared_data("media") / name
    row = expected_rows()[name]
    if not row["video_codec"] or int(row["width"]) > 1100:
        return
    modality = Frames(name="visual", frames=3, height=int(row["height"]), width=int(row["width"]))
    if "rotate" in name:
        modality = modality.model_copy(update={"height": modality.width, "width": modality.height})
    duration_s = float(row["duration_s"])
    start_s, end_s = 0.55 * duration_s, 0.9 * duration_s
    decoded = decode_source(path, modality, clip_s=10.0, start_s=start_s, end_s=end_s)
    rows = row_of(decoded, "visual")
    with av.open(str(path)) as container:
        starts = [float(s.start_time * s.time_base) for s in container.streams if s.start_time is not None]
        zero_s = min(starts)
        shown = [(frame.time - zero_s, frame) for frame in container.decode(video=0)]
    for index in range(3):
        wanted_s = start_s + (index + 0.5) / 3 * (end_s - start_s)
        time_s, frame = max((pair for pair in shown if pair[0] <= wanted_s), key=lambda pair: pair[0])
        assert decoded.tracks["visual"].times_s[index] == pytest.approx(time_s, abs=1e-6)
        expected = frame.to_ndarray(format="rgb24")
        np.testing.assert_array_equal(rows[index], expected.transpose(1, 0, 2) if "rotate" in name else expected)


def test_real_word_times_cut_the_right_stretch() -> None:
    """GRID: the sound of a word's segment is the same stretch of a plain decode of the whole clip."""
    folder = shared_data("grid_s1")
    with (folder / "labels.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    start_s, end_s = float(row["digit_start_s"]), float(row["digit_end_s"])
    path = folder / "clips" / row["clip"]
    wave = row_of(decode_source(path, AUDIO, start_s=start_s, end_s=end_s), "audio")
    with av.open(str(path)) as container:
        whole = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    count = int((end_s - start_s) * 16_000)
    expected = whole[round(start_s * 16_000) :][:count]
    # AAC fills some bands with noise of its own, which depends on where decoding began.
    np.testing.assert_allclose(wave[:count], np.clip(expected, -1, 1), atol=0.01)
    assert np.corrcoef(wave[:count], expected)[0, 1] > 0.999


def test_peak_memory_is_really_measured() -> None:
    """The figure is the worker's own and grows with what it does."""
    decoded = measured_decode(DecodeRequest((AUDIO,), {}, 1.0))
    own_bytes = int(Path(f"/proc/{os.getpid()}/statm").read_text().split()[1]) * 4096
    assert decoded.tracks[AUDIO.name].times_s[-1] >= 0.5 * own_bytes


def test_a_peak_that_is_forgotten_is_not_measured_again() -> None:
    large_bytes = 2**28

    def peak_bytes() -> float:
        return measured_decode(DecodeRequest((AUDIO,), {}, 1.0)).tracks[AUDIO.name].times_s[-1]

    forget_peak(os.getpid())
    before = peak_bytes()
    assert np.ones(large_bytes, np.uint8).any()
    assert peak_bytes() > before + 0.9 * large_bytes
    forget_peak(os.getpid())
    assert peak_bytes() < before + 0.5 * large_bytes


def test_no_file_raises_anything_but_our_errors_for_any_range() -> None:
    for name in FILES:
        for start_s, end_s in ((0.0, 0.05), (0.3, 0.9), (0.95, 1.05)):
            try:
                decode_source(shared_data("media") / name, AUDIO, start_s=start_s, end_s=end_s)
            except DimmlError:
                continue
