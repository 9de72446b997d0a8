"""Lightning's trainer for stage 1: device, precision and processes from config and ``torchrun``, without chatter."""

from __future__ import annotations

import io
import logging
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.strategies import DDPStrategy

from dimml.errors import ConfigurationError, SetupError
from dimml.system.files import write_atomically
from dimml_training.config import ComputeConfig, TrainConfig
from dimml_training.distributed import Ranks


def training_device(config: ComputeConfig, ranks: Ranks) -> torch.device:
    """Choose the device. Raises ConfigurationError or SetupError if this machine cannot do what ``config`` asks for."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if config.accelerator == "gpu" and gpus == 0:
        raise ConfigurationError("compute.accelerator: CUDA sees no GPU here; take cpu", field="compute.accelerator")
    on_gpu = gpus > 0 and config.accelerator != "cpu"
    if on_gpu and ranks.local_size > gpus:
        raise ConfigurationError(
            f"torchrun started {ranks.local_size} processes for {gpus} GPUs; start one for each, or set "
            "compute.accelerator: cpu",
            field="compute.accelerator",
        )
    if not on_gpu and config.precision == "16-mixed":
        raise ConfigurationError(
            "compute.precision: 16-mixed needs a GPU; a CPU has bf16-mixed and 32-true", field="compute.precision"
        )
    if not on_gpu and config.sync_batchnorm:
        raise ConfigurationError(
            "compute.sync_batchnorm needs GPUs: torch has it for CUDA alone", field="compute.sync_batchnorm"
        )
    if config.compile and not any(map(shutil.which, ("g++", "clang++", "c++"))):
        raise SetupError("compute.compile needs a C++ compiler, and there is no g++ or clang++; install one")
    return torch.device("cuda" if on_gpu else "cpu")


def check_shared(config: TrainConfig, ranks: Ranks) -> None:
    """Check that so many processes can share this training; raises ConfigurationError if not."""
    if ranks.size == 1:
        return
    stage = config.stage1
    if stage.batch_size % ranks.size or stage.batch_size < 2 * ranks.size:
        raise ConfigurationError(
            f"stage1.batch_size: {stage.batch_size} clips in a step cannot be shared evenly among {ranks.size} "
            f"processes with 2 or more each; take a multiple of {ranks.size}, {2 * ranks.size} at least",
            field="stage1.batch_size",
        )
    if stage.objective == "joint" and stage.joint.modulation != "none":
        raise ConfigurationError(
            f"stage1.joint.modulation: {stage.joint.modulation} balances the gradients of one process; train it "
            "without torchrun",
            field="stage1.joint.modulation",
        )


def build_trainer(
    config: TrainConfig,
    device: torch.device,
    ranks: Ranks,
    callbacks: Sequence[Callback],
    *,
    bar: bool,
    whole: bool = True,
) -> pl.Trainer:
    """Build a trainer for stage 1 without Lightning's own logging; use it within ``lightning_quiet``.

    ``whole`` says that every training clip has every modality. Raises ConfigurationError where one lacks some and
    batch statistics are shared within a step.
    """
    if config.compute.sync_batchnorm and not whole:
        raise ConfigurationError(
            "compute.sync_batchnorm: some clips lack a modality, and processes without rows of it in a step would be "
            "waited for; leave it out, or train on clips that have every modality",
            field="compute.sync_batchnorm",
        )
    strategy: str | DDPStrategy = "auto"
    if ranks.size > 1:
        own = all(m.encoder.backbone.kind == "resnet" for m in config.modalities)
        strategy = DDPStrategy(
            process_group_backend="nccl" if device.type == "cuda" else "gloo",
            # Running statistics are averaged once an epoch instead, before they are used.
            broadcast_buffers=False,
            # A model from elsewhere may have weights that do not take part, and a part of a batch no row of a modality.
            find_unused_parameters=not own or not whole,
        )
    return pl.Trainer(
        max_epochs=config.stage1.epochs,
        accumulate_grad_batches=config.stage1.accumulate,
        gradient_clip_val=config.stage1.optimiser.clip_norm,
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=ranks.local_size,
        num_nodes=ranks.machines,
        strategy=strategy,
        precision=config.compute.precision,
        sync_batchnorm=config.compute.sync_batchnorm,
        logger=False,
        callbacks=list(callbacks),
        plugins=[WholeCheckpoints()],
        enable_progress_bar=bar,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoint writer that never replaces a whole checkpoint by a partial one.

    It writes beside the destination and renames. Lightning writes to the system's temporary folder and copies, so that
    on a full disk half a checkpoint replaces the whole one before it.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint whole or not at all. Raises OSError."""
        whole = io.BytesIO()
        torch.save(checkpoint, whole)
        place = Path(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(place, whole.getbuffer())


@contextmanager
def lightning_quiet() -> Iterator[None]:
    """Silence those of Lightning's hints and warnings that do not apply here."""
    logs = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning.fabric", "lightning_fabric")]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # Lightning 2.6 uses torch's pytree in a way that torch 2.13 has deprecated.
        warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)`", module="pytorch_lightning")
        # Weights of 1x1 convolutions have two equivalent layouts; it costs no speed.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        for message in (
            # Batches are one gather from a memory map; worker processes would cost more than they bring.
            r"The '\w+' does not have many workers",
            # A resumed run finds its own checkpoints in the folder, as it should.
            r"Checkpoint directory .* exists and is not empty",
            # Small data sets have fewer batches than the default logging interval, but nothing is logged per step.
            r"The number of training batches .* is smaller than the logging interval",
            # compute.accelerator: cpu is a deliberate choice.
            r"GPU available but not used",
            # A batch of which no modality has two rows makes no step.
            r"`training_step` returned `None`",
        ):
            warnings.filterwarnings("ignore", message=message, module="pytorch_lightning")
        try:
            yield
        finally:
            for log, level in zip(logs, levels, strict=True):
                log.setLevel(level)
