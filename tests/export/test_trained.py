"""From recordings through training to a bundle, with nothing in between made up."""

from __future__ import annotations

import csv
from decimal import Decimal
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from dimml.modality import patterns_of
from dimml.prediction_sets.thresholds import PredictionSets, in_set
from dimml.repository import load_bundle
from dimml.request_parameters import Abstention
from dimml_export.export import export_run
from dimml_server.local import LocalPredictor
from dimml_training.config import parse_config
from dimml_training.data.prepare import prepare
from dimml_training.evaluation.heads import head_logits
from dimml_training.fusion_selection.held_out import HeldOutFusions, pattern_answers
from dimml_training.loop.prediction_sets import calibrate_sets
from dimml_training.loop.train import train
from dimml_training.run.directory import load_run
from support.media_maker import Picture, tone, write_clip

BACKBONE = {"embedding_size": 4, "hidden_sizes": [4, 8], "depths": [1, 1], "stem": "strided"}
OPTIMISER = {"kind": "adamw", "lr": 0.01}


def stripes(wide: int) -> Picture:
    """Vertical stripes that drift from picture to picture."""

    def picture(index: int) -> npt.NDArray[np.uint8]:
        lit = ((np.arange(96) + 3 * index) // wide) % 2
        return np.broadcast_to((40 + 160 * lit)[None, :, None], (64, 96, 3)).astype(np.uint8)

    return picture


def make_clips(folder: Path) -> Path:
    folder.mkdir()
    with (folder / "clips.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["media", "label", "split"])
        # No clip is another's double: a clip that stands in two splits is refused.
        for offset, (split, each) in enumerate((("train", 4), ("validation", 2), ("test", 2))):
            for label, (pitch_hz, wide) in {"low": (300, 6), "high": (1500, 24)}.items():
                for number in range(each):
                    name = f"{split}_{label}_{number}.mp4"
                    sound = tone(pitch_hz + 10 * number + 3 * offset, 0.2 + 0.05 * number)
                    write_clip(folder / name, 0.6, sound=sound, picture=stripes(wide + number))
                    table.writerow([name, label, split])
    return folder / "clips.csv"


@pytest.mark.slow(reason="trains and exports")
def test_a_trained_run_becomes_a_bundle(tmp_path: Path) -> None:
    config = parse_config(
        {
            "name": "stripes",
            "clip_s": 0.5,
            "threads": 1,
            "data": {"manifest": str(make_clips(tmp_path / "clips"))},
            "modalities": [
                {
                    "input": {"kind": "waveform", "name": "audio", "sample_rate_hz": 8000, "samples": 4000},
                    "encoder": {"backbone": BACKBONE, "spectrogram": {"mels": 16}},
                },
                {
                    "input": {"kind": "frames", "name": "visual", "frames": 3, "height": 24, "width": 24},
                    "encoder": {"backbone": BACKBONE, "pooling": {"kind": "temporal_conv"}},
                },
            ],
            "stage1": {"epochs": 3, "warmup_epochs": 1, "batch_size": 4, "optimiser": OPTIMISER},
            "stage2": {"epochs": 2, "optimiser": OPTIMISER},
        },
        "test",
    )
    metrics = train(config, tmp_path / "run", cache_dir=tmp_path / "cache")
    sets = calibrate_sets(tmp_path / "run", Decimal("0.75"), cache_dir=tmp_path / "cache").sets
    exported = export_run(tmp_path / "run", tmp_path / "models", abstain=Abstention(max_set_size=1))
    bundle = load_bundle(tmp_path / "models", "stripes")
    assert bundle == exported.bundle
    assert bundle.labels == ("high", "low")
    assert bundle.metrics["test"] == metrics["test"]
    assert bundle.training["clips"] == {"train": 8, "validation": 4, "test": 4}
    assert bundle.training["config"]["name"] == "stripes"
    assert exported.warnings == []
    assert bundle.prediction_sets == sets.model_copy(update={"max_set_size": 1})
    served_sets_are_those_of_the_evaluation(tmp_path, sets)
    # The reference is the validation clips': their answers, and each head's certainty in bins around its mean.
    reference, validation = bundle.reference, metrics["validation"]
    assert reference is not None
    assert reference.labels == tuple(np.sum(validation["confusion"], axis=0))
    assert set(reference.certainty) == set(bundle.heads)
    bounds = np.array([0.0, *reference.certainty_bounds])
    for head, counts in reference.certainty.items():
        low, high = np.average(bounds[:-1], weights=counts), np.average(bounds[1:], weights=counts)
        assert sum(counts) == 4
        assert low <= validation["heads"][head]["mean_certainty"] <= high + 1e-6
    assert {parity.clips for parity in exported.parity} == {len(load_run(tmp_path / "run").sample_labels)} == {4}


def served_sets_are_those_of_the_evaluation(folder: Path, sets: PredictionSets) -> None:
    """Every test clip, with both modalities and with each alone, in torch and numpy against the exported bundle."""
    run = load_run(folder / "run")
    data = prepare(run.config, folder / "cache", labels=run.labels).splits["test"]
    votes = head_logits(run.encoders, run.voting_fused_head, run.modalities, data.rows, run.quality)
    alone = HeldOutFusions(np.full(len(data.rows), -1), (), (run.fusion, run.fusion_parameters))
    with LocalPredictor(folder / "models", decode_workers=1) as served:
        for pattern in patterns_of(("audio", "visual")):
            evaluated = pattern_answers(votes, ("audio", "visual"), pattern, alone).probabilities_KC
            inside = in_set(evaluated, np.full(len(evaluated), sets.thresholds[pattern]))
            for clip, probabilities, wanted in zip(data.clips, evaluated, inside, strict=True):
                answer = served.predict(clip.media["audio"], modalities=pattern)
                ranked = np.argsort(-probabilities, kind="stable")
                assert answer.set == [run.labels[i] for i in ranked if wanted[i]]
                assert answer.abstained == (wanted.sum() > 1)
