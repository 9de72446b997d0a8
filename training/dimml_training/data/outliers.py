"""Procedural outliers: rows that show nothing of any class, made without data (outlier exposure, arXiv 1812.04606).

Randomness comes from torch's global generator of the rows' device, as that of augmentation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from dimml.modality import Kind, Modality

#: Fewest and most cells along a side of a random field.
CELLS: Final = (2, 12)
#: Loudness of a sound without any, as a deviation of samples in -1..1.
SOUND_LEVEL: Final = 0.05


def outliers(modality: Modality, rows: Tensor) -> Tensor:
    """Make an outlier for every row, as strong as it: ``[B, *shape]`` FP32 in the modality's units."""
    return OUTLIERS[modality.kind](rows)


def sound_outliers(waveform_BS: Tensor) -> Tensor:
    """Noise of a random colour, from blue to brown, or a few tones, in equal parts; with the power of each row."""
    batch, samples = waveform_BS.shape
    device = waveform_BS.device
    place_F = torch.arange(samples // 2 + 1, device=device).clamp(min=1)
    slope_B1 = torch.rand(batch, 1, device=device) * 3.0 - 1.0  # amplitude by 1/f^slope, -1 to 2
    noise_BS = torch.fft.irfft(torch.fft.rfft(torch.randn_like(waveform_BS)) / place_F**slope_B1, n=samples)
    # Up to a quarter of the sampling rate, evenly by octaves.
    cycles_B31 = 2.0 ** (torch.rand(batch, 3, 1, device=device) * math.log2(max(2, samples // 4)))
    phase_B31 = torch.rand(batch, 3, 1, device=device)
    time_S = torch.arange(samples, device=device) / samples
    tones_BS = torch.sin(2 * math.pi * (cycles_B31 * time_S + phase_B31)).sum(dim=1)
    made_BS = torch.where(torch.rand(batch, 1, device=device) < 0.5, noise_BS, tones_BS)
    made_BS = made_BS - made_BS.mean(dim=1, keepdim=True)
    power_B1 = waveform_BS.square().mean(dim=1, keepdim=True).sqrt()
    level_B1 = torch.where(power_B1 > 0.0, power_B1, torch.full_like(power_B1, SOUND_LEVEL))
    return made_BS * level_B1 / made_BS.square().mean(dim=1, keepdim=True).sqrt().clamp(min=1e-12)


def picture_outliers(pixels_BTHWC: Tensor) -> Tensor:
    """Random fields of coarse cells that drift over time, in 0..255, with each row's mean and deviation."""
    batch, frames, height, width, channels = pixels_BTHWC.shape
    device = pixels_BTHWC.device
    made = []
    for _ in range(batch):
        cells = int(torch.randint(CELLS[0], CELLS[1] + 1, ()))
        # Two fields, of which the second takes over in the course of the clip.
        fields = torch.randn(2, channels, cells, cells, device=device)
        smooth_2CHW = interpolate(fields, size=(height, width), mode="bilinear", align_corners=False)
        share_T = torch.linspace(0.0, float(torch.rand(())), frames, device=device).view(-1, 1, 1, 1)
        made.append(((1.0 - share_T) * smooth_2CHW[0] + share_T * smooth_2CHW[1]).permute(0, 2, 3, 1))
    return _as_strong(torch.stack(made), pixels_BTHWC).clamp(0.0, 255.0)


def series_outliers(rows_BSC: Tensor) -> Tensor:
    """A random walk of every channel, with its mean and deviation in the row; missing values stay missing."""
    there_BSC = torch.isfinite(rows_BSC)
    known_BSC = rows_BSC.where(there_BSC, torch.zeros_like(rows_BSC))
    count_B1C = there_BSC.sum(dim=1, keepdim=True).clamp(min=1)
    mean_B1C = known_BSC.sum(dim=1, keepdim=True) / count_B1C
    deviation_B1C = (((known_BSC - mean_B1C) * there_BSC).square().sum(dim=1, keepdim=True) / count_B1C).sqrt()
    walk_BSC = torch.randn_like(known_BSC).cumsum(dim=1)
    walk_BSC = walk_BSC - walk_BSC.mean(dim=1, keepdim=True)
    unit_BSC = walk_BSC / walk_BSC.std(dim=1, keepdim=True, unbiased=False).clamp(min=1e-12)
    return (mean_B1C + deviation_B1C * unit_BSC).masked_fill(~there_BSC, torch.nan)


def _as_strong(made: Tensor, rows: Tensor) -> Tensor:
    """Give each made row the mean and deviation of its row, at least a tenth of the range."""
    axes = tuple(range(1, made.dim()))
    rows = rows.float()
    centred = made - made.mean(dim=axes, keepdim=True)
    unit = centred / centred.std(dim=axes, keepdim=True, unbiased=False).clamp(min=1e-12)
    deviation = rows.std(dim=axes, keepdim=True, unbiased=False).clamp(min=25.5)
    return rows.mean(dim=axes, keepdim=True) + deviation * unit


OUTLIERS: Final[Mapping[Kind, Callable[[Tensor], Tensor]]] = {
    "waveform": sound_outliers,
    "frames": picture_outliers,
    "flow": picture_outliers,
    "series": series_outliers,
}
