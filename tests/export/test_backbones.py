"""Encoders brought along are trained, loaded and exported by the path of all others, without what they came from."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from transformers import ViTConfig, ViTModel

from dimml.contract import ModelSpec, TensorSpec
from dimml.errors import SetupError
from dimml.modality import Frames
from dimml.repository import load_bundle
from dimml_export.encoder_graph import encoder_model
from dimml_export.export import export_run
from dimml_training.config import parse_config
from dimml_training.loop.train import train
from dimml_training.models import PictureEncoderConfig
from dimml_training.models.encoder import build_encoder
from dimml_training.run.directory import load_run
from support.data import REPOSITORY_ROOT
from support.own_backbones import Undecided
from support.tiny_training import document, write_clips

VIT = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "patch_size": 8}


@pytest.mark.slow(reason="exports a ViT")
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


def test_the_example_of_the_docs_is_built_and_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (REPOSITORY_ROOT / "docs" / "encoders.md").read_text()
    example = re.search(r"```python\n# mypackage/lips.py\n(.*?)```\n\n```yaml\n(.*?)```", text, re.DOTALL)
    assert example is not None
    code, config = example.groups()
    (tmp_path / "mypackage").mkdir()
    (tmp_path / "mypackage" / "lips.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    modality = Frames(name="visual", frames=2, height=16, width=24)
    encoder = build_encoder(modality, PictureEncoderConfig.model_validate(yaml.safe_load(config)), 3)
    features, logits = encoder(torch.zeros(2, *modality.shape, dtype=torch.uint8))
    assert (features.shape, logits.shape) == ((2, 128), (2, 3))
    frames = TensorSpec(name="FRAMES", datatype="UINT8", dims=modality.shape)
    votes = (
        TensorSpec(name="FEATURES", datatype="FP32", dims=(128,)),
        TensorSpec(name="LOGITS", datatype="FP32", dims=(3,)),
    )
    spec = ModelSpec(name="lips_encoder", role="encoder", max_batch_size=4, inputs=(frames,), outputs=votes)
    assert [output.name for output in encoder_model(encoder, spec).graph.output] == ["FEATURES", "LOGITS"]


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
