"""Pooling of one feature vector per frame to one per clip."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dimml_training.models.config import MeanPoolingConfig, PoolingConfig, TemporalConvPoolingConfig


class MeanPooling(nn.Module):
    """Mean over frames, ``[B, T, D]`` to ``[B, D]``."""

    def forward(self, features_BTD: Tensor) -> Tensor:
        """Features ``[B, D]``."""
        return features_BTD.mean(dim=1)


class TemporalConvPooling(nn.Module):
    """Order-sensitive pooling, ``[B, T, D]`` to ``[B, D]``, by dilated residual convolutions over time."""

    def __init__(self, frames: int, width: int, config: TemporalConvPoolingConfig) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.zeros(frames, width))
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.Conv1d(width, width, config.kernel, padding="same", dilation=2**index, bias=False),
                nn.BatchNorm1d(width),
                nn.ReLU(),
                nn.Dropout1d(config.dropout),
            )
            for index in range(config.layers)
        )

    def forward(self, features_BTD: Tensor) -> Tensor:
        """Features ``[B, D]``."""
        hidden_BDT = (features_BTD + self.position).transpose(1, 2)
        for layer in self.layers:
            hidden_BDT = hidden_BDT + layer(hidden_BDT)
        return hidden_BDT.mean(dim=2)


def build_pooling(frames: int, width: int, config: PoolingConfig) -> nn.Module:
    """Build the pooling that ``config`` names, for clips of ``frames`` feature vectors of ``width``."""
    if isinstance(config, MeanPoolingConfig):
        return MeanPooling()
    return TemporalConvPooling(frames, width, config)
