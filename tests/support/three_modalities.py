"""A config of sound, pictures and flow with the smallest of encoders, and random clips for it."""

from __future__ import annotations

import numpy as np
import torch

from dimml_training.config import TrainConfig, parse_config
from dimml_training.data.loader import ClipRows

BACKBONE = {"embedding_size": 4, "hidden_sizes": [4, 8], "depths": [1, 1], "stem": "plain"}


def three_modalities(**stage1: object) -> TrainConfig:
    return parse_config(
        {
            "name": "three",
            "clip_s": 0.25,
            "data": {"manifest": "none.csv"},
            "modalities": [
                {
                    "input": {"kind": "waveform", "name": "audio", "sample_rate_hz": 8000, "samples": 2000},
                    "encoder": {"backbone": BACKBONE, "spectrogram": {"mels": 8}},
                },
                {
                    "input": {"kind": "frames", "name": "visual", "frames": 2, "height": 12, "width": 12},
                    "encoder": {"backbone": BACKBONE, "pooling": {"kind": "temporal_conv"}},
                },
                {
                    "input": {"kind": "flow", "name": "motion", "frames": 2, "height": 12, "width": 12},
                    "encoder": {"backbone": BACKBONE},
                },
            ],
            "stage1": {"epochs": 2, "warmup_epochs": 1, "duc_temperature": 5.0, **stage1},
        },
        "test",
    )


def batch_of(config: TrainConfig, batch: int) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(0)
    return {
        m.name: torch.from_numpy(
            rng.standard_normal((batch, *m.shape)).astype(np.float32) * 0.1
            if m.kind == "waveform"
            else rng.integers(0, 256, (batch, *m.shape), dtype=np.uint8)
        )
        for m in config.inputs
    }


def random_clips(config: TrainConfig, clips: int) -> ClipRows:
    arrays = {name: rows.numpy() for name, rows in batch_of(config, clips).items()}
    return ClipRows(arrays, np.arange(clips), np.arange(clips) % 3)


def state_of(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}
