"""A sensor that shakes slowly or fast, with a tone: clips, files and a config small enough to train in seconds."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from support.tiny_training import BACKBONE, OPTIMISER

IMU = {
    "kind": "series",
    "name": "imu",
    "channels": 3,
    "sample_rate_hz": 50,
    "samples": 50,
    "names": ["ax", "ay", "az"],
    "units": ["g", "g", "g"],
    "limits": [[-8, 8], [-8, 8], [-8, 8]],
}
SOUND = {"kind": "waveform", "name": "audio", "sample_rate_hz": 8000, "samples": 8000}
#: Of each class: how fast it shakes, its pitch.
CLASSES = {"slow": (2.0, 300.0), "fast": (9.0, 1500.0)}
SPLITS = {"train": 10, "validation": 4, "test": 4}


def shaken(label: str, number: int) -> npt.NDArray[np.float32]:
    """One second and a bit at 50 Hz, ``[60, 3]``: gravity on one axis, shaken on all."""
    rng = np.random.default_rng([number, len(label)])
    phase = rng.uniform(0, 2 * np.pi, 3)
    swing = np.sin(2 * np.pi * CLASSES[label][0] * np.arange(60)[:, None] / 50 + phase)
    return (swing + rng.standard_normal((60, 3)) * 0.1 + [0, 0, 1]).astype(np.float32)


def npy(array: npt.NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def text(array: npt.NDArray[Any]) -> bytes:
    lines = ["time_ms,az,ax,ay", *(f"{20 * n},{z!r},{x!r},{y!r}" for n, (x, y, z) in enumerate(array.tolist()))]
    return "\n".join(lines).encode()


def wav(array: npt.NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, array, 50, subtype="FLOAT", format="WAV")
    return buffer.getvalue()


def write_clips(folder: Path) -> None:
    """``clips.csv`` with two files a clip, and ``clips.parquet`` with the series in the table itself."""
    rows, numbers, number = [], [], 0
    for split, each in SPLITS.items():
        for label, (_, pitch_hz) in CLASSES.items():
            for _ in range(each):
                number += 1
                values = shaken(label, number)
                tone = 0.3 * np.sin(2 * np.pi * (pitch_hz + 7 * number) * np.arange(9600) / 8000)
                soundfile.write(folder / f"{number}.wav", tone, 8000)
                np.save(folder / f"{number}.npy", values)
                rows.append({"imu": f"{number}.npy", "audio": f"{number}.wav", "label": label, "split": split})
                numbers.append(values.tolist())
    with (folder / "clips.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    columns = {name: [row[name] for row in rows] for name in ("audio", "label", "split")}
    series = pa.array(numbers, pa.list_(pa.list_(pa.float32(), 3)))
    pq.write_table(pa.table({**columns, "imu": series}), folder / "clips.parquet")


def config(manifest: Path) -> dict[str, Any]:
    return {
        "name": "shaken",
        "clip_s": 1.0,
        "threads": 1,
        "data": {"manifest": str(manifest), "columns": {"media": {"imu": "imu", "audio": "audio"}}},
        "modalities": [
            {
                "input": IMU,
                "encoder": {"backbone": BACKBONE | {"stem": "plain"}, "dropout": 0.1},
                "augment": {"noise_probability": 0.5, "gap_probability": 0.3, "shift_ms": 40, "stretch": 0.05},
            },
            {"input": SOUND, "encoder": {"backbone": BACKBONE, "spectrogram": {"mels": 16}}},
        ],
        "stage1": {"epochs": 12, "warmup_epochs": 1, "batch_size": 4, "optimiser": OPTIMISER},
        "stage2": {"epochs": 2, "optimiser": OPTIMISER},
        "fusion": {"fused_head": True},
    }
