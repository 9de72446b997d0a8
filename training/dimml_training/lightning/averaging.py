"""Exponential moving average of a module's weights and batch statistics, kept beside the module."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Averages:
    """Averages of all floating-point entries of a module's state.

    The decay starts low, ``(1 + n) / (10 + n)`` at the n-th update at most, so that the first weights do not linger.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.values: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take in the module's present state."""
        self.updates += 1
        share = 1.0 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, value in _floating(module).items():
            if name in self.values:
                self.values[name].lerp_(value, share)
            else:
                self.values[name] = value.detach().clone()

    @torch.no_grad()
    def swap(self, module: nn.Module) -> None:
        """Exchange the module's state with the averages, in place; a second call undoes it."""
        for name, value in _floating(module).items():
            if name in self.values:
                own = value.clone()
                value.copy_(self.values[name])
                self.values[name].copy_(own)

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        return {"updates": self.updates, "values": {name: value.clone() for name, value in self.values.items()}}

    def load(self, state: dict[str, Any], device: torch.device) -> None:
        """Restore what a checkpoint holds."""
        self.updates = int(state["updates"])
        self.values = {name: value.to(device) for name, value in state["values"].items()}


def _floating(module: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in module.state_dict().items() if value.is_floating_point()}
