"""Workaround that applies the stride of narrow 1x1 convolutions before them, by slicing.

A oneDNN kernel of torch 2.13 has corrupted memory in training on CPUs without AVX-512, in the weight gradient of such
convolutions; a ResNet's shortcut is one. Neither their layout nor the kernel can be chosen from here (``torch.compile``
chooses the layout by itself), but with the stride taken beforehand another kernel runs, with the same result.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn

#: Convolutions with at least this many input channels are not changed.
SAFE_CHANNELS = 8


def guard_narrow_convolutions(module: nn.Module) -> None:
    """Make every such convolution in ``module`` slice its input first; names, weights and results stay the same."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d) and _narrow(part):
            part.register_forward_pre_hook(partial(_every, part.stride))
            part.stride = (1, 1)


def _narrow(convolution: nn.Conv2d) -> bool:
    pointwise = convolution.kernel_size == (1, 1) and convolution.padding in ((0, 0), "valid")
    narrow = convolution.in_channels // convolution.groups < SAFE_CHANNELS
    return pointwise and narrow and convolution.stride != (1, 1)


def _every(step: tuple[int, ...], _: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(value[..., :: step[0], :: step[1]] if isinstance(value, Tensor) else value for value in inputs)
