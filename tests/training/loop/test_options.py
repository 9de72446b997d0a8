"""Options of the config beyond the paper's recipe: class weights, smoothing, patience, clipping, averages, a start."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from dimml.errors import ConfigurationError, SetupError
from dimml_training.compare.plan import training_key
from dimml_training.config import LossConfig, OptimiserConfig, TrainConfig, parse_config
from dimml_training.data.loader import Batch, ClipRows
from dimml_training.detached.encoders import DetachedEncoders
from dimml_training.lightning.averaging import Averages
from dimml_training.lightning.class_weights import class_weights
from dimml_training.lightning.encoder_module import learning_rate
from dimml_training.loop.train import train
from dimml_training.run.directory import load_run
from support.three_modalities import batch_of, three_modalities
from support.tiny_training import OPTIMISER, document, epochs, weights

#: One step an epoch, as long as the gradient.
PLAIN = {"kind": "sgd", "lr": 1.0, "momentum": 0.0, "weight_decay": 0.0, "schedule": "constant"}


def options(clips: Path, **stage1: Any) -> TrainConfig:
    return parse_config(document(clips, **stage1), "test")


def stopped_at(text: str) -> Any:
    def stop(line: str) -> None:
        if text in line:
            raise SetupError("stopped")

    return stop


def test_the_rate_rises_and_then_falls() -> None:
    config = OptimiserConfig(lr=0.3, schedule="cosine", warmup_epochs=2)
    expected = [0.1, 0.2, *(0.15 * (1 + math.cos(math.pi * k / 4)) for k in range(4))]
    assert [learning_rate(config, epoch, 6) for epoch in range(6)] == pytest.approx(expected)
    constant = OptimiserConfig(lr=0.3, schedule="constant", warmup_epochs=1)
    assert [learning_rate(constant, epoch, 3) for epoch in range(3)] == pytest.approx([0.15, 0.3, 0.3])


def test_balanced_weights_are_scikit_learns_of_each_heads_clips() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 2, 2, 2])
    has = np.array([1, 1, 1, 1, 1, 1, 1, 0, 0], np.bool_)
    clips = ClipRows({}, np.arange(9), labels, {"audio": has})
    config = LossConfig(class_weights="balanced")
    for modality, own in (("audio", labels[has]), (None, labels), ("visual", labels)):
        expected = compute_class_weight("balanced", classes=np.arange(3), y=own)
        found = class_weights(config, "abc", clips, modality)
        assert found is not None
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)
    given = class_weights(LossConfig(class_weights={"b": 3.0}), "abc", clips, None)
    assert given is not None
    assert given.tolist() == [1.0, 3.0, 1.0]
    with pytest.raises(ConfigurationError, match="there is no class 'x'; there are a, b, c"):
        class_weights(LossConfig(class_weights={"x": 3.0}), "abc", clips, None)


def test_weights_and_smoothing_are_in_every_cross_entropy() -> None:
    """Σ_i w(y_i)·CE_i / Σ_i w(y_i); the smoothed target has (1 - s) on the class, and s / C, weighted, on all."""
    config = three_modalities().model_copy(update={"loss": LossConfig(label_smoothing=0.2)})
    torch.manual_seed(0)
    module = DetachedEncoders(config, 3, ClipRows({}, np.zeros(0, np.int64), np.zeros(0, np.int64))).eval()
    module.class_weights = {name: torch.tensor([1.0, 2.0, 5.0]) + i for i, name in enumerate(module.names)}
    rows, labels = batch_of(config, 4), torch.tensor([0, 1, 2, 0])
    parts = module.losses(Batch(rows, labels))
    own = shared = 0.0
    for name in module.names:
        features, logits = module.encoder(name)(rows[name])
        w = module.class_weights[name].double()
        for logits_BC, is_own in ((logits, True), (module.shared_head(features), False)):
            log_p = torch.log_softmax(logits_BC.double(), dim=1)
            target = 0.8 * torch.eye(3, dtype=torch.float64)[labels] + 0.2 / 3
            loss = float(-(target * w * log_p.detach()).sum() / w[labels].sum())
            own, shared = own + loss * is_own, shared + loss * (not is_own)
    assert parts["own"].item() == pytest.approx(own, rel=1e-5)
    assert parts["shared"].item() == pytest.approx(shared, rel=1e-5)


def test_averages_follow_their_formula_and_change_places_with_the_weights() -> None:
    module = torch.nn.BatchNorm1d(2)
    averages, expected = Averages(0.5), None
    for step in range(1, 6):
        with torch.no_grad():
            module.weight.fill_(float(step))
        averages.update(module)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = float(step) if expected is None else decay * expected + (1 - decay) * step
    averages.swap(module)
    assert module.weight.tolist() == pytest.approx([expected, expected])
    averages.swap(module)
    assert module.weight.tolist() == [5.0, 5.0]
    assert module.num_batches_tracked == 0


def test_a_run_with_everything_is_resumed_to_the_same_weights(clips: Path, cache: Path, tmp_path: Path) -> None:
    """Averages, accumulation, clipping and warm-up together, once at a stretch and once with a break."""
    optimiser = {**OPTIMISER, "clip_norm": 0.5, "warmup_epochs": 1}
    content = document(clips, ema=0.9, accumulate=2, optimiser=optimiser)
    content["loss"] = {"class_weights": "balanced", "label_smoothing": 0.1}
    config = parse_config(content, "test")
    train(config, tmp_path / "whole", cache_dir=cache)
    with pytest.raises(SetupError, match="stopped"):
        train(config, tmp_path / "broken", cache_dir=cache, tell=stopped_at("epoch 2/4"))
    train(config, tmp_path / "broken", cache_dir=cache, resume=True)
    whole, broken = weights(tmp_path / "whole"), weights(tmp_path / "broken")
    assert all(torch.equal(whole[key], broken[key]) for key in whole)
    # Ten clips in batches of four, the last of two: three batches, two steps an epoch.
    best = torch.load(tmp_path / "whole" / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["global_step"] == 2 * (best["epoch"] + 1)
    kept = best["averages"]["values"]["encoders.audio.head.weight"]
    assert torch.equal(whole["audio.head.weight"], kept)
    assert not torch.equal(kept, best["state_dict"]["encoders.audio.head.weight"])
    # What was validated is what is kept.
    run = load_run(tmp_path / "whole")
    line = epochs(tmp_path / "whole")[run.training["selected_epoch"]]
    for name in run.encoders:
        assert float(line[f"val_accuracy_{name}"]) == pytest.approx(
            run.metrics["validation"]["heads"][name]["accuracy"]
        )


def test_patience_ends_a_training_and_a_resumed_one_too(clips: Path, cache: Path, tmp_path: Path) -> None:
    config = options(clips, epochs=30, patience=2, lambda_duc=0.0, optimiser=OPTIMISER | {"schedule": "constant"})
    with pytest.raises(SetupError, match="stopped"):
        train(config, tmp_path / "run", cache_dir=cache, tell=stopped_at("stage 2"))
    scores = [float(line["val_selection"]) for line in epochs(tmp_path / "run")]
    assert 3 <= len(scores) < 30
    assert int(np.argmax(scores)) == len(scores) - 3
    train(config, tmp_path / "run", cache_dir=cache, resume=True)
    lines = [line for line in epochs(tmp_path / "run") if line["epoch"]]
    assert [float(line["val_selection"]) for line in lines] == scores
    assert load_run(tmp_path / "run").training["selected_epoch"] == len(scores) - 3


@pytest.mark.parametrize("clip_norm", [None, 1e-3])
def test_a_gradient_is_no_longer_than_allowed(
    clips: Path, cache: Path, tmp_path: Path, clip_norm: float | None
) -> None:
    optimiser = {**PLAIN, "clip_norm": clip_norm}
    config = options(clips, epochs=1, batch_size=10, lambda_duc=0.0, warmup_epochs=0, optimiser=optimiser)
    train(config, tmp_path / "run", cache_dir=cache)
    after = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    torch.manual_seed(config.seed)
    fresh = DetachedEncoders(config, 2, ClipRows({}, np.zeros(0, np.int64), np.zeros(0, np.int64)))
    moved = math.sqrt(sum(float((after[key] - p.detach()).square().sum()) for key, p in fresh.named_parameters()))
    assert moved > 0.1 if clip_norm is None else moved == pytest.approx(clip_norm, rel=1e-2)


def test_a_training_starts_from_an_earlier_one(clips: Path, cache: Path, tmp_path: Path, finished: Path) -> None:
    still = {**PLAIN, "lr": 1e-12}
    config = options(clips, epochs=1, lambda_duc=0.0, start_from=str(finished), optimiser=still)
    said: list[str] = []
    train(config, tmp_path / "run", cache_dir=cache, tell=said.append)
    assert f"starting from {finished}: audio, visual, shared_head" in said
    before, after = weights(finished), weights(tmp_path / "run")
    for key in before:
        if key.endswith(("weight", "bias")) and not key.startswith("fused"):
            assert torch.allclose(before[key], after[key], atol=1e-6), key
    assert load_run(tmp_path / "run").training["started_from"]["run"] == str(finished)
    # Other classes: the encoders alone.
    other = tmp_path / "other.csv"
    other.write_text(clips.read_text().replace(",low,", ",deep,"))
    content = document(other, epochs=1, lambda_duc=0.0, start_from=str(finished), optimiser=still)
    content["data"]["media_root"] = str(clips.parent)
    train(parse_config(content, "test"), tmp_path / "deep", cache_dir=cache)
    deep = weights(tmp_path / "deep")
    embeds = [key for key in before if ".embed." in key and key.endswith("weight")]
    assert len(embeds) > 10
    assert all(torch.allclose(before[key], deep[key], atol=1e-6) for key in embeds)
    assert not torch.allclose(before["audio.head.weight"], deep["audio.head.weight"])


def test_a_start_that_does_not_fit_is_refused_before_anything_is_written(
    clips: Path, cache: Path, tmp_path: Path, finished: Path
) -> None:
    content = document(clips, start_from=str(finished))
    for modality in content["modalities"]:
        modality["encoder"]["backbone"] = {**modality["encoder"]["backbone"], "hidden_sizes": [6, 8]}
    with pytest.raises(ConfigurationError, match="the run's audio encoder has other weights than this config's"):
        train(parse_config(content, "test"), tmp_path / "run", cache_dir=cache)
    with pytest.raises(SetupError, match="there is no run directory"):
        train(options(clips, start_from=str(tmp_path / "gone")), tmp_path / "run", cache_dir=cache)
    assert not (tmp_path / "run").exists()


def test_options_at_their_defaults_change_no_key(clips: Path, finished: Path) -> None:
    """A training's key is the one that it had before there were such options."""
    plain = options(clips)
    assert training_key(plain, "data") == "a143f86fbb6fd4ac"
    for stage1 in ({"ema": 0.9}, {"accumulate": 2}, {"patience": 3}, {"optimiser": {**OPTIMISER, "clip_norm": 1.0}}):
        assert training_key(options(clips, **stage1), "data") != training_key(plain, "data")
    key = training_key(options(clips, start_from=str(finished)), "data")
    assert key != training_key(plain, "data")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"stage1": {"objective": "joint", "joint": {"modulation": "ogm_ge"}, "accumulate": 2}}, "stage1.accumulate"),
        ({"stage1": {"optimiser": {"clip_norm": 1.0}}, "compute": {"precision": "16-mixed"}}, "clip_norm"),
        ({"stage2": {"epochs": 2, "optimiser": {"warmup_epochs": 2}}}, "must be below stage2.epochs"),
        ({"loss": {"class_weights": {"low": 0.0}}}, "loss.class_weights"),
    ],
)
def test_options_that_do_not_go_together_are_refused(clips: Path, changed: dict[str, Any], message: str) -> None:
    content = document(clips)
    for section, fields in changed.items():
        content[section] = content.get(section, {}) | fields
    with pytest.raises(ConfigurationError, match=message):
        parse_config(content, "test")
