"""Section ``compute``: device, precision and compilation of stage 1. None of it changes what is exported."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dimml_training.config.base import Section


class ComputeConfig(Section):
    """Device and speed of stage 1. The number of processes is not set here, but by ``torchrun``."""

    accelerator: Literal["auto", "cpu", "gpu"] = Field(
        default="auto", description="'auto': the GPU where CUDA sees one, otherwise the CPU."
    )
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = Field(
        default="32-true",
        description="Precision of the encoders in training; spectrogram, losses, validation and the exported weights "
        "stay FP32. '16-mixed' needs a GPU.",
    )
    compile: bool = Field(
        default=False, description="Compile the encoders with torch.compile for training; needs a C++ compiler."
    )
    sync_batchnorm: bool = Field(
        default=False, description="Batch normalisation over the batches of all processes; GPUs only."
    )
