"""What happens within training: separation and DUC, learning rates, order, corruption, and which epoch is chosen."""

from __future__ import annotations

import math
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dimml_training.config import TrainConfig, parse_config
from dimml_training.data.loader import Batch
from dimml_training.data.prepare import prepare
from dimml_training.detached.encoders import DetachedEncoders
from dimml_training.detached.fused_head import concatenated_features, train_fused_head
from dimml_training.loop.epoch_log import EpochLog
from dimml_training.loop.fit_encoders import fit_stage1
from dimml_training.loop.train import train
from dimml_training.run.directory import load_run
from support.tiny_training import configured, document, epochs, weights


def relabelled(manifest: Path, split: str, to: Path) -> Path:
    """The same table with the two labels of one split swapped."""
    swapped = {"low": "high", "high": "low"}
    lines = []
    for line in manifest.read_text().splitlines():
        media, label, *rest = line.split(",")
        lines.append(",".join([media, swapped[label] if rest[0] == split else label, *rest]))
    path = to / f"{split}.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def reconfigured(manifest: Path, clips: Path, **changed: object) -> TrainConfig:
    content = document(manifest) | changed
    content["data"]["media_root"] = str(clips.parent)
    return parse_config(content, "test")


def without_augment(clips: Path) -> TrainConfig:
    content = document(clips)
    for modality in content["modalities"]:
        del modality["augment"]
    return parse_config(content, "test")


def test_dimensions_are_separated_and_duc_joins_after_the_warm_up(finished: Path) -> None:
    effective = load_run(finished).training["effective_dimensions"]
    assert all(0 < count < 8 for count in effective.values()), effective
    duc = [float(line["train_loss_duc"]) for line in epochs(finished)[:4]]
    assert duc[0] == 0.0
    assert min(duc[1:]) > 0.0
    for line in epochs(finished)[:4]:
        parts = [float(line[f"train_loss_{part}"]) for part in ("own", "shared", "duc")]
        assert float(line["train_loss"]) == pytest.approx(sum(parts), rel=1e-5)


def test_without_duc_nothing_is_separated(clips: Path, cache: Path, tmp_path: Path, finished: Path) -> None:
    train(configured(clips, lambda_duc=0.0), tmp_path / "run", cache_dir=cache)
    assert {float(line["train_loss_duc"]) for line in epochs(tmp_path / "run")[:4]} == {0.0}
    assert set(load_run(tmp_path / "run").training["effective_dimensions"].values()) == {0}
    with_duc, without = weights(finished), weights(tmp_path / "run")
    assert not torch.equal(with_duc["audio.head.weight"], without["audio.head.weight"])


def test_the_learning_rate_follows_the_schedule(finished: Path) -> None:
    lines = epochs(finished)
    cosine = [0.01 * 0.5 * (1.0 + math.cos(math.pi * epoch / 4)) for epoch in range(4)]
    assert [float(line["lr"]) for line in lines[:4]] == pytest.approx(cosine)
    assert [float(line["lr"]) for line in lines[4:]] == pytest.approx([0.01, 0.005])


def test_the_best_validation_epoch_after_the_warm_up_is_chosen(clips: Path, cache: Path, tmp_path: Path) -> None:
    """Validation labels are swapped: the better the encoders, the worse their figures, and the last epoch is worst."""
    config = reconfigured(relabelled(clips, "validation", tmp_path), clips)
    metrics = train(config, tmp_path / "run", cache_dir=cache)
    run = load_run(tmp_path / "run")
    lines = epochs(tmp_path / "run")[:4]
    selection = [float(line["val_selection"]) for line in lines]
    assert int(np.argmax(selection)) == 0, "the warm-up has the best figures, or this test shows nothing"
    chosen = 1 + int(np.argmax(selection[1:]))
    assert chosen != 3, "the last epoch must not be the best, or this test shows nothing"
    assert run.training["selected_epoch"] == chosen
    validation = prepare(config, cache).splits["validation"].rows
    labels = torch.from_numpy(validation.labels)
    for name, encoder in run.encoders.items():
        accuracy = metrics["validation"]["heads"][name]["accuracy"]
        assert accuracy == pytest.approx(float(lines[chosen][f"val_accuracy_{name}"]))
        _, logits = encoder(torch.from_numpy(validation.rows(name, slice(None))))
        loss = float(nn.functional.cross_entropy(logits, labels))
        assert loss == pytest.approx(float(lines[chosen][f"val_loss_{name}"]), rel=1e-4)
    assert torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == 3
    # Stage 2 likewise.
    fused = epochs(tmp_path / "run")[4:]
    best = max(fused, key=lambda line: (float(line["val_accuracy_fused"]), -float(line["val_loss_fused"])))
    assert metrics["validation"]["heads"]["fused"]["accuracy"] == pytest.approx(float(best["val_accuracy_fused"]))
    assert best is not fused[-1], "the last epoch must not be the best, or this test shows nothing"
    assert run.fused_head is not None
    rows = {name: torch.from_numpy(validation.rows(name, slice(None))) for name in run.encoders}
    logits = run.fused_head(concatenated_features(run.encoders, rows))
    assert float(nn.functional.cross_entropy(logits, labels)) == pytest.approx(float(best["val_loss_fused"]), rel=1e-4)


