"""One modality's encoder: preprocessing, backbone, pooling over frames and the modality's own head in one module.

What is trained is exactly what is exported, so that training and serving cannot drift apart (design, section 4).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dimml.errors import ConfigurationError
from dimml.modality import Frames, Modality, Waveform
from dimml_training.models.backbone import ResNetBackbone
from dimml_training.models.config import EncoderConfig, PictureEncoderConfig, SoundEncoderConfig
from dimml_training.models.pooling import build_pooling
from dimml_training.models.spectrogram import LogSpectrogram

#: ITU-R BT.601 weights of red, green and blue in luminance.
LUMINANCE = (0.299, 0.587, 0.114)
PIXEL_STD_FLOOR = 1.0


class Encoder(nn.Module):
    """Maps ``[B, *modality.shape]`` in the modality's dtype to features ``[B, D]`` and own logits ``[B, C]``.

    ``features`` is D. Training may also pass FP32 for a UINT8 modality, in the same 0..255 units.
    """

    def __init__(self, embed: nn.Module, features: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.features = features
        self.classes = classes
        self.embed = embed
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(features, classes)

    def forward(self, tensor: Tensor) -> tuple[Tensor, Tensor]:
        """``(features [B, D], logits [B, C])``, FP32."""
        features_BD: Tensor = self.embed(tensor)
        logits_BC: Tensor = self.head(self.dropout(features_BD))
        return features_BD, logits_BC


class SoundEmbedding(nn.Module):
    """FP32 waveform ``[B, samples]`` to features ``[B, D]``."""

    def __init__(self, waveform: Waveform, config: SoundEncoderConfig) -> None:
        super().__init__()
        self.spectrogram = LogSpectrogram(waveform, config.spectrogram)
        self.backbone = ResNetBackbone(1, config.backbone)

    def forward(self, waveform_BS: Tensor) -> Tensor:
        """Features ``[B, D]``."""
        features_BD: Tensor = self.backbone(self.spectrogram(waveform_BS))
        return features_BD


class PictureEmbedding(nn.Module):
    """UINT8 frames or flow ``[B, T, H, W, channels]`` to features ``[B, D]``."""

    def __init__(self, frames: int, channels: int, config: PictureEncoderConfig) -> None:
        super().__init__()
        self.frames = frames
        self.grey = config.grey
        self.per_clip = config.normalise == "clip"
        self.luminance: Tensor
        self.register_buffer("luminance", torch.tensor(LUMINANCE).view(1, 1, 3, 1, 1), persistent=False)
        self.backbone = ResNetBackbone(1 if config.grey else channels, config.backbone)
        self.pooling = build_pooling(frames, config.backbone.hidden_sizes[-1], config.pooling)

    def forward(self, pictures_BTHWC: Tensor) -> Tensor:
        """Features ``[B, D]``."""
        pixels = pictures_BTHWC.permute(0, 1, 4, 2, 3).float()
        if self.grey:
            pixels = (pixels * self.luminance).sum(dim=2, keepdim=True)
        if self.per_clip:
            centred = pixels - pixels.mean(dim=(1, 2, 3, 4), keepdim=True)
            deviation = centred.square().mean(dim=(1, 2, 3, 4), keepdim=True).sqrt()
            pixels = centred / (deviation + PIXEL_STD_FLOOR)
        else:
            pixels = pixels / 127.5 - 1.0
        # Frames are folded into the batch and unfolded with -1 for B: it stays dynamic in the exported graph.
        features_ND: Tensor = self.backbone(pixels.flatten(0, 1))
        features_BD: Tensor = self.pooling(features_ND.reshape(-1, self.frames, features_ND.shape[1]))
        return features_BD


def build_encoder(modality: Modality, config: EncoderConfig, classes: int) -> Encoder:
    """A freshly initialised encoder. Raises ConfigurationError where ``config`` does not fit the modality."""
    embed: nn.Module
    if isinstance(modality, Waveform):
        if not isinstance(config, SoundEncoderConfig):
            raise ConfigurationError(f"modality {modality.name!r} is sound; its encoder has fields for pictures")
        embed = SoundEmbedding(modality, config)
    else:
        if not isinstance(config, PictureEncoderConfig):
            raise ConfigurationError(f"modality {modality.name!r} is a picture; its encoder has fields for sound")
        if config.grey and not isinstance(modality, Frames):
            raise ConfigurationError(f"modality {modality.name!r}: encoder.grey applies to frames, not to flow")
        embed = PictureEmbedding(modality.frames, modality.shape[-1], config)
    return Encoder(embed, config.backbone.hidden_sizes[-1], classes, config.dropout)
