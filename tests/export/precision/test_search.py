"""The search for layers that int8 hurts: against the harm that each layer does, measured here by itself."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from dimml_export.precision.int8 import Int8Encoder
from dimml_export.precision.search import harm_ranking, search
from dimml_export.precision.session_encoder import SessionEncoder
from support.small_graphs import convolutional, sounds

CLIPS = sounds(24)


def fragile() -> onnx.ModelProto:
    """An outlier in one input channel of the second convolution, which spoils the range of what that reads."""
    model = convolutional()
    for one in model.graph.initializer:
        if one.name in ("first", "second"):
            weight = numpy_helper.to_array(one).copy()
            if one.name == "first":
                weight[0] *= 2000
            else:
                weight[:, 0] /= 2000
            one.CopyFrom(numpy_helper.from_array(weight, one.name))
    return model


@pytest.fixture(scope="module")
def encoder() -> Int8Encoder:
    return Int8Encoder(fragile(), CLIPS)


def logits(model: onnx.ModelProto) -> np.ndarray:
    return SessionEncoder(model)(torch.from_numpy(CLIPS))[1].numpy()


def test_layers_are_ranked_by_what_each_does_alone(encoder: Int8Encoder) -> None:
    wanted = logits(fragile())
    harm = {layer: np.square(logits(encoder.model(only=[layer])) - wanted).mean() for layer in encoder.layers}
    ranked = harm_ranking(encoder, fragile(), CLIPS)
    assert ranked == sorted(harm, key=lambda layer: -harm[layer])[:2], "one layer must stay in int8"


def test_nothing_is_left_in_float_where_nothing_is_lost(encoder: Int8Encoder) -> None:
    found = search({"audio": encoder}, {"audio": fragile()}, {"audio": CLIPS}, lambda _: {"audio": 0.005})
    assert found.left_in_float == {"audio": ()}
    assert found.models["audio"] == encoder.model()
    assert found.steps == ({"left_in_float": {"audio": 0}, "lost": {"audio": 0.005}},)


def test_the_most_harmful_layers_go_back_until_the_head_is_as_good(encoder: Int8Encoder) -> None:
    ranked = harm_ranking(encoder, fragile(), CLIPS)
    wanted = logits(fragile())
    errors = [float(np.square(logits(encoder.model(ranked[:kept])) - wanted).mean()) for kept in range(3)]
    assert errors[1] < errors[0]

    def losses(encoders: Mapping[str, nn.Module]) -> dict[str, float]:
        own = encoders["audio"](torch.from_numpy(CLIPS))[1].numpy()
        return {"audio": 0.2 if np.square(own - wanted).mean() > errors[1] + 1e-12 else 0.0, "fused": 0.0}

    found = search({"audio": encoder}, {"audio": fragile()}, {"audio": CLIPS}, losses)
    assert found.left_in_float == {"audio": (ranked[0],)}
    assert found.models["audio"] == encoder.model(ranked[:1])
    assert [step["lost"]["audio"] for step in found.steps] == [0.2, 0.0]


def test_a_fused_head_that_loses_gives_back_layers_of_one_encoder_after_the_other(encoder: Int8Encoder) -> None:
    tried: list[int] = []

    def losses(_: Mapping[str, nn.Module]) -> dict[str, float]:
        tried.append(1)
        return {"audio": 0.0, "rear": 0.0, "fused": 0.3 if len(tried) <= 3 else 0.0}

    both = dict.fromkeys(("audio", "rear"), encoder)
    left = search(both, dict.fromkeys(both, fragile()), dict.fromkeys(both, CLIPS), losses).left_in_float
    assert {name: len(layers) for name, layers in left.items()} == {"audio": 2, "rear": 1}


def test_the_search_ends_where_no_layer_helps(encoder: Int8Encoder) -> None:
    found = search({"audio": encoder}, {"audio": fragile()}, {"audio": CLIPS}, lambda _: {"audio": float("inf")})
    assert len(found.left_in_float["audio"]) == 2
