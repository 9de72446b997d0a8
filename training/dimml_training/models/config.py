"""How an encoder is built: typed, frozen, every field described."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SpectrogramConfig(_Config):
    """From waveform to a one-channel picture, inside the encoder."""

    window_ms: float = Field(default=25.0, gt=0.0, description="Length of the Hann window.")
    hop_ms: float = Field(default=10.0, gt=0.0, description="Step between two windows.")
    mels: int | None = Field(
        default=64, ge=4, description="Mel bands; null keeps every bin of the DFT, as the paper does."
    )
    normalise: Literal["clip", "learned"] = Field(
        default="clip",
        description="'clip': each clip at the same loudness, its log powers at zero mean and unit deviation, so that "
        "loudness does not matter; 'learned': batch normalisation per band, which sees loudness.",
    )
    mask_bands: float = Field(
        default=0.0, ge=0.0, lt=1.0, description="Training only: up to this share of the bands is blanked per clip."
    )
    mask_time: float = Field(
        default=0.0, ge=0.0, lt=1.0, description="Training only: up to this share of the time is blanked per clip."
    )


class ResNetBackboneConfig(_Config):
    """A transformers ResNet built by config, without pretrained weights; the defaults are ResNet-18."""

    layer_type: Literal["basic", "bottleneck"] = Field(
        default="basic", description="'basic': two 3x3 convolutions a block; 'bottleneck': 1x1, 3x3, 1x1."
    )
    embedding_size: int = Field(default=64, ge=1, description="Channels of the stem.")
    hidden_sizes: tuple[int, ...] = Field(
        default=(64, 128, 256, 512), min_length=1, description="Channels of each stage; the last one is D."
    )
    depths: tuple[int, ...] = Field(default=(2, 2, 2, 2), min_length=1, description="Blocks in each stage.")
    stem: Literal["imagenet", "strided", "plain"] = Field(
        default="imagenet",
        description="'imagenet': 7x7 stride 2 and max pooling (divides the picture by 4); 'strided': 5x5 stride 2 "
        "(by 2); 'plain': 3x3 stride 1 (keeps it), for small pictures.",
    )

    @model_validator(mode="after")
    def _fits(self) -> ResNetBackboneConfig:
        if len(self.depths) != len(self.hidden_sizes):
            raise ValueError("depths and hidden_sizes must have one entry per stage each")
        if min(self.depths) < 1 or min(self.hidden_sizes) < 1:
            raise ValueError("depths and hidden_sizes must be at least 1")
        if self.layer_type == "bottleneck" and min(self.hidden_sizes) < 4:
            raise ValueError("hidden_sizes of bottleneck layers must be at least 4")
        return self


class MeanPoolingConfig(_Config):
    """The paper's: the mean over frames, blind to their order."""

    kind: Literal["mean"] = "mean"


class TemporalConvPoolingConfig(_Config):
    """Residual convolutions over time with a learned embedding of the frame's position, then the mean."""

    kind: Literal["temporal_conv"] = "temporal_conv"
    layers: int = Field(default=2, ge=1, le=8, description="Residual convolutions; each doubles the dilation.")
    kernel: int = Field(default=3, ge=3, le=15, description="Frames that one convolution sees; odd.")
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0, description="Of whole channels, between the convolutions.")

    @model_validator(mode="after")
    def _has_a_middle(self) -> TemporalConvPoolingConfig:
        if self.kernel % 2 == 0:
            raise ValueError("kernel must be odd, so that a convolution sees as far back as ahead")
        return self


PoolingConfig = MeanPoolingConfig | TemporalConvPoolingConfig


class SoundEncoderConfig(_Config):
    """Encoder of a ``waveform`` modality."""

    spectrogram: SpectrogramConfig = Field(default=SpectrogramConfig(), description="From waveform to picture.")
    backbone: ResNetBackboneConfig = Field(default=ResNetBackboneConfig(), description="From picture to features.")
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0, description="Before the modality's own head.")


class PictureEncoderConfig(_Config):
    """Encoder of a ``frames`` or ``flow`` modality."""

    backbone: ResNetBackboneConfig = Field(default=ResNetBackboneConfig(), description="From frame to features.")
    pooling: PoolingConfig = Field(default=MeanPoolingConfig(), discriminator="kind", description="Over frames.")
    grey: bool = Field(default=False, description="Frames only: reduce RGB to luminance first.")
    normalise: Literal["clip", "fixed"] = Field(
        default="fixed",
        description="'fixed': 0..255 to -1..1; 'clip': zero mean and unit deviation of each clip, so that light and "
        "contrast do not matter.",
    )
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0, description="Before the modality's own head.")


EncoderConfig = SoundEncoderConfig | PictureEncoderConfig
