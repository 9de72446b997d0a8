"""The configs called ``*_paper`` say what was published (docs/adr/0001), and each data set has one of ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from dimml_training.config import load_config
from support.data import REPOSITORY_ROOT

CONFIGS = REPOSITORY_ROOT / "training" / "configs"

#: Frames of the picture, temperature of DUC, temperature of the weighting. Kinetics-Sounds: as AVE.
PUBLISHED = {
    "crema_d": (3, 50, 1),
    "ave": (4, 10, 3),
    "kinetics_sounds": (4, 10, 3),
    "ucf101": (1, 10, 1),
    "modelnet40": (1, 50, 3),
}


def test_every_paper_config_is_known() -> None:
    assert {path.stem.removesuffix("_paper") for path in CONFIGS.glob("*_paper.yaml")} == set(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_settings(name: str) -> None:
    config = load_config(CONFIGS / f"{name}_paper.yaml")
    frames, duc_temperature, clw_temperature = PUBLISHED[name]
    assert next(m for m in config.inputs if m.kind == "frames").frames == frames
    stage = config.stage1
    assert (stage.epochs, stage.batch_size, stage.warmup_epochs) == (150, 16, 20)
    assert (stage.lambda_shared, stage.lambda_duc, stage.duc_temperature) == (1.0, 1.0, duc_temperature)
    assert (config.stage2.epochs, config.stage2.batch_size) == (20, 16)
    for rule in (stage.optimiser, config.stage2.optimiser):
        assert (rule.kind, rule.lr, rule.momentum, rule.weight_decay) == ("sgd", 1e-3, 0.9, 1e-4)
        assert (rule.schedule, rule.step_epoch) == ("step", 70)
    assert (config.fusion.certainty, config.fusion.temperature) == ("max_prob", clw_temperature)
    assert config.fusion.fused_head
    for modality in config.modalities:
        backbone = modality.encoder.backbone
        assert backbone.kind == "resnet"
        assert (backbone.hidden_sizes, backbone.depths, backbone.stem) == (
            (64, 128, 256, 512),
            (2, 2, 2, 2),
            "imagenet",
        )


@pytest.mark.parametrize("name", PUBLISHED)
def test_ours_reads_the_same_manifest(name: str) -> None:
    paper, ours = load_config(CONFIGS / f"{name}_paper.yaml"), load_config(CONFIGS / f"{name}.yaml")
    assert (ours.data.manifest, ours.data.media_root) == (paper.data.manifest, paper.data.media_root)
    assert "fusion" not in ours.model_fields_set


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: str(path.relative_to(CONFIGS)))
def test_every_config_is_valid_and_names_its_modalities(path: Path) -> None:
    assert load_config(path).inputs
