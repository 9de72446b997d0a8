"""A fusion fitted again: the same numbers for the same encoders, and the best ones for others, by trying many."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dimml_training.config import parse_config
from dimml_training.corruptions.encoding import encode_conditions
from dimml_training.data.loader import ClipRows
from dimml_training.fusion_selection.choose import choice_conditions
from dimml_training.fusion_selection.condition_rows import rows_of
from dimml_training.fusion_selection.cross_fit import row_weights
from dimml_training.loop.other_encoders import answers_of, refitted, run_clips
from dimml_training.loop.train import train
from dimml_training.run.directory import TrainedRun, load_run
from support.tiny_training import document


class Hotter(nn.Module):
    """An encoder whose logits are five times too large, in the place of one that was quantised badly."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, tensor: Tensor) -> tuple[Tensor, Tensor]:
        features, logits = self.encoder(tensor)
        return features, 5 * logits


Chosen = tuple[Path, TrainedRun, dict[Any, ClipRows]]


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory, clips: Path, cache: Path) -> Chosen:
    """A run with a chosen fusion of calibrated heads, and its clips."""
    wanted: dict[str, Any] = document(clips)
    wanted |= {"certainty": {"draws": 1, "temperatures": [], "poolings": ["product"], "certainties": ["max_prob"]}}
    del wanted["fusion"]
    folder = tmp_path_factory.mktemp("chosen") / "run"
    train(parse_config(wanted, "test"), folder, cache_dir=cache)
    run = load_run(folder)
    rows, same = run_clips(folder, run, cache_dir=cache)
    assert same
    return folder, run, dict(rows)


def again(chosen: Chosen, encoders: dict[str, nn.Module], most: int = 400) -> Any:
    _, run, rows = chosen
    return refitted(run, encoders, train=rows["train"], validation=rows["validation"], most_clips=most)


def test_the_runs_own_encoders_give_the_runs_own_fusion(chosen: Chosen) -> None:
    run = chosen[1]
    spec, parameters = again(chosen, run.encoders)
    found, wanted = spec.model_dump(), run.fusion.model_dump()
    assert found.pop("head_temperatures") == pytest.approx(wanted.pop("head_temperatures"))
    assert found == pytest.approx(wanted)
    assert parameters.arrays() == {}


def test_temperatures_are_the_likeliest_for_the_new_logits(chosen: Chosen) -> None:
    folder, run, rows = chosen
    heads = 3 if run.fusion.fused_head else 2
    calibrated = run.fusion.model_copy(update={"pooling": "product", "head_temperatures": (9.0,) * heads})
    run = replace(run, fusion=calibrated)
    hotter: dict[str, nn.Module] = {**run.encoders, "audio": Hotter(run.encoders["audio"])}
    spec, _ = again((folder, run, rows), hotter)
    suite = choice_conditions(run.config)
    encoded = encode_conditions(
        hotter, run.config.inputs, rows["validation"], suite, run.config.quality, seed=run.config.seed
    )
    seen = rows_of(encoded, run.voting_fused_head, suite, draws=1)
    weights_R = row_weights(seen)
    there_R = seen.present_RH[:, 0]
    logits, labels = seen.logits_RHC[there_R, 0].astype(np.float64), seen.labels_R[there_R]
    tried = np.geomspace(0.2, 20, 4001)
    losses = []
    for temperature in tried:
        log_p = torch.log_softmax(torch.from_numpy(logits / temperature), dim=1).numpy()
        losses.append(-(weights_R[there_R] * log_p[np.arange(len(labels)), labels]).sum())
    assert spec.head_temperatures is not None
    assert spec.head_temperatures[0] == pytest.approx(tried[int(np.argmin(losses))], rel=5e-3)
    own, _ = again((folder, run, rows), run.encoders)
    assert own.head_temperatures is not None
    assert spec.head_temperatures[1] == own.head_temperatures[1] != 9.0


def test_a_learned_reliability_is_learned_from_the_new_encoders(chosen: Chosen) -> None:
    folder, run, rows = chosen
    learned = run.fusion.model_copy(update={"certainty": "reliability", "fused_head": True, "head_temperatures": None})
    run = replace(run, fusion=learned)
    found = [again((folder, run, rows), encoders)[1] for encoders in (run.encoders, _hotter(run))]
    for parameters in found:
        assert len(parameters.reliability) == 3
    own, others = (parameters.arrays() for parameters in found)
    # Features are the same and so are the class means; the statistics of logits are not.
    np.testing.assert_array_equal(own["reliability.0.whitened_means_CD"], others["reliability.0.whitened_means_CD"])
    assert np.abs(own["reliability.0.offset_K"] - others["reliability.0.offset_K"]).max() > 0.01


def _hotter(run: TrainedRun) -> dict[str, nn.Module]:
    return {name: Hotter(encoder) for name, encoder in run.encoders.items()}


def test_a_fusion_that_the_config_fixes_stays(finished: Path, cache: Path) -> None:
    run = load_run(finished)
    rows, _ = run_clips(finished, run, cache_dir=cache)
    hotter = {name: Hotter(encoder) for name, encoder in run.encoders.items()}
    spec, parameters = refitted(run, hotter, train=rows["train"], validation=rows["validation"], most_clips=8)
    assert (spec, parameters) == (run.fusion, run.fusion_parameters)


def test_answers_are_those_that_training_noted(finished: Path, cache: Path) -> None:
    run = load_run(finished)
    rows, _ = run_clips(finished, run, cache_dir=cache)
    _, fused = answers_of(run, run.encoders, rows["test"], run.fusion, run.fusion_parameters)
    assert (fused.logits_BC.argmax(axis=1) == rows["test"].labels).mean() == run.metrics["test"]["accuracy"]


def test_other_clips_than_those_of_the_training_are_noticed(finished: Path, cache: Path, tmp_path: Path) -> None:
    # A copy: other tests read what the shared run noted of its data.
    spoilt = Path(shutil.copytree(finished, tmp_path / "run"))
    run = load_run(spoilt)
    (spoilt / "data.sha256").write_text("0" * 64)
    assert not run_clips(spoilt, run, cache_dir=cache)[1]
    (spoilt / "data.sha256").unlink()
    assert run_clips(spoilt, run, cache_dir=cache)[1], "a run that noted none"
