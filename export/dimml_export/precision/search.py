"""Which layers stay in FP32: none where every head keeps its accuracy, else the most harmful ones, found by measuring.

A layer's harm is the mean squared difference of the own head's logits from those in FP32, on a few calibration clips,
with this layer alone quantised. Layers of a head that loses too much on the judged clips are given back to FP32 one
after another, the most harmful first, until none does, or until ``MOST_LEFT`` have been.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import nn

from dimml_export.precision.figures import harmful
from dimml_export.precision.int8 import Int8Encoder
from dimml_export.precision.session_encoder import SessionEncoder

logger = logging.getLogger(__name__)

#: Layers of one encoder that may be left in FP32.
MOST_LEFT: Final = 8
#: Calibration clips on which a layer's harm is measured.
HARM_CLIPS: Final = 32

#: Accuracy lost by each head, by name, with these encoders.
Losses = Callable[[Mapping[str, nn.Module]], Mapping[str, float]]


@dataclass(frozen=True)
class Found:
    """Quantised encoders by modality, the layers left in FP32, most harmful first, and the steps that led there."""

    models: dict[str, onnx.ModelProto]
    left_in_float: dict[str, tuple[str, ...]]
    #: Of each step, ``left_in_float``, the number of layers by modality, and ``lost``, accuracy by head.
    steps: tuple[dict[str, Any], ...]


def search(
    encoders: Mapping[str, Int8Encoder],
    float_models: Mapping[str, onnx.ModelProto],
    clips: Mapping[str, npt.NDArray[Any]],
    losses: Losses,
    say: Callable[[str], None] = lambda _: None,
) -> Found:
    """Quantise every encoder, and leave layers of those in FP32 whose heads lose too much.

    ``clips`` are calibration clips ``[N, *shape]`` by modality. Heads may still lose too much: the caller refuses then.
    """
    left: dict[str, list[str]] = {name: [] for name in encoders}
    ranking: dict[str, list[str]] = {}
    models = {name: encoder.model() for name, encoder in encoders.items()}
    steps: list[dict[str, Any]] = []

    def found() -> Found:
        return Found(models, {modality: tuple(layers) for modality, layers in left.items()}, tuple(steps))

    while True:
        lost = losses({name: SessionEncoder(model) for name, model in models.items()})
        steps.append({"left_in_float": {name: len(layers) for name, layers in left.items()}, "lost": dict(lost)})
        logger.info("accuracy lost by head: %s; in FP32: %s", dict(lost), left)
        name = _next(harmful(lost), left)
        if name is None:
            return found()
        if name not in ranking:
            say(f"{name}: measuring which layers int8 hurts")
            ranking[name] = harm_ranking(encoders[name], float_models[name], clips[name][:HARM_CLIPS])
        if len(left[name]) == len(ranking[name]):
            return found()
        left[name].append(ranking[name][len(left[name])])
        say(f"{name}: trying with {len(left[name])} layers in FP32")
        models[name] = encoders[name].model(left[name])


def harm_ranking(encoder: Int8Encoder, float_model: onnx.ModelProto, clips: npt.NDArray[Any]) -> list[str]:
    """Name the ``MOST_LEFT`` layers that change the logits most when quantised alone, the most harmful first."""
    wanted = _logits(float_model, clips)
    harm = {
        layer: float(np.square(_logits(encoder.model(only=[layer]), clips) - wanted).mean()) for layer in encoder.layers
    }
    ranked = sorted(encoder.layers, key=lambda layer: -harm[layer])
    logger.info("harm of each layer alone: %s", {layer: harm[layer] for layer in ranked})
    # All layers in FP32 would be an encoder that is int8 in name only.
    return ranked[: min(MOST_LEFT, len(ranked) - 1)]


def _next(heads: list[str], left: Mapping[str, list[str]]) -> str | None:
    """Modality whose layers to give back: the one whose own head loses too much, else the one with the fewest."""
    if not heads:
        return None
    own = [head for head in heads if head in left]
    if own:
        return own[0]
    # The fused head or the answer loses: it comes from all of them.
    return min(left, key=lambda name: len(left[name]))


@torch.no_grad()
def _logits(model: onnx.ModelProto, clips: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    encoder = SessionEncoder(model)
    parts = [encoder(torch.from_numpy(clips[start : start + 8]))[1].numpy() for start in range(0, len(clips), 8)]
    return np.concatenate(parts)
