"""Backbones, from a picture or a modality's tensor to features: a ResNet, a transformers model, or a user's module."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import ResNetConfig, ResNetModel

from dimml.errors import ConfigurationError
from dimml_training.models.backbone_config import BackboneConfig, ImportBackboneConfig, ResNetBackboneConfig
from dimml_training.models.huggingface import HuggingFaceBackbone
from dimml_training.models.imported import ImportedBackbone


class ResNetBackbone(nn.Module):
    """FP32 pictures ``[N, channels, H, W]`` to globally averaged features ``[N, D]``."""

    def __init__(self, channels: int, config: ResNetBackboneConfig) -> None:
        super().__init__()
        self.resnet = ResNetModel(
            ResNetConfig(
                num_channels=channels,
                embedding_size=config.embedding_size,
                hidden_sizes=list(config.hidden_sizes),
                depths=list(config.depths),
                layer_type=config.layer_type,
            )
        )
        if config.stem != "imagenet":
            stem = _small_stem(channels, config.embedding_size, strided=config.stem == "strided")
            self.resnet.add_module("embedder", stem)

    def forward(self, pictures_NCHW: Tensor) -> Tensor:
        """Features ``[N, D]``."""
        pooled: Tensor = self.resnet(pictures_NCHW, return_dict=False)[1]
        return pooled.flatten(1)


def build_backbone(config: BackboneConfig, example: Tensor, features: int, *, weights: bool) -> nn.Module:
    """Build a module from FP32 tensors like ``example`` (``[N, channels, H, W]``, or raw; any N) to ``[N, features]``.

    A backbone of another width is followed by a learned linear projection. Without ``weights``, published weights
    are not loaded, because the caller has its own. Raises ConfigurationError if the backbone cannot be built, or does
    not map the example to features.
    """
    if isinstance(config, ResNetBackboneConfig):
        backbone: nn.Module = ResNetBackbone(example.shape[1], config)
        width = config.hidden_sizes[-1]
    elif isinstance(config, ImportBackboneConfig):
        backbone = ImportedBackbone(config)
        width = _width(backbone, example, config.target)
    else:
        backbone = HuggingFaceBackbone(config, example, weights=weights)
        width = _width(backbone, example, config.name or str(config.model_type))
    return backbone if width == features else nn.Sequential(backbone, nn.Linear(width, features))


@torch.no_grad()
def _width(backbone: nn.Module, example: Tensor, what: str) -> int:
    """Width D of a user's or transformers' backbone, found by running it, which also checks that it fits."""
    given = list(example.shape)
    backbone.eval()
    try:
        found = backbone(example)
    except ConfigurationError:
        raise
    except Exception as error:  # foreign code may raise anything
        reason = " ".join(str(error).split())[:300]
        raise ConfigurationError(
            f"{what} does not take a tensor of shape {given}: {type(error).__name__}: {reason}", field="backbone"
        ) from error
    finally:
        backbone.train()
    if not isinstance(found, Tensor) or found.dim() != 2 or len(found) != len(example) or found.dtype != torch.float32:
        shown = f"{found.dtype} {list(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise ConfigurationError(
            f"{what} must map {given} to FP32 features [{len(example)}, D], one row each, but gave {shown}",
            field="backbone",
        )
    return found.shape[1]


def _small_stem(channels: int, width: int, *, strided: bool) -> nn.Sequential:
    kernel, stride = (5, 2) if strided else (3, 1)
    convolution = nn.Conv2d(channels, width, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU())
