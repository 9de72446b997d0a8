"""Section ``encoder``: the parts of an encoder and their settings."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dimml_training.models.backbone_config import BackboneConfig, HuggingFaceBackboneConfig, ResNetBackboneConfig


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SpectrogramConfig(_Config):
    """Log spectrogram: a waveform as a one-channel picture, computed inside the encoder."""

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


class _EncoderConfig(_Config):
    """Fields shared by the encoders of all kinds of modality."""

    #: In messages.
    fields_for: ClassVar[str]

    backbone: BackboneConfig = Field(default=ResNetBackboneConfig(), description="From picture to features.")
    features: int | None = Field(
        default=None,
        ge=1,
        description="D, the same for all modalities; null: the last of the ResNet's hidden_sizes. A backbone of "
        "another width gets a learned linear projection to it.",
    )
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0, description="Before the modality's own head.")

    @model_validator(mode="after")
    def _width_is_known(self) -> Self:
        if self.features is None and not isinstance(self.backbone, ResNetBackboneConfig):
            raise ValueError(
                f"features is needed with backbone.kind {self.backbone.kind}: the width D that all modalities share"
            )
        return self

    @property
    def width(self) -> int:
        """D, the width of the encoder's features."""
        sizes = self.backbone.hidden_sizes if isinstance(self.backbone, ResNetBackboneConfig) else ()
        return sizes[-1] if self.features is None else self.features

    def _refuse_beside_raw(self, *names: str) -> None:
        """Refuse settings of steps before or after a backbone that takes the modality's own tensor: it has none."""
        for name in names:
            if self.raw and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} has no effect with backbone.input: raw; leave it out")

    @property
    def raw(self) -> bool:
        """Whether the backbone takes the modality's own tensor."""
        return not isinstance(self.backbone, ResNetBackboneConfig) and self.backbone.input == "raw"


class SoundEncoderConfig(_EncoderConfig):
    """Encoder of a ``waveform`` modality."""

    fields_for: ClassVar[str] = "sound"

    spectrogram: SpectrogramConfig = Field(default=SpectrogramConfig(), description="From waveform to picture.")

    @model_validator(mode="after")
    def _raw_stands_alone(self) -> Self:
        self._refuse_beside_raw("spectrogram")
        return self


class PictureEncoderConfig(_EncoderConfig):
    """Encoder of a ``frames`` or ``flow`` modality."""

    fields_for: ClassVar[str] = "pictures"

    pooling: PoolingConfig = Field(default=MeanPoolingConfig(), discriminator="kind", description="Over frames.")
    grey: bool = Field(default=False, description="Frames only: reduce RGB to luminance first.")
    normalise: Literal["clip", "fixed"] = Field(
        default="fixed",
        description="'fixed': 0..255 to -1..1; 'clip': zero mean and unit deviation of each clip, so that light and "
        "contrast do not matter.",
    )

    @model_validator(mode="after")
    def _raw_stands_alone(self) -> Self:
        self._refuse_beside_raw("pooling", "grey", "normalise")
        if self.raw and isinstance(self.backbone, HuggingFaceBackboneConfig):
            raise ValueError("backbone.input: raw with kind huggingface is for sound; pictures go frame by frame")
        return self


class SeriesEncoderConfig(_EncoderConfig):
    """Encoder of a ``series`` modality."""

    fields_for: ClassVar[str] = "series"

    backbone: BackboneConfig = Field(
        default=ResNetBackboneConfig(embedding_size=32, hidden_sizes=(32, 64, 128), depths=(1, 1, 1), stem="plain"),
        description="From the normalised channels to features: a resnet, of convolutions over time; or one that takes "
        "the modality's own tensor (input: raw), with NaN where a value is missing.",
    )
    kernel: int = Field(default=5, ge=3, le=63, description="Samples that one convolution of the resnet sees; odd.")

    @model_validator(mode="after")
    def _fits_time(self) -> Self:
        if self.kernel % 2 == 0:
            raise ValueError("kernel must be odd, so that a convolution sees as far back as ahead")
        self._refuse_beside_raw("kernel")
        if self.backbone.kind == "huggingface":
            raise ValueError("backbone.kind: huggingface is for sound and pictures; a series takes resnet or import")
        if self.backbone.kind == "resnet" and self.backbone.layer_type != "basic":
            raise ValueError("backbone.layer_type of a series is basic")
        if self.backbone.kind == "import" and not self.raw:
            raise ValueError("backbone.input of a series is raw: there is no picture of it")
        return self


EncoderConfig = SoundEncoderConfig | PictureEncoderConfig | SeriesEncoderConfig
