"""How long a training will take here: a few steps of it, measured, times their number."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from dimml.fusion import LEARNED
from dimml_training.config import Split, TrainConfig
from dimml_training.data.augment import augment
from dimml_training.data.loader import Batch, ClipRows, batches
from dimml_training.detached.encoders import DetachedEncoders
from dimml_training.distributed import ALONE
from dimml_training.fusion_selection.choose import MOST_TRAIN_CLIPS, choose_on
from dimml_training.fusion_selection.search import FEWEST_CLIPS
from dimml_training.lightning.encoder_module import build_optimiser
from dimml_training.lightning.trainer import training_device

#: Steps measured, after one that is not: the first builds kernels and buffers.
STEPS: Final = 3
#: Validation clips on which the choice of the fusion is measured.
CHOICE_CLIPS: Final = 4
#: Learning reliability beside the rest of the search, which goes without on ``CHOICE_CLIPS``: as a multiple of it, a
#: rough guess.
RELIABILITY_FACTOR: Final = 8.0
#: Lightning, the epoch's checkpoints and logs, seconds an epoch.
EPOCH_S: Final = 0.3
#: Imports, building, writing the run and its report.
FIXED_S: Final = 15.0


@dataclass(frozen=True)
class Estimate:
    """Seconds of each part of a training. ``epoch_s`` is one of ``stage1_s``."""

    decode_s: float
    stage1_s: float
    stage2_s: float
    choice_s: float
    epoch_s: float

    @property
    def seconds(self) -> float:
        """The whole."""
        return FIXED_S + self.decode_s + self.stage1_s + self.stage2_s + self.choice_s

    def as_text(self) -> str:
        """The whole in words, and its parts."""
        parts = (
            ("decoding", self.decode_s),
            ("stage 1", self.stage1_s),
            ("stage 2", self.stage2_s),
            ("choosing the fusion", self.choice_s),
        )
        return f"about {in_words(self.seconds)} ({', '.join(f'{name} {in_words(s)}' for name, s in parts)})"


def in_words(seconds: float) -> str:
    """A duration to two digits."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def estimate(
    config: TrainConfig,
    arrays: Mapping[str, npt.NDArray[Any]],
    clips: Mapping[Split, int],
    classes: int,
    *,
    seconds_per_clip: float,
) -> Estimate:
    """Measure steps of ``config`` on decoded rows, ``[N, *shape]`` by modality, and add up a training of ``clips``.

    Weights are from chance, which costs the same. ``seconds_per_clip`` is what decoding takes.
    """
    device = training_device(config.compute, ALONE)
    before = torch.get_num_threads()
    try:
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        return _measured(config, arrays, clips, classes, device=device, seconds_per_clip=seconds_per_clip)
    finally:
        torch.set_num_threads(before)


def _measured(
    config: TrainConfig,
    arrays: Mapping[str, npt.NDArray[Any]],
    clips: Mapping[Split, int],
    classes: int,
    *,
    device: torch.device,
    seconds_per_clip: float,
) -> Estimate:
    found = len(next(iter(arrays.values())))
    stage = config.stage1
    size = max(2, min(stage.batch_size, clips["train"]))
    slots = np.arange(size, dtype=np.int64) % found
    rows = ClipRows(arrays, slots, np.arange(size, dtype=np.int64) % classes)
    module = DetachedEncoders(config, classes, rows).to(device)
    # As after the warm-up, with half of the dimensions effective: the dearer part of the training, and the longer.
    module.separated.fill_(True)
    module.effective_MD[:, ::2] = True
    module.effective_MD[:1] = ~module.effective_MD[:1]
    optimiser = build_optimiser([p for p in module.parameters() if p.requires_grad], stage.optimiser)
    given = next(iter(batches(rows, size)))
    batch = Batch({name: tensor.to(device) for name, tensor in given.rows.items()}, given.labels_B.to(device))

    def step() -> None:
        corrupted = {m.input.name: augment(m.input, m.augment, batch.rows[m.input.name]) for m in config.modalities}
        loss = torch.stack(list(module.losses(batch._replace(rows=corrupted)).values())).sum()
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()

    @torch.no_grad()
    def forward() -> None:
        for name, tensor in batch.rows.items():
            module.encoder(name)(tensor)

    step_s = _seconds(step, device)
    module.eval()
    clip_s = _seconds(forward, device) / size
    steps = math.ceil(clips["train"] / size)
    epoch_s = steps * step_s + clips["validation"] * clip_s + EPOCH_S
    separations = 1 if len(module.names) > 1 else 0
    return Estimate(
        decode_s=sum(clips.values()) * seconds_per_clip,
        stage1_s=stage.epochs * epoch_s + separations * clips["train"] * clip_s,
        stage2_s=config.stage2.epochs * (clips["train"] * clip_s + 0.002 * steps) if config.fused_head else 0.0,
        choice_s=_choice_s(config, module.cpu(), arrays, clips, clip_s=clip_s),
        epoch_s=epoch_s,
    )


def _seconds(work: Callable[[], None], device: torch.device) -> float:
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(STEPS):
        work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - began) / STEPS


def _choice_s(
    config: TrainConfig,
    module: DetachedEncoders,
    arrays: Mapping[str, npt.NDArray[Any]],
    clips: Mapping[Split, int],
    *,
    clip_s: float,
) -> float:
    """Seconds of the choice of the fusion: encoding validation clips under every seen condition, and the search."""
    if config.fusion is not None:
        return 0.0
    found = len(next(iter(arrays.values())))
    slots = np.arange(CHOICE_CLIPS, dtype=np.int64) % found
    few = ClipRows(arrays, slots, np.arange(CHOICE_CLIPS, dtype=np.int64) % module.classes)
    width = sum(m.encoder.width for m in config.modalities)
    head = nn.Linear(width, module.classes).requires_grad_(False) if config.fused_head else None
    encoders = {name: module.encoder(name) for name in module.names}
    began = time.perf_counter()
    chosen = choose_on(config, encoders, head, train=few, validation=few)
    spent_s = time.perf_counter() - began
    search_s = min(float(chosen.report["seconds"]), spent_s)
    validation = min(clips["validation"], config.certainty.clips)
    learned = not set(LEARNED).isdisjoint(config.certainty.certainties) and validation >= FEWEST_CLIPS
    return (
        (spent_s - search_s) / CHOICE_CLIPS * validation
        + min(clips["train"], MOST_TRAIN_CLIPS) * clip_s
        + search_s * (RELIABILITY_FACTOR if learned else 1.0)
    )
