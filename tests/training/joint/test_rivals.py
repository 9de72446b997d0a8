"""Joint trainings and ablations end to end: what a run holds, what it answers, and that only the losses differ."""

from __future__ import annotations

import csv
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dimml.cli import main
from dimml_training.config import parse_config
from dimml_training.data.loader import Batch, ClipRows
from dimml_training.data.prepare import prepare
from dimml_training.detached.encoders import DetachedEncoders
from dimml_training.evaluation.heads import fused_answer, head_logits
from dimml_training.joint.encoders import JointEncoders
from dimml_training.lightning.encoder_module import EncoderTraining
from dimml_training.loop.train import train
from dimml_training.run.directory import load_run
from support.tiny_training import configured, document, epochs

CONCAT = {"objective": "joint"}
MMPARETO = {"objective": "joint", "joint": {"modulation": "mmpareto", "fusion": "gated"}}


@pytest.fixture(scope="module")
def joint_run(clips: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "joint"
    train(configured(clips, **CONCAT), out, cache_dir=cache)
    return out


def last_weights(out: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return found


def test_a_joint_run_answers_with_its_joint_head(joint_run: Path, clips: Path, cache: Path) -> None:
    run = load_run(joint_run)
    assert run.joint_head is not None
    assert run.shared_head is None
    assert run.fused_head is None
    assert not run.own_heads
    assert not any(p.requires_grad for p in run.joint_head.parameters())
    for split in ("validation", "test"):
        assert run.metrics[split]["heads"] == {}
    rows = prepare(run.config, cache).splits["test"].rows
    features = [encoder(torch.from_numpy(rows.rows(name, slice(None))))[0] for name, encoder in run.encoders.items()]
    answers = run.joint_head(features).argmax(dim=1).numpy()
    assert run.metrics["test"]["accuracy"] == pytest.approx(float((answers == rows.labels).mean()))
    assert run.metrics["test"]["accuracy"] > 0.6
    assert not any("stage2_epoch" in line for line in epochs(joint_run)), "stage 2 is not for joint trainings"
    # The epoch with the best joint answer, ties by its loss.
    lines = epochs(joint_run)
    best = max(lines, key=lambda line: (float(line["val_accuracy_joint"]), -float(line["val_loss_joint"])))
    assert run.training["selected_epoch"] == int(float(best["epoch"]))


def test_a_modality_without_signal_is_zeros_to_the_joint_head(joint_run: Path, clips: Path, cache: Path) -> None:
    run = load_run(joint_run)
    assert run.joint_head is not None
    rows = prepare(run.config, cache).splits["test"].rows
    audio = rows.arrays["audio"][rows.slots].copy()
    audio[1] = 0.0
    dumb = ClipRows({"audio": audio, "visual": rows.arrays["visual"][rows.slots]}, np.arange(len(rows)), rows.labels)
    votes = head_logits(
        run.encoders, None, run.modalities, dumb, run.quality, joint_head=run.joint_head, own_heads=False
    )
    with torch.no_grad():
        heard, seen = (run.encoders[n](torch.from_numpy(dumb.rows(n, slice(None))))[0] for n in ("audio", "visual"))
        heard[1] = 0.0
        expected = run.joint_head([heard, seen]).numpy()
    assert votes.joint_logits_NC is not None
    np.testing.assert_allclose(votes.joint_logits_NC, expected, atol=1e-5)
    fused = fused_answer(votes, run.fusion)
    np.testing.assert_allclose(fused.probabilities_BC.sum(axis=1), 1.0, atol=1e-6)


def test_evaluate_scores_a_joint_run(
    joint_run: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "rows.csv"
    arguments = ["evaluate", str(joint_run), "--cache-dir", str(cache), "--predictions", str(rows)]
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["conditions"]["clean"]
    assert found == load_run(joint_run).metrics["test"]
    with rows.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert np.mean([line["predicted"] == line["label"] for line in lines]) == pytest.approx(found["accuracy"])
    assert main(arguments) == 0
    assert "answer" in capsys.readouterr().out


def test_a_joint_run_is_not_exported(joint_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(joint_run), "--repository", str(tmp_path / "models")]) != 0
    assert "stage1.objective: detached" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "models").exists()


def test_mmpareto_trains_the_own_heads_too(clips: Path, cache: Path, tmp_path: Path) -> None:
    metrics = train(configured(clips, **MMPARETO), tmp_path / "run", cache_dir=cache)
    run = load_run(tmp_path / "run")
    assert run.own_heads
    assert list(metrics["test"]["heads"]) == ["audio", "visual"]
    assert {head["mean_weight"] for head in metrics["test"]["heads"].values()} == {0.0}
    rows = prepare(run.config, cache).splits["test"].rows
    for name, encoder in run.encoders.items():
        guess = encoder(torch.from_numpy(rows.rows(name, slice(None))))[1].argmax(dim=1).numpy()
        assert metrics["test"]["heads"][name]["accuracy"] == pytest.approx(float((guess == rows.labels).mean()))
    assert float(epochs(tmp_path / "run")[-1]["train_loss_own"]) > 0.0


@pytest.mark.parametrize("joint", [{"modulation": "ogm_ge"}, {"modulation": "mmpareto"}])
def test_a_joint_run_resumes_to_the_same_end(
    joint: dict[str, str], clips: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured(clips, objective="joint", joint=joint)
    train(config, tmp_path / "whole", cache_dir=cache)

    class Interrupted(JointEncoders):
        def on_train_epoch_start(self) -> None:
            if self.current_epoch == 2:
                raise RuntimeError("the power is gone")
            super().on_train_epoch_start()

    with monkeypatch.context() as patched:
        patched.setattr("dimml_training.loop.fit_encoders.JointEncoders", Interrupted)
        with pytest.raises(RuntimeError, match="power"):
            train(config, tmp_path / "halved", cache_dir=cache)
    train(config, tmp_path / "halved", cache_dir=cache, resume=True)
    whole, resumed = last_weights(tmp_path / "whole"), last_weights(tmp_path / "halved")
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    assert (tmp_path / "whole" / "metrics.json").read_text() == (tmp_path / "halved" / "metrics.json").read_text()


def test_rivals_see_the_same_corrupted_batches_with_the_same_rates(
    clips: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, list[tuple[float, int]]] = {}

    def watch(training: type[EncoderTraining], name: str) -> type[EncoderTraining]:
        class Watched(training):  # type: ignore[misc, valid-type]  # a class made for one of two
            def losses(self, batch: Batch) -> dict[str, Tensor]:
                lr = self.trainer.optimizers[0].param_groups[0]["lr"]
                for row in (*batch.rows["audio"], *batch.rows["visual"]):
                    seen.setdefault(name, []).append((lr, zlib.crc32(row.contiguous().numpy())))
                found: dict[str, Tensor] = super().losses(batch)
                return found

        return Watched

    monkeypatch.setattr("dimml_training.loop.fit_encoders.DetachedEncoders", watch(DetachedEncoders, "detached"))
    monkeypatch.setattr("dimml_training.loop.fit_encoders.JointEncoders", watch(JointEncoders, "joint"))
    train(configured(clips), tmp_path / "detached", cache_dir=cache)
    train(configured(clips, **CONCAT), tmp_path / "joint", cache_dir=cache)
    assert len(seen["detached"]) == 4 * 10 * 2
    assert seen["detached"] == seen["joint"]


def plain(clips: Path, modalities: slice, **stage1: Any) -> dict[str, Any]:
    """Without anything random in a step, and some of the modalities alone."""
    content = document(clips, **stage1)
    for modality in content["modalities"]:
        modality.pop("augment")
        modality["encoder"] = {"backbone": modality["encoder"]["backbone"]}
        if modality["input"]["kind"] == "waveform":
            modality["encoder"]["spectrogram"] = {"mels": 16}
    content["modalities"] = content["modalities"][modalities]
    return content


def test_without_shared_head_and_duc_encoders_are_trained_separately(clips: Path, cache: Path, tmp_path: Path) -> None:
    """The sound's encoder comes out the same bit for bit as from a training that has no pictures at all."""
    separate = {"lambda_shared": 0.0, "lambda_duc": 0.0}
    train(parse_config(plain(clips, slice(0, 2), **separate), "test"), tmp_path / "both", cache_dir=cache)
    train(parse_config(plain(clips, slice(0, 1), **separate), "test"), tmp_path / "alone", cache_dir=cache)
    both, alone = last_weights(tmp_path / "both"), last_weights(tmp_path / "alone")
    encoder = [key for key in alone if key.startswith("encoders.audio.")]
    assert len(encoder) > 10
    assert all(torch.equal(both[key], alone[key]) for key in encoder)
    assert {float(line["train_loss_shared"]) for line in epochs(tmp_path / "both")[:4]} == {0.0}
    train(parse_config(plain(clips, slice(0, 2)), "test"), tmp_path / "interactive", cache_dir=cache)
    interactive = last_weights(tmp_path / "interactive")
    assert not all(torch.equal(interactive[key], alone[key]) for key in encoder)


def test_without_separation_duc_runs_on_all_dimensions(clips: Path, cache: Path, tmp_path: Path) -> None:
    train(configured(clips, separation=False), tmp_path / "run", cache_dir=cache)
    assert load_run(tmp_path / "run").training["effective_dimensions"] == {"audio": 8, "visual": 8}
    duc = [float(line["train_loss_duc"]) for line in epochs(tmp_path / "run")[:4]]
    assert duc[0] == 0.0
    assert min(duc[1:]) > 0.0


@pytest.mark.parametrize(("every", "expected"), [(None, [1]), (1, [1, 2, 3]), (2, [1, 3])])
def test_separation_is_repeated_where_wanted(
    clips: Path,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    every: int | None,
    expected: list[int],
) -> None:
    separated: list[int] = []

    class Watched(DetachedEncoders):
        def separate(self) -> None:
            separated.append(self.current_epoch)
            super().separate()

    monkeypatch.setattr("dimml_training.loop.fit_encoders.DetachedEncoders", Watched)
    train(configured(clips, separation_every=every), tmp_path / "run", cache_dir=cache)
    assert separated == expected
