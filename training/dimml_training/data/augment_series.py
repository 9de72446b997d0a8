"""Corruption of a training batch of series, vectorised over clips."""

from __future__ import annotations

import torch
from torch import Tensor

from dimml_training.config import SeriesAugmentConfig


def augment_series(rows_BSC: Tensor, config: SeriesAugmentConfig, sample_rate_hz: float) -> Tensor:
    """Apply stretch and shift, scale, drift, noise, dead channels and gaps, in this order, to FP32 ``[B, S, C]``.

    NaN is missing, before and after. A deviation is a channel's own over the row.
    """
    batch, samples, channels = rows_BSC.shape
    device = rows_BSC.device
    if config.stretch > 0.0 or config.shift_ms > 0.0:
        rows_BSC = _moved(rows_BSC, config.stretch, config.shift_ms * sample_rate_hz / 1000)
    there_BSC = torch.isfinite(rows_BSC)
    known_BSC = rows_BSC.where(there_BSC, torch.zeros_like(rows_BSC))
    count_B1C = there_BSC.sum(dim=1, keepdim=True).clamp(min=1)
    centred_BSC = (known_BSC - known_BSC.sum(dim=1, keepdim=True) / count_B1C) * there_BSC
    deviation_B1C = (centred_BSC.square().sum(dim=1, keepdim=True) / count_B1C).sqrt()
    if config.scale > 0.0:
        rows_BSC = rows_BSC * _uniform((batch, 1, channels), 1.0 - config.scale, 1.0 + config.scale, device)
    if config.drift_probability > 0.0:
        grown_S1 = torch.linspace(0.0, 1.0, samples, device=device)[:, None]
        slope_B1C = _uniform((batch, 1, channels), -config.drift, config.drift, device) * deviation_B1C
        rows_BSC = rows_BSC + grown_S1 * slope_B1C * _chosen(batch, config.drift_probability, device)
    if config.noise_probability > 0.0:
        ratio_B11 = 10.0 ** (-_uniform((batch, 1, 1), *config.noise_snr_db, device) / 20.0)
        noise_BSC = torch.randn_like(rows_BSC) * deviation_B1C * ratio_B11
        rows_BSC = rows_BSC + noise_BSC * _chosen(batch, config.noise_probability, device)
    if config.dead_probability > 0.0:
        share_B11 = _uniform((batch, 1, 1), 0.0, config.dead_share, device)
        dead_B1C = torch.rand((batch, 1, channels), device=device) < share_B11
        dead_B1C = dead_B1C & _chosen(batch, config.dead_probability, device)
        # A channel of every clip lives on.
        dead_B1C = dead_B1C & ~dead_B1C.all(dim=2, keepdim=True)
        rows_BSC = rows_BSC.masked_fill(dead_B1C & torch.isfinite(rows_BSC), 0.0)
    if config.gap_probability > 0.0:
        length_B1 = torch.rand(batch, 1, device=device) * config.gap_share * samples
        start_B1 = torch.rand(batch, 1, device=device) * (samples - length_B1)
        place_S = torch.arange(samples, device=device)
        gap_BS = (place_S >= start_B1) & (place_S < start_B1 + length_B1)
        gap_BS1 = gap_BS[:, :, None] & _chosen(batch, config.gap_probability, device)
        rows_BSC = rows_BSC.masked_fill(gap_BS1, torch.nan)
    return rows_BSC


def _moved(rows_BSC: Tensor, stretch: float, shift: float) -> Tensor:
    """Stretch by up to ± ``stretch`` about the middle and shift by up to ± ``shift`` samples, linearly interpolated.

    What comes from outside the row is missing, and what lies between a value and a missing one.
    """
    batch, samples, channels = rows_BSC.shape
    device = rows_BSC.device
    middle = (samples - 1) / 2
    speed_B1 = _uniform((batch, 1), 1.0 - stretch, 1.0 + stretch, device)
    place_BS = (torch.arange(samples, device=device) - middle) * speed_B1 + middle
    place_BS = place_BS + _uniform((batch, 1), -shift, shift, device)
    outside_BS1 = ((place_BS < 0) | (place_BS > samples - 1))[:, :, None]
    place_BS = place_BS.clamp(0, samples - 1)
    before_BS = place_BS.floor().long()
    share_BS1 = (place_BS - before_BS)[:, :, None]
    after_BS = (before_BS + 1).clamp(max=samples - 1)
    left_BSC, right_BSC = (
        rows_BSC.gather(1, index_BS[:, :, None].expand(-1, -1, channels)) for index_BS in (before_BS, after_BS)
    )
    return (left_BSC * (1.0 - share_BS1) + right_BSC * share_BS1).masked_fill(outside_BS1, torch.nan)


def _uniform(shape: tuple[int, ...], low: float, high: float, device: torch.device) -> Tensor:
    return torch.rand(shape, device=device) * (high - low) + low


def _chosen(batch: int, probability: float, device: torch.device) -> Tensor:
    return torch.rand((batch, 1, 1), device=device) < probability
