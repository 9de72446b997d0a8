"""Section ``compute``: on what, and how precisely, stage 1 is trained. None of it changes what is exported."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dimml_training.config.base import Section


class ComputeConfig(Section):
    """Device and speed of stage 1. How many processes there are is said by ``torchrun`` alone."""

    accelerator: Literal["auto", "cpu", "gpu"] = Field(
        default="auto", description="'auto': the GPU where CUDA sees one, otherwise the CPU."
    )
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = Field(
        default="32-true",
        description="Of the encoders' arithmetic in training; spectrogram, losses, validation and the exported weights "
        "stay FP32. '16-mixed' needs a GPU.",
    )
    compile: bool = Field(
        default=False, description="Encoders go through torch.compile for training; needs a C++ compiler."
    )
    sync_batchnorm: bool = Field(
        default=False, description="Batch normalisation sees the batches of all processes; GPUs only."
    )
