"""A training run as training writes it, whose encoders have seen a few batches and learned nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from dimml.modality import Flow, Frames, Waveform
from dimml_training.config import parse_config
from dimml_training.models.encoder import build_encoder
from dimml_training.models.joint_head import build_joint_head
from dimml_training.run.directory import write_run

LABELS = ("nought", "one", "two", "three")
BACKBONE = {"embedding_size": 4, "hidden_sizes": [4, 8], "depths": [1, 1], "stem": "strided"}
CONFIG: dict[str, Any] = {
    "name": "tones",
    "seed": 1,
    "clip_s": 0.5,
    "data": {"manifest": "clips.csv"},
    "modalities": [
        {
            "input": {"kind": "waveform", "name": "audio", "sample_rate_hz": 8000, "samples": 4000},
            "encoder": {"backbone": BACKBONE, "spectrogram": {"mels": 16, "mask_time": 0.2}, "dropout": 0.1},
        },
        {
            "input": {"kind": "frames", "name": "visual", "frames": 3, "height": 24, "width": 24},
            "encoder": {"backbone": BACKBONE, "grey": True, "normalise": "clip", "pooling": {"kind": "temporal_conv"}},
        },
    ],
    "stage1": {"epochs": 2, "warmup_epochs": 1},
}


def rows(modality: Waveform | Frames | Flow, count: int) -> Any:
    rng = np.random.default_rng(5)
    if isinstance(modality, Waveform):
        return (0.3 * rng.standard_normal((count, *modality.shape))).astype(np.float32)
    return rng.integers(0, 256, (count, *modality.shape), dtype=np.uint8)


def make_run(folder: Path, document: dict[str, Any] | None = None, alarms: dict[str, int] | None = None) -> Path:
    """A run as training writes it; its encoders have seen a few batches, so their batch statistics are real ones."""
    config = parse_config(document or CONFIG, "test")
    torch.manual_seed(config.seed)
    encoders: dict[str, nn.Module] = {}
    samples = {}
    for modality in config.inputs:
        encoder = build_encoder(modality, config.encoders[modality.name], len(LABELS))
        samples[modality.name] = rows(modality, 10)
        for _ in range(3):
            encoder(torch.from_numpy(samples[modality.name]))
        encoders[modality.name] = encoder
    width = config.encoders[config.inputs[0].name].backbone.hidden_sizes[-1]
    joint = config.stage1.objective == "joint"
    write_run(
        folder,
        config=config,
        labels=LABELS,
        encoders=encoders,
        shared_head=nn.Linear(width, len(LABELS)),
        fused_head=nn.Linear(width * len(encoders), len(LABELS)) if config.fused_head else None,
        joint_head=build_joint_head("concat", [width] * len(encoders), len(LABELS)) if joint else None,
        samples=samples,
        sample_labels=np.arange(10) % len(LABELS),
        metrics={"test": {"fused": 0.25}},
        epochs=[],
        quality_report={
            "clips": 10,
            **{name: {"false_alarms": {"silent": 0, "frozen": 0, **(alarms or {})}} for name in encoders},
        },
        training={"seed": config.seed, "warnings": []},
    )
    return folder


def alone(modality: dict[str, Any]) -> dict[str, Any]:
    """The config with one modality only."""
    return {**CONFIG, "modalities": [modality]}
