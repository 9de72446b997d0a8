"""Procedural outliers: as strong as what they replace, of every kind, and of nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dimml.modality import KINDS, Flow, Frames, Modality, Series, Waveform
from dimml_training.data.outliers import OUTLIERS, outliers

BATCH = 6
MODALITIES: tuple[Modality, ...] = (
    Waveform(name="audio", sample_rate_hz=8000, samples=2000),
    Frames(name="visual", frames=3, height=12, width=16),
    Flow(name="motion", frames=3, height=12, width=16),
    Series(name="inertial", channels=2, sample_rate_hz=50.0, samples=100),
)


def rows_of(modality: Modality) -> torch.Tensor:
    rng = np.random.default_rng(0)
    if modality.kind == "waveform":
        return torch.from_numpy(rng.normal(0.0, 0.1, (BATCH, *modality.shape)).astype(np.float32))
    if modality.kind == "series":
        return torch.from_numpy(rng.normal(3.0, 2.0, (BATCH, *modality.shape)).astype(np.float32))
    return torch.from_numpy(rng.uniform(60.0, 200.0, (BATCH, *modality.shape)).astype(np.float32))


@pytest.mark.parametrize("modality", MODALITIES, ids=lambda m: m.kind)
def test_an_outlier_is_as_strong_as_its_row_and_unlike_it(modality: Modality) -> None:
    rows = rows_of(modality)
    torch.manual_seed(0)
    made = outliers(modality, rows)
    torch.manual_seed(0)
    assert torch.equal(made, outliers(modality, rows)), "a resumed run draws the same"
    assert made.shape == rows.shape
    assert made.dtype == torch.float32
    for own, row in zip(made.flatten(1), rows.flatten(1), strict=True):
        assert float(own.mean()) == pytest.approx(float(row.mean()), abs=0.2 * float(row.std()))
        assert float(own.std()) == pytest.approx(float(row.std()), rel=0.15)
        assert abs(float(torch.corrcoef(torch.stack([own, row]))[0, 1])) < 0.5
    spread = torch.cdist(made.flatten(1), made.flatten(1)) + 1e9 * torch.eye(BATCH)
    assert float(spread.min()) > float(made.flatten(1).std())


def test_every_kind_has_outliers() -> None:
    assert set(OUTLIERS) == set(KINDS)


def test_silent_sound_and_missing_values() -> None:
    audio, inertial = MODALITIES[0], MODALITIES[3]
    assert float(outliers(audio, torch.zeros(2, 2000)).square().mean()) > 0.0
    rows = rows_of(inertial)
    rows[:, 10:20] = torch.nan
    made = outliers(inertial, rows)
    assert torch.equal(torch.isnan(made), torch.isnan(rows))
