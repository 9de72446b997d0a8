"""One modality's encoder: preprocessing, backbone, pooling over frames and the modality's own head in one module.

What is trained is exactly what is exported, so that training and serving cannot drift apart (docs/adr/0002).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy.typing as npt
import torch
from torch import Tensor, nn

from dimml.errors import ConfigurationError
from dimml.modality import Flow, Frames, Kind, Modality, Waveform
from dimml_training.models.backbone import build_backbone
from dimml_training.models.backbone_config import HuggingFaceBackboneConfig
from dimml_training.models.config import EncoderConfig, PictureEncoderConfig, SeriesEncoderConfig, SoundEncoderConfig
from dimml_training.models.huggingface import resolved
from dimml_training.models.narrow_convolution import guard_narrow_convolutions
from dimml_training.models.pooling import build_pooling
from dimml_training.models.series import SeriesEmbedding
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

    @property
    def measures(self) -> bool:
        """Whether its preprocessing has statistics of the training clips."""
        return isinstance(self.embed, SeriesEmbedding)

    def measure(self, batches: Iterable[npt.NDArray[Any]]) -> None:
        """Take these statistics from training rows, in batches ``[N, *modality.shape]``."""
        if isinstance(self.embed, SeriesEmbedding):
            self.embed.measure(batches)

    def forward(self, tensor: Tensor) -> tuple[Tensor, Tensor]:
        """``(features [B, D], logits [B, C])``, FP32."""
        features_BD: Tensor = self.embed(tensor)
        logits_BC: Tensor = self.head(self.dropout(features_BD))
        return features_BD, logits_BC


class SoundEmbedding(nn.Module):
    """FP32 waveform ``[B, samples]`` to features ``[B, D]``."""

    def __init__(self, waveform: Waveform, config: SoundEncoderConfig, *, weights: bool) -> None:
        super().__init__()
        self.spectrogram = LogSpectrogram(waveform, config.spectrogram)
        example = torch.zeros(2, 1, self.spectrogram.bands, self.spectrogram.windows)
        self.backbone = build_backbone(config.backbone, example, config.width, weights=weights)

    def forward(self, waveform_BS: Tensor) -> Tensor:
        """Features ``[B, D]``."""
        features_BD: Tensor = self.backbone(self.spectrogram(waveform_BS))
        return features_BD


class PictureEmbedding(nn.Module):
    """UINT8 frames or flow ``[B, T, H, W, channels]`` to features ``[B, D]``."""

    def __init__(self, modality: Frames | Flow, config: PictureEncoderConfig, *, weights: bool) -> None:
        super().__init__()
        self.frames, height, width, channels = modality.shape
        self.grey = config.grey
        self.per_clip = config.normalise == "clip"
        self.luminance: Tensor
        self.register_buffer("luminance", torch.tensor(LUMINANCE).view(1, 1, 3, 1, 1), persistent=False)
        example = torch.zeros(2, 1 if config.grey else channels, height, width)
        self.backbone = build_backbone(config.backbone, example, config.width, weights=weights)
        self.pooling = build_pooling(self.frames, config.width, config.pooling)

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


class RawEmbedding(nn.Module):
    """A modality's own tensor ``[B, *modality.shape]`` to features ``[B, D]``, all by the backbone."""

    def __init__(self, modality: Modality, config: EncoderConfig, *, weights: bool) -> None:
        super().__init__()
        example = torch.zeros(2, *modality.shape)
        self.backbone = build_backbone(config.backbone, example, config.width, weights=weights)

    def forward(self, tensor: Tensor) -> Tensor:
        """Features ``[B, D]``."""
        features_BD: Tensor = self.backbone(tensor.float())
        return features_BD


def build_encoder(modality: Modality, config: EncoderConfig, classes: int, *, weights: bool = True) -> Encoder:
    """A freshly initialised encoder; without ``weights``, published weights are not loaded: the caller has its own.

    Raises ConfigurationError where ``config`` does not fit the modality, or names a backbone that cannot be built.
    """
    try:
        embed = _embedding(modality, config, weights=weights)
    except ConfigurationError as error:
        raise ConfigurationError(f"modality {modality.name!r}: encoder: {error.message}", field=error.field) from error
    for weight in embed.parameters():
        if weight.dim() == 4:
            # Convolutions of few channels run about a third faster on a CPU in this layout, in training and evaluation.
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    guard_narrow_convolutions(embed)
    return Encoder(embed, config.width, classes, config.dropout)


def resolved_encoder(config: EncoderConfig) -> EncoderConfig:
    """``config`` with the architecture of a model given by name written out (``huggingface.resolved``)."""
    if not isinstance(config.backbone, HuggingFaceBackboneConfig):
        return config
    return config.model_copy(update={"backbone": resolved(config.backbone)})


@dataclass(frozen=True)
class EncoderKind:
    """How the encoder of a kind of modality is configured and built; ``what`` the kind is, in messages."""

    config: type[EncoderConfig]
    embedding: Callable[..., nn.Module]
    what: str


ENCODERS: Final[Mapping[Kind, EncoderKind]] = {
    "waveform": EncoderKind(SoundEncoderConfig, SoundEmbedding, "sound"),
    "frames": EncoderKind(PictureEncoderConfig, PictureEmbedding, "a picture"),
    "flow": EncoderKind(PictureEncoderConfig, PictureEmbedding, "a picture"),
    "series": EncoderKind(SeriesEncoderConfig, SeriesEmbedding, "a series"),
}


def _embedding(modality: Modality, config: EncoderConfig, *, weights: bool) -> nn.Module:
    own = ENCODERS[modality.kind]
    if not isinstance(config, own.config):
        raise ConfigurationError(f"it has fields for {config.fields_for}, and the modality is {own.what}")
    if isinstance(config, PictureEncoderConfig) and config.grey and not modality.rgb:
        raise ConfigurationError("grey applies to frames, not to flow")
    return (RawEmbedding if config.raw else own.embedding)(modality, config, weights=weights)
