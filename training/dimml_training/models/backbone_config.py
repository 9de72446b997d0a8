"""Section ``encoder.backbone``: what maps a picture to features; three kinds, ``resnet`` where none is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator


class ResNetBackboneConfig(BaseModel):
    """A transformers ResNet built by config, without pretrained weights; the defaults are ResNet-18."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["resnet"] = Field(default="resnet", description="A ResNet of any width and depth.")
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


class HuggingFaceBackboneConfig(BaseModel):
    """Any transformers model, by the name of a published one or by type and config (docs/encoders.md)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["huggingface"] = Field(description="A model of the transformers library.")
    name: str | None = Field(
        default=None,
        min_length=1,
        description="Name on the Hugging Face hub, or a local folder: where config and weights come from.",
    )
    model_type: str | None = Field(
        default=None, min_length=1, description="Type of model, such as vit or convnext: built without any download."
    )
    config: dict[str, Any] = Field(default={}, description="Fields of the model's own config that differ.")
    pretrained: bool = Field(default=False, description="Start from the weights of name; otherwise from chance.")
    output: Literal["pooled", "mean"] = Field(
        default="pooled", description="The model's own pooled output, or the mean of its last hidden state."
    )
    input: Literal["picture", "raw"] = Field(
        default="picture",
        description="'picture': frames, or the spectrogram; 'raw': the waveform, for models such as wav2vec2.",
    )

    @model_validator(mode="after")
    def _names_a_model(self) -> HuggingFaceBackboneConfig:
        if self.name is None and self.model_type is None:
            raise ValueError("name (on the hub, or a folder) or model_type is needed")
        if self.name is None and self.pretrained:
            raise ValueError("pretrained needs name: that is where the weights come from")
        return self


class ImportBackboneConfig(BaseModel):
    """A module of your own. Its code runs when the encoder is built: at training, evaluation and export."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["import"] = Field(description="Code of your own.")
    target: str = Field(
        pattern=r"^[\w.]+:[\w.]+$", description="package.module:name of a class or function that gives a torch module."
    )
    args: dict[str, Any] = Field(default={}, description="Keyword arguments it is called with.")
    input: Literal["picture", "raw"] = Field(
        default="picture",
        description="'picture': FP32 [N, channels, H, W], frames or the spectrogram; 'raw': the modality's own tensor, "
        "FP32.",
    )


def _kind(value: Any) -> Any:
    return value.get("kind", "resnet") if isinstance(value, Mapping) else getattr(value, "kind", None)


BackboneConfig = Annotated[
    Annotated[ResNetBackboneConfig, Tag("resnet")]
    | Annotated[HuggingFaceBackboneConfig, Tag("huggingface")]
    | Annotated[ImportBackboneConfig, Tag("import")],
    Discriminator(
        _kind,
        custom_error_type="backbone_kind",
        custom_error_message="kind must be 'resnet', 'huggingface' or 'import'",
    ),
]
