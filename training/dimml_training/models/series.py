"""Encoder of a series: normalised per channel, then convolutions over time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dimml.modality import Series
from dimml_training.models.backbone_config import ResNetBackboneConfig
from dimml_training.models.config import SeriesEncoderConfig

#: Standard deviations from the training mean beyond which a value says no more.
MOST_DEVIATIONS = 10.0
#: Larger than any value; NaN and infinity do not compare below it.
_LARGEST = 3.0e38


class SeriesEmbedding(nn.Module):
    """FP32 series ``[B, S, C]``, NaN where a value is missing, to features ``[B, D]``.

    ``z = (x - mean_c) / deviation_c`` with the statistics of the training clips (``measure``), cut to
    ± ``MOST_DEVIATIONS``, and 0 for a missing value. Beside the C channels stand C others, 1 where a value is there.
    """

    def __init__(self, series: Series, config: SeriesEncoderConfig, *, weights: bool) -> None:
        super().__init__()
        if not isinstance(config.backbone, ResNetBackboneConfig):
            raise TypeError("a series without backbone.input: raw takes a backbone of kind resnet")
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", torch.zeros(series.channels))
        self.register_buffer("deviation", torch.ones(series.channels))
        self.backbone = SeriesResNet(2 * series.channels, config.backbone, config.kernel)
        width = config.backbone.hidden_sizes[-1]
        self.projection = nn.Identity() if width == config.width else nn.Linear(width, config.width)

    @torch.no_grad()
    def measure(self, batches: Iterable[npt.NDArray[Any]]) -> None:
        """Take each channel's mean and standard deviation from training rows, in batches ``[N, S, C]``.

        A channel without values, or with one value only, is not scaled.
        """
        count_C = np.zeros(len(self.mean))
        sum_C, square_C = np.zeros_like(count_C), np.zeros_like(count_C)
        for rows_NSC in batches:
            there = np.isfinite(rows_NSC)
            known = np.where(there, rows_NSC, 0.0).astype(np.float64)
            count_C += there.sum(axis=(0, 1))
            sum_C += known.sum(axis=(0, 1))
            square_C += np.square(known).sum(axis=(0, 1))
        count_C = np.maximum(count_C, 1.0)
        mean_C = sum_C / count_C
        deviation_C = np.sqrt(np.maximum(square_C / count_C - mean_C**2, 0.0))
        deviation_C[deviation_C <= 1e-6 * np.abs(mean_C)] = 1.0
        self.mean.copy_(torch.from_numpy(mean_C))
        self.deviation.copy_(torch.from_numpy(np.where(deviation_C > 0.0, deviation_C, 1.0)))

    def forward(self, series_BSC: Tensor) -> Tensor:
        """Features ``[B, D]``."""
        there_BSC = series_BSC.abs() <= _LARGEST
        scaled_BSC = (series_BSC - self.mean) / self.deviation
        scaled_BSC = torch.where(there_BSC, scaled_BSC, torch.zeros_like(scaled_BSC))
        scaled_BSC = scaled_BSC.clamp(-MOST_DEVIATIONS, MOST_DEVIATIONS)
        channels_BCS = torch.cat([scaled_BSC, there_BSC.to(scaled_BSC.dtype)], dim=2).transpose(1, 2)
        features_BD: Tensor = self.projection(self.backbone(channels_BCS))
        return features_BD


class SeriesResNet(nn.Module):
    """A ResNet of convolutions over time, FP32 ``[B, channels, S]`` to globally averaged features ``[B, D]``.

    He et al., "Deep residual learning for image recognition" (2016), along one axis, as in Wang, Yan and Oates, "Time
    series classification from scratch with deep neural networks" (2017). Fields as of a ResNet on pictures.
    """

    def __init__(self, channels: int, config: ResNetBackboneConfig, kernel: int) -> None:
        super().__init__()
        width = config.embedding_size
        size, stride = {"imagenet": (7, 2), "strided": (5, 2), "plain": (kernel, 1)}[config.stem]
        self.stem = nn.Sequential(_convolution(channels, width, size, stride), nn.BatchNorm1d(width), nn.ReLU())
        if config.stem == "imagenet":
            self.stem.append(nn.MaxPool1d(3, 2, padding=1))
        blocks: list[nn.Module] = []
        for stage, (size, depth) in enumerate(zip(config.hidden_sizes, config.depths, strict=True)):
            for place in range(depth):
                blocks.append(_Block(width, size, kernel, 2 if stage > 0 and place == 0 else 1))
                width = size
        self.blocks = nn.Sequential(*blocks)

    def forward(self, channels_BCS: Tensor) -> Tensor:
        """Features ``[B, D]``."""
        hidden_BDS: Tensor = self.blocks(self.stem(channels_BCS))
        return hidden_BDS.mean(dim=2)


class _Block(nn.Module):
    def __init__(self, before: int, width: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(_convolution(before, width, kernel, stride), nn.BatchNorm1d(width), nn.ReLU())
        self.second = nn.Sequential(_convolution(width, width, kernel, 1), nn.BatchNorm1d(width))
        self.stride = stride
        # The stride is taken by slicing: see ``narrow_convolution``.
        same = before == width and stride == 1
        self.shortcut = (
            nn.Identity() if same else nn.Sequential(_convolution(before, width, 1, 1), nn.BatchNorm1d(width))
        )

    def forward(self, hidden_BDS: Tensor) -> Tensor:
        through_BDS: Tensor = self.second(self.first(hidden_BDS))
        return torch.relu(through_BDS + self.shortcut(hidden_BDS[..., :: self.stride]))


def _convolution(before: int, after: int, kernel: int, stride: int) -> nn.Conv1d:
    convolution = nn.Conv1d(before, after, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return convolution
