"""Encoders brought along are trained, loaded and exported by the path of all others, without what they came from."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from transformers import ViTConfig, ViTModel

from dimml.contract import ModelSpec, TensorSpec
from dimml.errors import SetupError
from dimml.repository import load_bundle
from dimml_export.encoder_graph import encoder_model
from dimml_export.export import export_run
from dimml_training.config import parse_config
from dimml_training.run_directory import load_run
from dimml_training.training import train
from support.own_backbones import Undecided
from support.tiny_training import document, write_clips

VIT = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "patch_size": 8}


def test_a_pretrained_vit_and_a_module_of_ones_own_become_a_bundle(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    ViTModel(ViTConfig(image_size=16, **VIT)).save_pretrained(tmp_path / "vit")
    given = document(write_clips(tmp_path), epochs=2)
    given["modalities"][0]["encoder"] = {
        "backbone": {
            "kind": "import",
            "target": "support.own_backbones:Energies",
            "args": {"parts": 10},
            "input": "raw",
        },
        "features": 8,
    }
    given["modalities"][1]["encoder"] = {
        "backbone": {"kind": "huggingface", "name": str(tmp_path / "vit"), "pretrained": True},
        "features": 8,
    }
    metrics = train(parse_config(given, "test"), tmp_path / "run", cache_dir=tmp_path / "cache")
    shutil.rmtree(tmp_path / "vit")
    run = load_run(tmp_path / "run")
    assert run.metrics == metrics
    exported = export_run(tmp_path / "run", tmp_path / "models")
    bundle = load_bundle(tmp_path / "models", "stripes")
    assert bundle == exported.bundle
    assert [encoder.features for encoder in bundle.encoders] == [8, 8]


def test_a_module_that_is_no_graph_is_refused_in_words() -> None:
    class Votes(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.undecided = Undecided()

        def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            features = self.undecided(pictures)
            return features, features

    pixels = TensorSpec(name="PIXELS", datatype="FP32", dims=(3, 8, 8))
    votes = tuple(TensorSpec(name=name, datatype="FP32", dims=(3,)) for name in ("FEATURES", "LOGITS"))
    spec = ModelSpec(name="odd_encoder", role="encoder", max_batch_size=4, inputs=(pixels,), outputs=votes)
    with pytest.raises(SetupError, match="odd_encoder: torch cannot turn this encoder into ONNX"):
        encoder_model(Votes(), spec)
