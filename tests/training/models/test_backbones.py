"""Backbones brought along: transformers models by config and by folder, modules by import path; what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from transformers import ViTConfig, ViTModel

from dimml.errors import ConfigurationError
from dimml.modality import Flow, Frames, Modality, Waveform
from dimml_training.models import EncoderConfig, PictureEncoderConfig, SoundEncoderConfig
from dimml_training.models.encoder import Encoder, build_encoder, resolved_encoder

SOUND = Waveform(name="audio", sample_rate_hz=8000, samples=4000)
LIPS = Frames(name="lips", frames=3, height=16, width=24)
MOTION = Flow(name="motion", frames=2, height=16, width=16)
VIT = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "patch_size": 8}
CONVNEXT = {"hidden_sizes": [4, 8], "depths": [1, 1], "num_stages": 2}
WAV2VEC2 = {
    "hidden_size": 12,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "conv_dim": [4, 4],
    "conv_stride": [10, 4],
    "conv_kernel": [20, 8],
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}
OWN = "support.own_backbones"


def by_config(model_type: str, config: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"kind": "huggingface", "model_type": model_type, "config": config, **fields}


def imported(name: str, **fields: Any) -> dict[str, Any]:
    return {"kind": "import", "target": f"{OWN}:{name}", **fields}


def encoder_config(modality: Modality, backbone: dict[str, Any], **fields: Any) -> EncoderConfig:
    section = SoundEncoderConfig if isinstance(modality, Waveform) else PictureEncoderConfig
    return section.model_validate({"backbone": backbone, "features": 8, **fields})


def rows(modality: Modality, batch: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    if isinstance(modality, Waveform):
        return 0.1 * torch.randn(batch, modality.samples, generator=generator)
    return torch.randint(0, 256, (batch, *modality.shape), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize(
    ("modality", "backbone", "fields"),
    [
        (LIPS, by_config("vit", VIT), {}),
        (MOTION, by_config("vit", VIT, output="mean"), {"pooling": {"kind": "temporal_conv"}}),
        (LIPS, by_config("convnext", CONVNEXT), {"grey": True, "normalise": "clip"}),
        (LIPS, by_config("mobilenet_v2", {"depth_multiplier": 0.1}, output="mean"), {}),
        (SOUND, by_config("convnext", CONVNEXT), {"spectrogram": {"mels": 16}}),
        (SOUND, by_config("wav2vec2", WAV2VEC2, input="raw", output="mean"), {}),
        (MOTION, imported("TwoConvolutions", args={"channels": 2}), {}),
        (SOUND, imported("TwoConvolutions", args={"channels": 1, "width": 8}), {}),
        (SOUND, imported("Energies", args={"parts": 8}, input="raw"), {}),
    ],
)
def test_a_backbone_brought_along_gives_features_of_the_width_asked_for(
    modality: Modality, backbone: dict[str, Any], fields: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    config = encoder_config(modality, backbone, **fields)
    encoder, tensor = build_encoder(modality, config, 5), rows(modality, 4)
    encoder.train()
    encoder(tensor)[1].square().sum().backward()  # type: ignore[no-untyped-call]
    moved = [p.grad is not None and bool(p.grad.abs().sum() > 0) for p in encoder.embed.parameters()]
    assert sum(moved) > 0.7 * len(moved)
    encoder.eval()
    with torch.no_grad():
        features, logits = encoder(tensor)
        alone = encoder(tensor[2:3])[0]
    assert (features.shape, logits.shape, encoder.features) == ((4, 8), (4, 5), 8)
    torch.testing.assert_close(alone[0], features[2], rtol=1e-4, atol=1e-5)
    assert (features[0] - features[1]).abs().max() > 1e-5
    again = build_encoder(modality, config, 5, weights=False).eval()
    again.load_state_dict(encoder.state_dict())
    with torch.no_grad():
        assert torch.equal(again(tensor)[0], features)


def test_sound_taken_raw_by_a_transformers_model_is_the_same_at_any_loudness() -> None:
    torch.manual_seed(0)
    backbone = by_config("wav2vec2", WAV2VEC2, input="raw", output="mean")
    encoder, tensor = build_encoder(SOUND, encoder_config(SOUND, backbone), 5).eval(), rows(SOUND, 2)
    torch.testing.assert_close(encoder(0.05 * tensor)[0], encoder(tensor)[0], rtol=1e-2, atol=1e-3)


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A model as it lies in a folder once it has been downloaded: made for RGB pictures of 32 x 32."""
    torch.manual_seed(7)
    ViTModel(ViTConfig(image_size=32, **VIT)).save_pretrained(tmp_path / "published")
    return tmp_path / "published"


