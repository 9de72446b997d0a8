"""Encoders, which an export turns into a bundle's ONNX models."""

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
    SoundEncoderConfig,
    SpectrogramConfig,
    TemporalConvPoolingConfig,
)
from dimml_training.models.encoder import Encoder, build_encoder, resolved_encoder

__all__ = [
    "BackboneConfig",
    "Encoder",
    "EncoderConfig",
    "HuggingFaceBackboneConfig",
    "ImportBackboneConfig",
    "MeanPoolingConfig",
    "PictureEncoderConfig",
    "ResNetBackboneConfig",
    "SoundEncoderConfig",
    "SpectrogramConfig",
    "TemporalConvPoolingConfig",
    "build_encoder",
    "resolved_encoder",
]
