"""Picture to features: a transformers ResNet built by config."""

from __future__ import annotations

from torch import Tensor, nn
from transformers import ResNetConfig, ResNetModel

from dimml_training.models.config import ResNetBackboneConfig


class ResNetBackbone(nn.Module):
    """FP32 pictures ``[N, channels, H, W]`` to globally averaged features ``[N, D]``."""

    def __init__(self, channels: int, config: ResNetBackboneConfig) -> None:
        super().__init__()
        self.features = config.hidden_sizes[-1]
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


def _small_stem(channels: int, width: int, *, strided: bool) -> nn.Sequential:
    kernel, stride = (5, 2) if strided else (3, 1)
    convolution = nn.Conv2d(channels, width, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU())