@pytest.mark.parametrize("grey", [False, True])
def test_a_pretrained_model_keeps_its_weights_and_the_run_no_longer_needs_its_folder(
    published: Path, *, grey: bool
) -> None:
    backbone = {"kind": "huggingface", "name": str(published), "pretrained": True}
    config = resolved_encoder(encoder_config(LIPS, backbone, grey=grey))
    encoder = build_encoder(LIPS, config, 5).eval()
    theirs = ViTModel.from_pretrained(published).eval()
    ours = encoder.embed.get_submodule("backbone.0.model").state_dict()
    assert all(torch.equal(ours[name], value) for name, value in theirs.state_dict().items())
    tensor = rows(LIPS, 2)
    features = encoder(tensor)[0]
    pixels = tensor.permute(0, 1, 4, 2, 3).float()
    if grey:
        pixels = (
            (pixels * torch.tensor([0.299, 0.587, 0.114]).view(1, 1, 3, 1, 1))
            .sum(2, keepdim=True)
            .repeat(1, 1, 3, 1, 1)
        )
    pooled = theirs((pixels / 127.5 - 1.0).flatten(0, 1), interpolate_pos_encoding=True).pooler_output
    projection = encoder.embed.get_submodule("backbone.1")
    torch.testing.assert_close(features, projection(pooled).unflatten(0, (2, 3)).mean(1), rtol=1e-4, atol=1e-5)
    shutil.rmtree(published)
    assert resolved_encoder(config) == config
    restored: Encoder = build_encoder(LIPS, config, 5, weights=False).eval()
    restored.load_state_dict(encoder.state_dict())
    assert torch.equal(restored(tensor)[0], features)


def test_a_folder_without_its_weights_gives_the_architecture_for_the_modality(published: Path) -> None:
    encoder = build_encoder(MOTION, encoder_config(MOTION, {"kind": "huggingface", "name": str(published)}), 5)
    assert encoder(rows(MOTION, 2))[0].shape == (2, 8)  # two channels, where the published one has three


@pytest.mark.parametrize(
    ("modality", "backbone", "message"),
    [
        (LIPS, by_config("vitt", {}), "transformers knows no model_type 'vitt'"),
        (LIPS, by_config("vit", {**VIT, "hiden_size": 3}), "vit has no config field 'hiden_size'"),
        (LIPS, by_config("vit", {"hidden_size": "wide"}), "the config of vit: .*hidden_size"),
        (LIPS, by_config("vit", {**VIT, "hidden_act": "bend"}), "vit: .*bend"),
        (LIPS, by_config("vit", {**VIT, "patch_size": 64}), r"vit does not take a tensor of shape \[2, 3, 16, 24\]"),
        (LIPS, by_config("wav2vec2", WAV2VEC2), "takes input_values; .* must take pixel_values"),
        (SOUND, by_config("vit", VIT, input="raw"), "takes pixel_values; .* must take input_values"),
        (SOUND, by_config("wav2vec2", WAV2VEC2, input="raw"), "no pooled output; set output: mean"),
        (LIPS, {"kind": "huggingface", "name": "/nowhere/at/all"}, "/nowhere/at/all cannot be loaded: it is neither"),
        (LIPS, {"kind": "import", "target": "no_such_package.x:Y"}, "no_such_package.x:Y cannot be imported"),
        (LIPS, imported("Missing"), "Missing cannot be imported .*PYTHONPATH"),
        (LIPS, imported("TwoConvolutions"), "called with args {}: TypeError: .*channels"),
        (LIPS, imported("a_number"), "gives a int, not a torch.nn.Module"),
        (LIPS, imported("TwoConvolutions", args={"channels": 1}), r"does not take a tensor of shape \[2, 3, 16, 24\]"),
        (LIPS, imported("OnePerBatch"), r"must map .* to FP32 features \[2, D\].* gave torch.float32 \[3\]"),
    ],
)
def test_what_cannot_be_a_backbone_is_named(modality: Modality, backbone: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as raised:
        build_encoder(modality, encoder_config(modality, backbone), 5)
    assert raised.value.message.startswith(f"modality {modality.name!r}: encoder: ")


def test_a_pretrained_model_of_three_channels_takes_no_flow(published: Path) -> None:
    backbone = {"kind": "huggingface", "name": str(published), "pretrained": True}
    with pytest.raises(ConfigurationError, match=r"takes 3 channels, the modality has 2; with pretrained: false"):
        build_encoder(MOTION, encoder_config(MOTION, backbone), 5)


@pytest.mark.parametrize(
    ("section", "fields", "message"),
    [
        (PictureEncoderConfig, {"backbone": {"kind": "vgg"}}, "kind must be 'resnet', 'huggingface' or 'import'"),
        (PictureEncoderConfig, {"backbone": {"kind": "huggingface"}, "features": 8}, "model_type is needed"),
        (PictureEncoderConfig, {"backbone": by_config("vit", VIT)}, "features is needed with backbone.kind huggingf"),
        (PictureEncoderConfig, {"backbone": by_config("vit", VIT, pretrained=True)}, "pretrained needs name"),
        (PictureEncoderConfig, {"backbone": by_config("vit", VIT, input="raw"), "features": 8}, "is for sound"),
        (PictureEncoderConfig, {"backbone": {"kind": "import", "target": "a.b"}, "features": 8}, "pattern"),
        (
            SoundEncoderConfig,
            {"backbone": imported("Energies", input="raw"), "features": 8, "spectrogram": {"mels": 8}},
            "spectrogram has no effect with backbone.input: raw",
        ),
        (
            PictureEncoderConfig,
            {"backbone": imported("Energies", input="raw"), "features": 8, "grey": True},
            "grey has no effect",
        ),
    ],
)
def test_fields_that_do_not_go_together(
    section: type[SoundEncoderConfig | PictureEncoderConfig], fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        section.model_validate(fields)
