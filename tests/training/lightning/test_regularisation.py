"""Mixup, outliers, consistency and the ramp: what they make of a batch, and that every method takes them alike."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from dimml_training.config import PictureAugmentConfig, TrainConfig
from dimml_training.data.augment import augment_pictures
from dimml_training.data.loader import Batch, showing
from dimml_training.detached.encoders import DetachedEncoders
from dimml_training.joint.encoders import JointEncoders
from dimml_training.lightning.encoder_module import EncoderTraining
from dimml_training.lightning.regularisation import between, divergence, inconsistency, mixed_up, with_outliers
from dimml_training.loop.train import train
from support.three_modalities import batch_of, random_clips, three_modalities
from support.tiny_training import configured, epochs

CLASSES = 3
JOINT = {"objective": "joint"}
OGM = {"objective": "joint", "joint": {"modulation": "ogm_ge"}}
MMPARETO = {"objective": "joint", "joint": {"modulation": "mmpareto"}}
METHODS: list[tuple[Callable[..., EncoderTraining], dict[str, Any]]] = [
    (DetachedEncoders, {}),
    (JointEncoders, JOINT),
    (JointEncoders, OGM),
    (JointEncoders, MMPARETO),
]
each_method = pytest.mark.parametrize(("built", "stage"), METHODS, ids=["detached", "joint", "ogm_ge", "mmpareto"])


def identities(clips: int, **present: list[bool]) -> Batch:
    """Rows that say whose they are: one unit a clip."""
    units = torch.eye(clips)
    there = {name: torch.tensor(given) for name, given in present.items()}
    rows = {name: units[there[name]] if name in there else units for name in ("audio", "visual")}
    return Batch(rows, torch.arange(clips) % CLASSES, there)


def test_mixup_mixes_rows_of_all_modalities_and_targets_alike() -> None:
    torch.manual_seed(0)
    batch = identities(7)
    mixed = mixed_up(batch, 1.0, CLASSES)
    assert torch.equal(mixed.rows["audio"], mixed.rows["visual"])
    assert mixed.clip_targets is not None
    shares = mixed.rows["audio"]
    own = shares.diagonal()
    assert bool((own >= 0.5).all())
    assert len(set(own.tolist())) == 7
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(7))
    assert ((shares > 0).sum(dim=1) <= 2).all()
    # What a row is made of decides its target.
    torch.testing.assert_close(mixed.clip_targets, shares @ one_hot(batch.labels_B, CLASSES).float())
    assert torch.equal(mixed.targets["audio"], mixed.clip_targets)


def test_mixup_of_a_narrow_distribution_is_half_and_half() -> None:
    torch.manual_seed(0)
    shares = mixed_up(identities(5), 1e6, CLASSES).rows["audio"]
    torch.testing.assert_close(shares.sort(dim=1).values[:, -2:], torch.full((5, 2), 0.5), atol=0.01, rtol=0)


def test_mixup_keeps_to_clips_with_the_same_modalities() -> None:
    torch.manual_seed(1)
    batch = identities(4, visual=[True, False, True, False])
    for _ in range(8):
        mixed = mixed_up(batch, 1.0, CLASSES)
        audio, visual = mixed.rows["audio"], mixed.rows["visual"]
        assert torch.equal(visual, audio[[0, 2]])
        assert (audio[[0, 2]][:, [1, 3]] == 0).all()
        assert (audio[[1, 3]][:, [0, 2]] == 0).all()
        assert mixed.clip_targets is not None
        assert torch.equal(mixed.targets["visual"], mixed.clip_targets[[0, 2]])


def test_outliers_are_to_be_answered_evenly_and_a_clip_if_all_it_has_is() -> None:
    config = three_modalities()
    rows = {name: own.float() for name, own in batch_of(config, 40).items()}
    batch = Batch(rows, torch.arange(40) % CLASSES)
    torch.manual_seed(0)
    made = with_outliers(batch, config.inputs, 0.5, CLASSES)
    hard, even = one_hot(batch.labels_B, CLASSES).float(), torch.full((CLASSES,), 1 / CLASSES)
    assert made.clip_targets is not None
    every = torch.stack([made.outliers[name] for name in rows]).all(dim=0)
    assert 0 < int(every.sum()) < 20
    for name, own in rows.items():
        chosen = made.outliers[name]
        assert 8 < int(chosen.sum()) < 32
        assert torch.equal(made.rows[name][~chosen], own[~chosen])
        assert all(not torch.equal(a, b) for a, b in zip(made.rows[name][chosen], own[chosen], strict=True))
        torch.testing.assert_close(made.targets[name], torch.where(chosen[:, None], even, hard))
        seen = showing(made, name)
        assert seen is not None
        assert torch.equal(seen, ~chosen)
    torch.testing.assert_close(made.clip_targets, torch.where(every[:, None], even, hard))
    absent = made._replace(present={"audio": torch.arange(40) < 30}, outliers={"audio": torch.arange(30) % 2 == 0})
    seen = showing(absent, "audio")
    assert seen is not None
    assert seen.tolist() == [i < 30 and i % 2 == 1 for i in range(40)]


def test_the_divergence_of_answers() -> None:
    sure, even = torch.tensor([[100.0, 0.0]]), torch.tensor([[0.0, 0.0]])
    assert float(divergence(sure, sure)) == pytest.approx(0.0, abs=1e-6)
    assert float(divergence(sure, sure.flip(1))) == pytest.approx(math.log(2), rel=1e-5)
    # H(3/4, 1/4) less half of H(1/2, 1/2).
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert float(divergence(sure, even)) == pytest.approx(entropy - 0.5 * math.log(2), rel=1e-5)


def test_inconsistency_is_zero_for_equal_views_and_counts_what_is_there() -> None:
    sure, other = torch.tensor([[100.0, 0.0]] * 2), torch.tensor([[0.0, 100.0]] * 2)
    views = {"audio": sure, "visual": sure}
    assert float(inconsistency(views, views, {})) == pytest.approx(0.0, abs=1e-6)
    against = {"audio": sure, "visual": other}
    assert float(inconsistency(views, against, {})) == pytest.approx(math.log(2), rel=1e-5)
    half = {"visual": torch.tensor([True, False])}
    assert float(inconsistency(views, {**views, "visual": torch.stack([sure[0], other[0]])}, half)) == pytest.approx(
        0.0, abs=1e-6
    )


def test_rows_between_clean_and_corrupted_ones() -> None:
    torch.manual_seed(0)
    found = between({"audio": torch.zeros(100, 4)}, {"audio": torch.ones(100, 4)})["audio"]
    assert torch.equal(found, found[:, :1].expand(100, 4)), "one share a clip"
    assert 0.0 <= float(found.min()) < 0.1
    assert 0.9 < float(found.max()) <= 1.0


def test_a_gap_is_one_run_of_grey_frames() -> None:
    torch.manual_seed(0)
    rows = torch.full((60, 8, 2, 2, 3), 10.0)
    config = PictureAugmentConfig(gap_probability=0.5, gap_share=0.5)
    grey = (augment_pictures(rows, config) == 128.0).all(dim=(2, 3, 4))
    assert 10 < int(grey.any(dim=1).sum()) < 50
    lengths = grey.sum(dim=1)
    assert int(lengths.max()) == 4
    starts = (grey[:, 1:] & ~grey[:, :-1]).sum(dim=1) + grey[:, 0]
    assert int(starts.max()) == 1


def training(built: Callable[..., EncoderTraining], config: TrainConfig) -> EncoderTraining:
    torch.manual_seed(0)
    return built(config, CLASSES, random_clips(config, 12))


def test_soft_targets_of_whole_classes_are_the_classes() -> None:
    module = training(DetachedEncoders, three_modalities())
    logits, labels = torch.randn(6, CLASSES), torch.arange(6) % CLASSES
    hard = one_hot(labels, CLASSES).float()
    for weights in ({}, {"audio": torch.tensor([1.0, 2.0, 5.0])}):
        module.class_weights = weights
        expected = module.mean_loss(logits, labels, "audio")
        torch.testing.assert_close(module.mean_loss(logits, labels, "audio", soft_BC=hard), expected)
        divided = module.mean_loss(logits, labels, "audio", torch.tensor(4.0))
        torch.testing.assert_close(module.mean_loss(logits, labels, "audio", torch.tensor(4.0), soft_BC=hard), divided)


@each_method
def test_every_method_learns_from_the_soft_targets(
    built: Callable[..., EncoderTraining], stage: dict[str, Any]
) -> None:
    """Its heads' loss is that of the targets, worked out here, not that of the labels."""
    module = training(built, three_modalities(**stage))
    rows = {name: own.float() for name, own in batch_of(module.config, 12).items()}
    batch = Batch(rows, torch.arange(12) % CLASSES)
    soft = torch.rand(12, CLASSES).softmax(dim=1)
    softened = batch._replace(targets=dict.fromkeys(rows, soft), clip_targets=soft)
    heads = "joint" if isinstance(module, JointEncoders) else "own"
    module.eval()  # dropout and modality dropout off, so that both passes answer alike
    answers = {name: logits.detach() for name, logits in module.validation_logits(batch).items()}

    def expected(target: Tensor) -> float:
        if heads == "joint":
            return float(cross_entropy(answers["joint"], target))
        return sum(float(cross_entropy(answers[name], target)) for name in rows)

    assert module.losses(softened)[heads].item() == pytest.approx(expected(soft), rel=1e-4)
    assert module.losses(batch)[heads].item() == pytest.approx(expected(batch.labels_B), rel=1e-4)


