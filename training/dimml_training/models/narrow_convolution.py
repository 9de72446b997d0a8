"""Keeps narrow strided 1x1 convolutions out of a oneDNN kernel that writes past its memory.

torch 2.13 on a CPU without AVX-512: the gradient of the weight of a 1x1 convolution with a stride and fewer than 8
input channels, in channels-last layout, corrupts the heap (kernel ``jit_1x1:avx2 backward_weights``; seen with 3, 4, 6
and 7 channels, not with 8 or more, nor without a stride). A ResNet's shortcut is such a convolution. Its layout cannot
be held: ``torch.compile`` chooses channels-last by itself. So the stride is taken before the convolution.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn

#: Lanes of an AVX2 register of FP32.
SAFE_CHANNELS = 8


def guard_narrow_convolutions(module: nn.Module) -> None:
    """Have every such convolution in ``module`` pick its pixels first; names, weights, results stay the same."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d) and _narrow(part):
            part.register_forward_pre_hook(partial(_every, part.stride))
            part.stride = (1, 1)


def _narrow(convolution: nn.Conv2d) -> bool:
    pointwise = convolution.kernel_size == (1, 1) and convolution.padding in ((0, 0), "valid")
    narrow = convolution.in_channels // convolution.groups < SAFE_CHANNELS
    return pointwise and narrow and convolution.stride != (1, 1)


def _every(step: tuple[int, int], _: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(value[..., :: step[0], :: step[1]] if isinstance(value, Tensor) else value for value in inputs)
