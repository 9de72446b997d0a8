"""Keeps narrow strided 1x1 convolutions out of a oneDNN kernel that writes past its memory.

torch 2.13 on a CPU without AVX-512: the gradient of the weight of a 1x1 convolution with a stride and fewer than 8
input channels, in channels-last layout, corrupts the heap (kernel ``jit_1x1:avx2 backward_weights``; seen with 3, 4, 6
and 7 channels, not with 8 or more, nor in NCHW). A ResNet's shortcut is such a convolution.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

#: Lanes of an AVX2 register of FP32.
SAFE_CHANNELS = 8


def guard_narrow_convolutions(module: nn.Module) -> None:
    """Have every such convolution in ``module`` computed in NCHW; names, weights and results stay what they are."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d) and _narrow(part):
            part.register_forward_pre_hook(_in_nchw)


def _narrow(convolution: nn.Conv2d) -> bool:
    pointwise = convolution.kernel_size == (1, 1) and convolution.stride != (1, 1)
    return pointwise and convolution.in_channels // convolution.groups < SAFE_CHANNELS


def _in_nchw(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(value.contiguous() if isinstance(value, Tensor) else value for value in inputs)
