"""A training small enough to run in a second: recordings of two classes, and a config for them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dimml_training.config import TrainConfig, parse_config
from dimml_training.run.directory import load_run
from support.media_maker import Picture, tone, write_clip

BACKBONE = {"embedding_size": 4, "hidden_sizes": [4, 8], "depths": [1, 1], "stem": "strided"}
OPTIMISER = {"kind": "adamw", "lr": 0.01, "schedule": "cosine"}
CLASSES = {"low": (300, 6), "high": (1500, 24)}
#: Clips of each class, and what is added to their pitch so that no two splits share a recording.
SPLITS = {"train": (5, 0), "validation": (3, 13), "test": (3, 27)}


def stripes(wide: int) -> Picture:
    """Vertical stripes that drift from picture to picture."""

    def picture(index: int) -> npt.NDArray[np.uint8]:
        lit = ((np.arange(96) + 3 * index) // wide) % 2
        return np.broadcast_to((40 + 160 * lit)[None, :, None], (64, 96, 3)).astype(np.uint8)

    return picture


def write_clips(folder: Path) -> Path:
    """Two classes told apart by pitch and by stripes, cut from recordings of 0.8 s by a time range."""
    with (folder / "clips.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["media", "label", "split", "subject", "start_s", "end_s"])
        for split, (each, higher_hz) in SPLITS.items():
            for label, (pitch_hz, wide) in CLASSES.items():
                for number in range(each):
                    name = f"{split}_{label}_{number}.mp4"
                    sound = tone(pitch_hz + 40 * number + higher_hz, 0.2 + 0.05 * number)
                    write_clip(folder / name, 0.8, sound=sound, picture=stripes(wide + number))
                    table.writerow([name, label, split, f"{label}{number}", 0.2, 0.7])
    return folder / "clips.csv"


def document(manifest: Path, **stage1: Any) -> dict[str, Any]:
    columns = {"subject": "subject", "start_s": "start_s", "end_s": "end_s"}
    return {
        "name": "stripes",
        "clip_s": 0.5,
        "threads": 1,
        # The margin reaches past the end of the recording, where it must stop.
        "data": {"manifest": str(manifest), "columns": columns, "margin_s": 0.3},
        "modalities": [
            {
                "input": {"kind": "waveform", "name": "audio", "sample_rate_hz": 8000, "samples": 4000},
                "encoder": {"backbone": BACKBONE, "spectrogram": {"mels": 16, "mask_time": 0.2}, "dropout": 0.1},
                "augment": {"noise_probability": 0.5, "shift_ms": 5},
            },
            {
                "input": {"kind": "frames", "name": "visual", "frames": 3, "height": 24, "width": 24},
                "encoder": {"backbone": BACKBONE, "pooling": {"kind": "temporal_conv", "dropout": 0.1}},
                "augment": {"shift": 0.1, "brightness": 10},
            },
        ],
        "stage1": {"epochs": 4, "warmup_epochs": 1, "batch_size": 4, "optimiser": OPTIMISER, **stage1},
        "stage2": {"epochs": 2, "optimiser": OPTIMISER},
        "fusion": {"fused_head": True},
    }


def configured(manifest: Path, **stage1: Any) -> TrainConfig:
    return parse_config(document(manifest, **stage1), "test")


def weights(out: Path) -> dict[str, torch.Tensor]:
    run = load_run(out)
    assert run.fused_head is not None
    modules: dict[str, torch.nn.Module] = {**run.encoders, "shared": run.shared_head, "fused": run.fused_head}
    return {f"{name}.{key}": value for name, module in modules.items() for key, value in module.state_dict().items()}


def epochs(out: Path) -> list[dict[str, str]]:
    with (out / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))
