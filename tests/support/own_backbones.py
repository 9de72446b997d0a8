"""Backbones as a user would bring them along, and some that do not do what they should."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class TwoConvolutions(nn.Module):
    """Pictures ``[N, channels, H, W]`` to features ``[N, width]``."""

    def __init__(self, channels: int, width: int = 6) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride=2), nn.ReLU(), nn.Conv2d(width, width, 3), nn.ReLU()
        )

    def forward(self, pictures: Tensor) -> Tensor:
        features: Tensor = self.layers(pictures).mean(dim=(2, 3))
        return features


class Energies(nn.Module):
    """Waveforms ``[B, samples]`` to the logarithm of their power in ``parts`` stretches of time."""

    def __init__(self, parts: int) -> None:
        super().__init__()
        self.parts = parts
        self.scale = nn.Linear(parts, parts)

    def forward(self, waveforms: Tensor) -> Tensor:
        energies: Tensor = self.scale((waveforms.unflatten(1, (self.parts, -1)).square().mean(dim=2) + 1e-6).log())
        return energies


class OnePerBatch(nn.Module):
    """Forgets the batch."""

    def forward(self, pictures: Tensor) -> Tensor:
        return pictures.mean(dim=(0, 2, 3))


class Undecided(nn.Module):
    """Branches on a value, which no exported graph can."""

    def forward(self, pictures: Tensor) -> Tensor:
        means = pictures.mean(dim=(2, 3))
        return means if float(means.sum()) > 0.0 else torch.zeros_like(means)


def a_number() -> int:
    """No module."""
    return 3
