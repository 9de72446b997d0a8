"""A transformers model as a backbone: by name on the hub, from a local folder, or by type and config."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig

from dimml.errors import ConfigurationError
from dimml_training.models.backbone_config import HuggingFaceBackboneConfig

#: Pretrained models of pictures expect red, green and blue; a picture of one channel is given to them three times.
RGB = 3
VARIANCE_FLOOR = 1e-7


class HuggingFaceBackbone(nn.Module):
    """FP32 pictures ``[N, channels, H, W]``, or waveforms ``[N, samples]`` where raw, to features ``[N, D]``.

    A model with random weights is built for the modality's channels and size of picture. A pretrained one stays as
    published: grey is repeated for its three channels, and its position embedding interpolated. Raises
    ConfigurationError if the model cannot be loaded, or takes another kind of input.
    """

    def __init__(self, config: HuggingFaceBackboneConfig, example: Tensor, *, weights: bool) -> None:
        super().__init__()
        config = resolved(config)
        architecture = _architecture(config)
        self.raw = config.input == "raw"
        self.output = config.output
        self.repeats = 1
        if not self.raw:
            channels, height, width = example.shape[1:]
            if not config.pretrained:
                for name, value in (("num_channels", channels), ("image_size", (height, width))):
                    if hasattr(architecture, name):
                        setattr(architecture, name, value)
            elif getattr(architecture, "num_channels", channels) != channels:
                if channels != 1:
                    raise ConfigurationError(
                        f"{config.name} takes {architecture.num_channels} channels, the modality has {channels}; with "
                        "pretrained: false it is built for them",
                        field="backbone.pretrained",
                    )
                self.repeats = architecture.num_channels
        # Its masks come from numpy's global generator: a resumed run would draw others.
        if hasattr(architecture, "apply_spec_augment"):
            architecture.apply_spec_augment = False
        self.model = _model(config, architecture, weights=weights)
        wanted = "input_values" if self.raw else "pixel_values"
        if self.model.main_input_name != wanted:
            raise ConfigurationError(
                f"{architecture.model_type} takes {self.model.main_input_name}; a backbone with input: {config.input} "
                f"must take {wanted}",
                field="backbone.input",
            )
        interpolates = "interpolate_pos_encoding" in inspect.signature(self.model.forward).parameters
        self.options = {"interpolate_pos_encoding": True} if config.pretrained and interpolates else {}

    def forward(self, tensor: Tensor) -> Tensor:
        """Features ``[N, D]``."""
        if self.raw:
            # Zero mean and unit variance, as transformers' own feature extractors of waveforms have it.
            centred = tensor - tensor.mean(dim=1, keepdim=True)
            tensor = centred / (centred.square().mean(dim=1, keepdim=True) + VARIANCE_FLOOR).sqrt()
        elif self.repeats > 1:
            tensor = tensor.expand(-1, self.repeats, -1, -1)
        found = self.model(tensor, **self.options, return_dict=True)
        if self.output == "pooled":
            pooled: Tensor | None = getattr(found, "pooler_output", None)
            if pooled is None:
                raise ConfigurationError("the model has no pooled output; set output: mean", field="backbone.output")
            return pooled.flatten(1)
        hidden: Tensor = found.last_hidden_state
        return hidden.mean(dim=1) if hidden.dim() == 3 else hidden.flatten(2).mean(dim=2)


def resolved(config: HuggingFaceBackboneConfig) -> HuggingFaceBackboneConfig:
    """Return ``config`` with the architecture behind its name written out.

    A run saves this config, so that it can be loaded and exported without the hub or the folder. Raises
    ConfigurationError if no model is found under the name.
    """
    if config.name is None or config.model_type is not None:
        return config
    name = config.name
    found = _asked(name, lambda: AutoConfig.from_pretrained(name, trust_remote_code=False))
    known = _known_fields(found.model_type)
    published = {key: value for key, value in found.to_diff_dict().items() if key in known}
    for noise in ("architectures", "dtype", "id2label", "label2id", "model_type", "transformers_version"):
        published.pop(noise, None)
    return config.model_copy(update={"model_type": found.model_type, "config": {**published, **config.config}})


def _architecture(config: HuggingFaceBackboneConfig) -> PretrainedConfig:
    model_type = str(config.model_type)
    unknown = sorted(set(config.config) - _known_fields(model_type))
    if unknown:
        raise ConfigurationError(
            f"{model_type} has no config field {unknown[0]!r}", field=f"backbone.config.{unknown[0]}"
        )
    try:
        architecture: PretrainedConfig = AutoConfig.for_model(model_type, **config.config)
    except Exception as error:  # every model checks its fields in its own way
        reason = " ".join(str(error).split())
        raise ConfigurationError(f"the config of {model_type}: {reason}", field="backbone.config") from error
    return architecture


def _known_fields(model_type: str) -> set[str]:
    try:
        default = AutoConfig.for_model(model_type)
    except ValueError as error:
        raise ConfigurationError(
            f"transformers knows no model_type {model_type!r}; its documentation lists them, such as vit or convnext",
            field="backbone.model_type",
        ) from error
    return {*default.to_dict(), *default.attribute_map}


def _model(config: HuggingFaceBackboneConfig, architecture: PretrainedConfig, *, weights: bool) -> nn.Module:
    name = config.name
    if weights and config.pretrained and name is not None:
        # In FP32 whatever was published: what is trained here is FP32.
        loaded: nn.Module = _asked(
            name, lambda: AutoModel.from_pretrained(name, config=architecture, dtype=torch.float32)
        )
        return loaded.train()
    try:
        # transformers' factories have no types.
        model: nn.Module = AutoModel.from_config(architecture)  # type: ignore[no-untyped-call]
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ConfigurationError(f"{architecture.model_type}: {reason}", field="backbone.config") from error
    return model


def _asked(name: str, ask: Callable[[], Any]) -> Any:
    """Call ``ask``, which reads a published model's files, and turn its errors into a ConfigurationError."""
    try:
        return ask()
    except Exception as error:  # no such name, no network, a damaged file: each has errors of its own
        raise ConfigurationError(
            f"the model {name} cannot be loaded: it is neither a folder with a model nor within reach on the Hugging "
            "Face hub. Download it where there is a network and give its folder, or build one with model_type and "
            f"config. ({type(error).__name__})",
            field="backbone.name",
        ) from error
