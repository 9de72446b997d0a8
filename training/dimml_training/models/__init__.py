"""Encoders: what a bundle's ONNX models are made from."""

from dimml_training.models.config import (
    EncoderConfig,
    MeanPoolingConfig,
    PictureEncoderConfig,
    ResNetBackboneConfig,
    SoundEncoderConfig,
    SpectrogramConfig,
    TemporalConvPoolingConfig,
)
from dimml_training.models.encoder import Encoder, build_encoder

__all__ = [
    "Encoder",
    "EncoderConfig",
    "MeanPoolingConfig",
    "PictureEncoderConfig",
    "ResNetBackboneConfig",
    "SoundEncoderConfig",
    "SpectrogramConfig",
    "TemporalConvPoolingConfig",
    "build_encoder",
]
