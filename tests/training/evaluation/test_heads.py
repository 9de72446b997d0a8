"""Figures against scikit-learn's, and modalities without signal left out as a server leaves them out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dimml.fusion import FusionSpec
from dimml.modality import Frames, Waveform
from dimml.signal_check import QualityThresholds
from dimml_training.data.loader import ClipRows
from dimml_training.evaluation.heads import HeadLogits, figures, fused_answer, head_logits
from dimml_training.models import PictureEncoderConfig, ResNetBackboneConfig, SoundEncoderConfig
from dimml_training.models.encoder import build_encoder

BACKBONE = ResNetBackboneConfig(embedding_size=4, hidden_sizes=(4, 8), depths=(1, 1), stem="plain")
SOUND = Waveform(name="audio", sample_rate_hz=8000, samples=800)
LIPS = Frames(name="lips", frames=2, height=8, width=8)


def test_figures_are_scikit_learns(sklearn_metrics: Any) -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 60)
    # The fourth class is never said by anyone.
    logits = rng.standard_normal((60, 2, 4)).astype(np.float32) + np.eye(4, dtype=np.float32)[truth][:, None]
    logits[..., 3] = -9.0
    votes = HeadLogits(("audio", "lips"), logits, np.ones((60, 2), np.bool_), truth)
    fused = fused_answer(votes, FusionSpec(fused_head=False))
    found = figures(votes, fused, "abcd")
    said = fused.logits_BC.argmax(axis=1)
    assert found["macro_f1"] == pytest.approx(sklearn_metrics.f1_score(truth, said, average="macro", zero_division=0))
    assert found["confusion"] == sklearn_metrics.confusion_matrix(truth, said, labels=range(4)).tolist()
    assert found["accuracy"] == pytest.approx(np.trace(found["confusion"]) / 60)
    own = logits[:, 1].argmax(axis=1)
    assert found["heads"]["lips"]["accuracy"] == pytest.approx((own == truth).mean())
    assert sum(head["mean_weight"] for head in found["heads"].values()) == pytest.approx(1.0, abs=1e-5)


def test_a_modality_without_signal_does_not_vote() -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    sound = 0.1 * rng.standard_normal((3, 800)).astype(np.float32)
    lips = rng.integers(0, 256, (3, *LIPS.shape), dtype=np.uint8)
    sound[1], lips[2] = 0.0, 0
    encoders = {
        "audio": build_encoder(SOUND, SoundEncoderConfig(backbone=BACKBONE), 3).eval(),
        "lips": build_encoder(LIPS, PictureEncoderConfig(backbone=BACKBONE), 3).eval(),
    }
    clips = ClipRows({"audio": sound, "lips": lips}, np.arange(3), np.array([0, 1, 2]))
    votes = head_logits(encoders, torch.nn.Linear(16, 3), (SOUND, LIPS), clips, QualityThresholds())
    assert votes.heads == ("audio", "lips", "fused")
    assert votes.present_NH.tolist() == [[True, True, True], [False, True, False], [True, False, False]]
    weights = fused_answer(votes, FusionSpec(fused_head=True)).weights_BH
    np.testing.assert_array_equal(weights[1:], [[0, 1, 0], [1, 0, 0]])