def test_the_test_split_chooses_nothing(finished: Path, clips: Path, cache: Path, tmp_path: Path) -> None:
    metrics = train(reconfigured(relabelled(clips, "test", tmp_path), clips), tmp_path / "run", cache_dir=cache)
    first, other = weights(finished), weights(tmp_path / "run")
    assert all(torch.equal(first[key], other[key]) for key in first)
    accuracy = load_run(finished).metrics["test"]["accuracy"]
    assert metrics["test"]["accuracy"] == pytest.approx(1.0 - accuracy)


class Watched(DetachedEncoders):
    """Notes what each step is given and with which learning rate."""

    seen: list[tuple[int, float, list[int]]]

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        lr = self.trainer.optimizers[0].param_groups[0]["lr"]
        self.seen.append((self.current_epoch, lr, [zlib.crc32(row.numpy()) for row in batch[0]["audio"]]))
        return super().training_step(batch, batch_index)


def test_each_epoch_has_its_own_order(
    clips: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured(clips)
    data = prepare(config, cache)
    monkeypatch.setattr("dimml_training.loop.fit_encoders.DetachedEncoders", Watched)
    monkeypatch.setattr(Watched, "seen", [], raising=False)
    (tmp_path / "run").mkdir()
    fit_stage1(config, data, tmp_path / "run", EpochLog([]), resume=False, tell=lambda _: None, bar=False)
    orders = [[row for epoch, _, batch in Watched.seen if epoch == wanted for row in batch] for wanted in range(4)]
    rows = data.splits["train"].rows.rows("audio", slice(None))
    everything = sorted(zlib.crc32(row) for row in rows)
    assert [sorted(order) for order in orders] == [everything] * 4
    assert len({tuple(order) for order in orders}) == 4
    assert len({lr for _, lr, _ in Watched.seen}) == 4, "the optimiser must be told the epoch's learning rate"


def test_stage_1_trains_on_corrupted_clips(finished: Path, clips: Path, cache: Path, tmp_path: Path) -> None:
    train(without_augment(clips), tmp_path / "run", cache_dir=cache)
    corrupted, clean = weights(finished), weights(tmp_path / "run")
    for name in ("audio", "visual"):
        assert not torch.equal(corrupted[f"{name}.head.weight"], clean[f"{name}.head.weight"])


class Listening(nn.Module):
    """An encoder that notes which rows it is given."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.seen: list[int] = []

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        self.seen += [zlib.crc32(row.float().numpy()) for row in rows]
        found: tuple[Tensor, Tensor] = self.encoder(rows)
        return found


@pytest.mark.parametrize("augmented", [False, True])
def test_stage_2_shuffles_and_corrupts_too(finished: Path, clips: Path, cache: Path, *, augmented: bool) -> None:
    config = configured(clips) if augmented else without_augment(clips)
    splits = prepare(config, cache).splits
    encoders = {name: Listening(encoder) for name, encoder in load_run(finished).encoders.items()}
    rows = splits["train"].rows
    train_fused_head(config, encoders, 2, train=rows, validation=splits["validation"].rows, on_epoch=lambda _: None)
    for name, encoder in encoders.items():
        training = encoder.seen[len(splits["validation"].rows) :]
        clean = {zlib.crc32(row.astype(np.float32)) for row in rows.rows(name, slice(None))}
        first, second = training[:10], training[10:]
        assert len(second) == 10
        if augmented:
            assert not set(training) <= clean
        else:
            assert set(first) == set(second) == clean
            assert first != second
