"""Encoders, which an export turns into a bundle's ONNX models.

Here are their configs alone: ``encoder`` imports torch, for which a misspelt field of a config must not wait.
"""

from dimml_training.models.backbone_config import (
    BackboneConfig,
    HuggingFaceBackboneConfig,
    ImportBackboneConfig,
    ResNetBackboneConfig,
)
from dimml_training.models.config import (
    EncoderConfig,
    MeanPoolingConfig,
    PictureEncoderConfig,
    SeriesEncoderConfig,
    SoundEncoderConfig,
    SpectrogramConfig,
    TemporalConvPoolingConfig,
)

__all__ = [
    "BackboneConfig",
    "EncoderConfig",
    "HuggingFaceBackboneConfig",
    "ImportBackboneConfig",
    "MeanPoolingConfig",
    "PictureEncoderConfig",
    "ResNetBackboneConfig",
    "SeriesEncoderConfig",
    "SoundEncoderConfig",
    "SpectrogramConfig",
    "TemporalConvPoolingConfig",
]
