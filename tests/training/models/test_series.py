"""The encoder of a series: its normalisation against numpy, what missing values do, and what a config may say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dimml.modality import Series
from dimml_training.models import ResNetBackboneConfig, SeriesEncoderConfig
from dimml_training.models.encoder import Encoder, build_encoder
from dimml_training.models.series import SeriesEmbedding

IMU = Series(name="imu", channels=3, sample_rate_hz=50, samples=60)
SMALL = ResNetBackboneConfig(embedding_size=4, hidden_sizes=(4, 8), depths=(1, 2), stem="plain")
RNG = np.random.default_rng(3)
ROWS = (RNG.standard_normal((10, 60, 3)) * [0.5, 100.0, 1e-3] + [9.81, -3.0, 0.0]).astype(np.float32)


def built(**fields: Any) -> Encoder:
    torch.manual_seed(0)
    encoder = build_encoder(IMU, SeriesEncoderConfig(**{"backbone": SMALL, **fields}), 5)
    encoder.measure([ROWS[:4], ROWS[4:]])
    return encoder.eval()


class _Recorder(nn.Module):
    """Stands in for the backbone, and keeps what it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = torch.zeros(0)

    def forward(self, channels_BCS: Tensor) -> Tensor:
        self.seen = channels_BCS
        return channels_BCS.new_zeros(len(channels_BCS), 8)


def seen_by_backbone(rows: Any) -> np.ndarray[Any, Any]:
    encoder, recorder = built(), _Recorder()
    embed = encoder.embed
    assert isinstance(embed, SeriesEmbedding)
    embed.backbone = recorder  # type: ignore[assignment]
    encoder(torch.from_numpy(rows))
    return np.asarray(recorder.seen)


def test_channels_are_normalised_by_the_training_clips() -> None:
    mean, deviation = ROWS.mean(axis=(0, 1), dtype=np.float64), ROWS.std(axis=(0, 1), dtype=np.float64)
    found = seen_by_backbone(ROWS)
    assert found.shape == (10, 6, 60)
    np.testing.assert_allclose(found[:, :3], ((ROWS - mean) / deviation).transpose(0, 2, 1), atol=2e-3)
    assert (found[:, 3:] == 1.0).all()


def test_the_statistics_leave_out_what_is_missing() -> None:
    holes = ROWS.copy()
    holes[::2, 10:30, 1] = np.nan
    encoder = built()
    encoder.measure([holes])
    embed = encoder.embed
    assert isinstance(embed, SeriesEmbedding)
    np.testing.assert_allclose(embed.mean, np.nanmean(holes.astype(np.float64), axis=(0, 1)), rtol=1e-5)
    np.testing.assert_allclose(embed.deviation, np.nanstd(holes.astype(np.float64), axis=(0, 1)), rtol=1e-5)


def test_a_channel_that_never_moves_or_is_never_there_is_not_scaled() -> None:
    still = ROWS.copy()
    still[..., 0], still[..., 2] = 7.0, np.nan
    encoder = built()
    encoder.measure([still])
    embed = encoder.embed
    assert isinstance(embed, SeriesEmbedding)
    assert embed.deviation[0] == embed.deviation[2] == 1.0
    assert (float(embed.mean[0]), float(embed.mean[2])) == (7.0, 0.0)


@pytest.mark.parametrize("missing", [np.nan, np.inf, -np.inf])
def test_missing_values_are_zero_and_marked(missing: float) -> None:
    holes = ROWS.copy()
    holes[:, 20:40, 1] = missing
    found = seen_by_backbone(holes)
    assert (found[:, 1, 20:40] == 0.0).all()
    assert (found[:, 4, 20:40] == 0.0).all()
    assert (found[:, 4, :20] == 1.0).all()
    features, logits = built()(torch.from_numpy(holes))
    assert torch.isfinite(features).all()
    assert torch.isfinite(logits).all()


def test_a_wild_value_is_cut() -> None:
    wild = ROWS.copy()
    wild[0, 5, 0] = 1e30
    assert seen_by_backbone(wild)[0, 0, 5] == 10.0


@pytest.mark.parametrize("stem", ["plain", "strided", "imagenet"])
def test_order_in_time_matters_and_clips_do_not_mix(stem: Any) -> None:
    encoder = built(backbone=SMALL.model_copy(update={"stem": stem}), features=6)
    rows = torch.from_numpy(ROWS)
    features, logits = encoder(rows)
    assert (features.shape, logits.shape) == ((10, 6), (10, 5))
    torch.testing.assert_close(encoder(rows[3:4])[0], features[3:4])
    assert (encoder(rows.flip(1))[0] - features).abs().max() > 1e-4


def test_gradients_reach_the_first_layer_past_missing_values() -> None:
    encoder = built().train()
    holes = ROWS.copy()
    holes[:, :30] = np.nan
    encoder(torch.from_numpy(holes))[1].sum().backward()
    first = next(encoder.parameters()).grad
    assert first is not None
    assert torch.isfinite(first).all()
    assert first.abs().sum() > 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kernel": 4}, "kernel must be odd"),
        ({"backbone": {"layer_type": "bottleneck"}}, "layer_type of a series is basic"),
        ({"backbone": {"kind": "import", "target": "a:b"}, "features": 8}, "input of a series is raw"),
        ({"backbone": {"kind": "huggingface", "model_type": "vit"}, "features": 8}, "a series takes resnet or import"),
        (
            {"backbone": {"kind": "import", "target": "a:b", "input": "raw"}, "features": 8, "kernel": 7},
            "kernel has no",
        ),
    ],
)
def test_what_does_not_fit_a_series_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SeriesEncoderConfig(**fields)
