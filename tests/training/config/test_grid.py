"""The GRID config against the real recordings, a few of them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from dimml_training.config import load_config
from dimml_training.data.prepare import prepare, quality_report
from support.data import REPOSITORY_ROOT, shared_data


def test_the_grid_config_cuts_the_digit_and_the_mouth(tmp_path: Path) -> None:
    grid = shared_data("grid_s1")
    with (grid / "labels.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    # Two clips of each digit for training, one for the other splits.
    wanted = [
        line
        for split, each in (("train", 2), ("validation", 1), ("test", 1))
        for digit in sorted({line["digit"] for line in lines})
        for line in [x for x in lines if (x["split"], x["digit"]) == (split, digit)][:each]
    ]
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(wanted[0]))
        writer.writeheader()
        writer.writerows(wanted)
    config = load_config(
        REPOSITORY_ROOT / "training" / "configs" / "grid_digit.yaml",
        [f"data.manifest={tmp_path / 'labels.csv'}", f"data.media_root={grid / 'clips'}"],
    )
    data = prepare(config, tmp_path / "cache")
    assert data.warnings == []
    assert data.labels[:3] == ("zero", "one", "two")
    assert {split: len(found.rows) for split, found in data.splits.items()} == {
        "train": 20,
        "validation": 10,
        "test": 10,
    }
    train = data.splits["train"]
    assert sorted(train.rows.labels.tolist()) == sorted([*range(10)] * 2)
    for clip in train.clips:
        assert clip.start_s is not None
        assert clip.end_s is not None
        assert clip.end_s - clip.start_s >= config.clip_s
    sound, lips = train.rows.rows("audio", slice(None)), train.rows.rows("visual", slice(None))
    # The range is full of sound (the middle of a padded row would not be), and the lips move in it.
    assert np.abs(sound[:, -1600:]).max(axis=1).min() > 1e-3
    assert np.abs(np.diff(lips.astype(np.int16), axis=1)).mean(axis=(1, 2, 3, 4)).min() > 0.5
    # Skin and mouth, not background or shirt: redder than blue in every clip.
    assert (lips[..., 0].mean(axis=(1, 2, 3)) > lips[..., 2].mean(axis=(1, 2, 3)) + 20).all()
    report = quality_report(config, train.rows)
    assert not any(report["audio"]["false_alarms"].values())
    assert not any(report["visual"]["false_alarms"].values())