@each_method
def test_the_ramp_makes_early_epochs_milder(
    built: Callable[..., EncoderTraining], stage: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = three_modalities(**stage, ramp_epochs=3)
    louder = plain.modalities[0].model_copy(
        update={"augment": plain.modalities[0].augment.model_copy(update={"gain_db": 8.0})}
    )
    module = training(built, plain.model_copy(update={"modalities": (louder, *plain.modalities[1:])}))
    batch = Batch(batch_of(module.config, 200), torch.zeros(200, dtype=torch.int64))
    for epoch, most_db in ((0, 2.0), (1, 4.0), (3, 8.0), (9, 8.0)):
        monkeypatch.setattr(type(module), "current_epoch", epoch)
        torch.manual_seed(epoch)
        gained = module._corrupted(batch).rows["audio"]
        decibels = 20 * torch.log10(gained.norm(dim=1) / batch.rows["audio"].norm(dim=1))
        assert 0.9 * most_db < float(decibels.abs().max()) <= most_db + 1e-3


@each_method
def test_every_method_trains_with_all_of_it(
    built: Callable[..., EncoderTraining], stage: dict[str, Any], clips: Path, cache: Path, tmp_path: Path
) -> None:
    options = {"ramp_epochs": 1, "mixup": 0.4, "outliers": 0.2, "consistency": 0.5}
    train(configured(clips, **stage, **options), tmp_path / "run", cache_dir=cache)
    lines = [line for line in epochs(tmp_path / "run") if line.get("train_loss_consistency")]
    assert lines
    assert all(0.0 < float(line["train_loss_consistency"]) <= 0.5 * 3 * math.log(2) for line in lines)


def test_duc_learns_nothing_from_outliers() -> None:
    """Of two modalities, all of whose rows are outliers in one or the other, no pair is left."""
    module = training(DetachedEncoders, three_modalities(separation=False))
    assert isinstance(module, DetachedEncoders)
    module.separated.fill_(True)
    module.effective_MD.fill_(True)
    rows = {name: own.float() for name, own in batch_of(module.config, 12).items()}
    batch = Batch(rows, torch.arange(12) % CLASSES)
    none, every = torch.zeros(12, dtype=torch.bool), torch.ones(12, dtype=torch.bool)
    module.eval()

    def duc(**outliers: Tensor) -> float:
        return module.losses(batch._replace(outliers={**dict.fromkeys(rows, none), **outliers}))["duc"].item()

    assert duc() == pytest.approx(module.losses(batch)["duc"].item(), rel=1e-5)
    half = torch.arange(12) < 6
    assert duc(audio=every, visual=every) == 0.0
    assert duc(audio=half, visual=~half, motion=every) == 0.0
    assert 0.0 < duc(audio=every) < duc()
