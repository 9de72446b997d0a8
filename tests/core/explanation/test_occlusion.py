"""Stretches of time, and which samples and frames each of them blanks."""

from __future__ import annotations

import numpy as np
import pytest

from dimml.explanation.occlusion import LEAST_STRETCH_S, MOST_STRETCHES, blanked_rows, count_stretches, steps_of
from dimml.modality import Flow, Frames, Modality, Waveform

SOUND = Waveform(name="audio", sample_rate_hz=1000, samples=1000)


def pictures(frames: int) -> Frames:
    return Frames(name="visual", frames=frames, height=8, width=8)


@pytest.mark.parametrize(
    ("seconds", "count"),
    [(0.04, 1), (0.1, 1), (0.19, 1), (0.5, 5), (0.499999, 5), (1.2, 12), (3.2, 32), (3.3, 32), (120.0, 32)],
)
def test_stretches_are_not_too_short_nor_too_many(seconds: float, count: int) -> None:
    assert count_stretches(seconds) == count
    assert count <= MOST_STRETCHES
    assert count == 1 or seconds / count >= LEAST_STRETCH_S * 0.999


def test_samples_are_cut_at_their_rate_and_the_last_stretch_takes_the_padding() -> None:
    # 0.5 s were judged, the row has a second: its second half is padding.
    assert steps_of(SOUND, 0.5, 5) == [(0, 100), (100, 200), (200, 300), (300, 400), (400, 1000)]


@pytest.mark.parametrize("count", [1, 3, 7, 32])
def test_every_sample_is_blanked_exactly_once(count: int) -> None:
    covered = np.zeros(SOUND.samples, int)
    for first, end in steps_of(SOUND, 1.0, count):
        covered[first:end] += 1
    assert (covered == 1).all()


def test_a_frame_is_in_every_stretch_that_its_share_of_time_reaches_into() -> None:
    assert steps_of(pictures(4), 1.0, 4) == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert steps_of(pictures(8), 1.0, 4) == [(0, 2), (2, 4), (4, 6), (6, 8)]
    assert steps_of(pictures(2), 1.0, 4) == [(0, 1), (0, 1), (1, 2), (1, 2)]
    # A frame for a third of the time, a stretch for a quarter.
    assert steps_of(pictures(3), 1.0, 4) == [(0, 1), (0, 2), (1, 3), (2, 3)]


@pytest.mark.parametrize(
    ("modality", "blank"), [(SOUND, 0.0), (pictures(4), 128), (Flow(name="f", frames=4, height=8, width=8), 128)]
)
def test_a_blanked_stretch_holds_nothing_and_the_rest_stays(modality: Modality, blank: float) -> None:
    row = np.full(modality.shape, 0.25 if modality.kind == "waveform" else 7).astype(modality.dtype)
    before = row.copy()
    rows = blanked_rows(modality, row, [(0, 1), (2, 4)])
    assert (rows.shape, rows.dtype) == ((2, *modality.shape), modality.dtype)
    assert (rows[0, :1] == blank).all()
    assert (rows[0, 1:] == before[1:]).all()
    assert (rows[1, 2:4] == blank).all()
    assert (rows[1, :2] == before[:2]).all()
    assert (row == before).all()
