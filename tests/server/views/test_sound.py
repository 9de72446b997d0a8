"""Spectrogram and outline, against tones whose place and level are known."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from dimml_server.views.sound import LEAST_WHITE_DBFS, MAX_COLUMNS, MAX_PEAKS, MAX_ROWS, TOP_DB, outline, spectrogram


def sine(frequency_hz: float, seconds: float, rate_hz: int, amplitude: float = 0.5) -> npt.NDArray[np.float32]:
    return (amplitude * np.sin(2 * np.pi * frequency_hz * np.arange(int(seconds * rate_hz)) / rate_hz)).astype(
        np.float32
    )


@pytest.mark.parametrize("rate_hz", [1000, 8000, 16_000, 48_000])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_tone_stands_at_its_frequency_and_the_rest_is_dark(rate_hz: int, share: float) -> None:
    found = spectrogram(sine(share * rate_hz / 2, 1.0, rate_hz), rate_hz)
    rows = len(found.grey_RT)
    assert found.max_hz == rate_hz / 2
    assert rows <= MAX_ROWS
    middle = found.grey_RT[:, found.grey_RT.shape[1] // 2]
    # Row 0 is the highest frequency.
    assert abs((rows - 1 - int(middle.argmax())) - share * rows) <= 1.0
    assert middle.max() >= 250
    assert np.quantile(middle, 0.25) < 80


def test_time_goes_to_the_right() -> None:
    wave = np.concatenate([np.zeros(8000, np.float32), sine(1000.0, 1.0, 8000)])
    grey = spectrogram(wave, 8000).grey_RT.max(axis=0)
    assert grey[: len(grey) // 2 - 3].max() == 0
    assert grey[len(grey) // 2 + 3 :].min() > 240


def test_levels_are_decibels() -> None:
    """A step of 20 dB is a quarter of the range; a tone in the middle of a bin of its own is at its own level."""
    wave = np.concatenate([sine(1000.0, 1.0, 8000, 0.5), sine(1000.0, 1.0, 8000, 0.05)])
    found = spectrogram(wave, 8000)
    loud, quiet = (int(found.grey_RT[:, column].max()) for column in (50, 150))
    assert loud - quiet == pytest.approx(255 * 20 / TOP_DB, abs=1)
    # 256 bins of 8 kHz to 128 rows: one each, so that the level is the tone's, 20 log10 0.5.
    assert found.white_dbfs == pytest.approx(-6.0, abs=0.2)


def test_the_noise_of_a_silent_track_stays_dark() -> None:
    noise = np.random.default_rng(0).normal(0.0, 1e-6, 8000).astype(np.float32)
    found = spectrogram(noise, 8000)
    assert found.white_dbfs == LEAST_WHITE_DBFS
    assert found.grey_RT.max() == 0


@pytest.mark.parametrize("samples", [1, 10, 399, 400, 16_000, 16_000 * 30])
def test_every_length_is_bounded_and_a_picture(samples: int) -> None:
    found = spectrogram(np.ones(samples, np.float32), 16_000)
    rows, columns = found.grey_RT.shape
    assert 1 <= columns <= MAX_COLUMNS
    image = Image.open(io.BytesIO(found.png))
    assert (image.format, image.mode, image.size) == ("PNG", "L", (columns, rows))
    np.testing.assert_array_equal(np.asarray(image), found.grey_RT)


def test_the_outline_has_every_extreme() -> None:
    wave = np.random.default_rng(1).uniform(-1, 1, 123_457).astype(np.float32)
    pairs = outline(wave)
    assert len(pairs) == MAX_PEAKS
    assert min(low for low, _ in pairs) == pytest.approx(wave.min(), abs=1e-4)
    assert max(high for _, high in pairs) == pytest.approx(wave.max(), abs=1e-4)
    wave[5000] = 2.0
    assert outline(wave)[5000 * MAX_PEAKS // len(wave)][1] == 2.0


def test_short_sound_has_a_pair_for_each_sample_and_numbers_not_finite_are_zero() -> None:
    assert outline(np.array([0.5, np.nan, -0.25, np.inf], np.float32)) == [(0.5, 0.5), (0, 0), (-0.25, -0.25), (0, 0)]
    assert spectrogram(np.full(800, np.nan, np.float32), 8000).grey_RT.max() == 0
