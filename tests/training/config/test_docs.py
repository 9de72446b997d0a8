"""docs/training.md names every field of a config, with its default, and no other."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import BaseModel

from dimml.fusion import FusionSpec
from dimml.modality import Flow, Frames, Region, Series, Waveform
from dimml.signal_check import QualityThresholds
from dimml_training import config
from dimml_training.config import rivals
from dimml_training.models import backbone_config as backbones
from dimml_training.models import config as models
from support.data import REPOSITORY_ROOT

SECTIONS: dict[str, type[BaseModel]] = {
    "The whole": config.TrainConfig,
    "`data`": config.DataConfig,
    "`data.columns`": config.ColumnsConfig,
    "`modalities[].input`, kind `waveform`": Waveform,
    "`modalities[].input`, kind `frames`": Frames,
    "`modalities[].input`, kind `flow`": Flow,
    "`modalities[].input`, kind `series`": Series,
    "`modalities[].input.region`": Region,
    "`modalities[].encoder` of sound": models.SoundEncoderConfig,
    "`modalities[].encoder.spectrogram`": models.SpectrogramConfig,
    "`modalities[].encoder` of pictures": models.PictureEncoderConfig,
    "`modalities[].encoder` of series": models.SeriesEncoderConfig,
    "`modalities[].encoder.backbone`, kind `resnet`": backbones.ResNetBackboneConfig,
    "`modalities[].encoder.backbone`, kind `huggingface`": backbones.HuggingFaceBackboneConfig,
    "`modalities[].encoder.backbone`, kind `import`": backbones.ImportBackboneConfig,
    "`modalities[].encoder.pooling`, kind `temporal_conv`": models.TemporalConvPoolingConfig,
    "`modalities[].augment` of sound": config.SoundAugmentConfig,
    "`modalities[].augment` of pictures": config.PictureAugmentConfig,
    "`modalities[].augment` of series": config.SeriesAugmentConfig,
    "`stage1`": config.Stage1Config,
    "`stage1.joint`": config.JointConfig,
    "`stage2`": config.Stage2Config,
    "`stage1.optimiser`, `stage2.optimiser`": config.OptimiserConfig,
    "`loss`": config.LossConfig,
    "`fusion`": FusionSpec,
    "`certainty`": config.CertaintyConfig,
    "`compute`": config.ComputeConfig,
    "`logging`": config.LoggingConfig,
    "`compare`": config.CompareConfig,
    "`compare.rivals`": rivals.RivalsConfig,
    "`quality`": QualityThresholds,
}


def shown(default: Any) -> str | None:
    """How a default stands in the docs; None where the docs put it in words."""
    if default is None:
        return "null"
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, tuple) and not any(isinstance(part, BaseModel) for part in default):
        return str(list(default))
    return str(default) if isinstance(default, str | int | float) else None


@pytest.mark.parametrize("title", SECTIONS)
def test_every_field_stands_in_the_reference(title: str) -> None:
    text = (REPOSITORY_ROOT / "docs" / "training.md").read_text()
    section = text.split(f"\n### {title}\n", 1)[1].split("\n### ", 1)[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", section, re.MULTILINE))
    fields = SECTIONS[title].model_fields
    assert list(rows) == list(fields)
    for name, field in fields.items():
        if field.is_required():
            assert rows[name] == "required" or title == "`fusion`"
        elif shown(field.default) is not None:
            assert rows[name] == shown(field.default)
