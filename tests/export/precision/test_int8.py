"""Quantised encoders: what the graph holds, against the numbers that quantisation is defined by."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from dimml.errors import BundleError
from dimml_export.precision.int8 import Int8Encoder
from dimml_export.precision.session_encoder import SessionEncoder
from support.small_graphs import convolutional, sounds

CLIPS = sounds(37)  # no multiple of the calibration's batch


@pytest.fixture(scope="module")
def encoder() -> Int8Encoder:
    return Int8Encoder(convolutional(), CLIPS)


@pytest.fixture(scope="module")
def quantised(encoder: Int8Encoder) -> onnx.ModelProto:
    return encoder.model()


def constants(model: onnx.ModelProto) -> dict[str, npt.NDArray[Any]]:
    return {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}


def by_output(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    return {output: node for node in model.graph.node for output in node.output}


def node_of(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.name == name)


def values(model: onnx.ModelProto, tensor: str, clips: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A tensor of the FP32 graph by ONNX's own reference implementation."""
    wanted = onnx.ModelProto()
    wanted.CopyFrom(model)
    wanted.graph.output.append(onnx.helper.make_tensor_value_info(tensor, TensorProto.FLOAT, None))
    return np.asarray(ReferenceEvaluator(wanted).run([tensor], {"WAVEFORM": clips})[0])


def test_layers_are_those_with_weights_and_additions_of_the_body(encoder: Int8Encoder) -> None:
    assert encoder.layers == ("body.first", "body.second", "body.add")


def test_weights_are_signed_and_scaled_per_channel(quantised: onnx.ModelProto) -> None:
    there, made = constants(quantised), by_output(quantised)
    weights = constants(convolutional())
    for name, weight in (("body.first", "first"), ("body.second", "second")):
        dequantise = made[node_of(quantised, name).input[1]]
        assert dequantise.op_type == "DequantizeLinear"
        quantity, scale, zero = (there[one] for one in dequantise.input)
        assert (quantity.dtype, zero.dtype) == (np.int8, np.int8)
        assert not zero.any()
        # Symmetric, per channel of the output: the largest weight of each becomes 127.
        np.testing.assert_allclose(scale, np.abs(weights[weight]).max(axis=(1, 2)) / 127, rtol=1e-5)
        np.testing.assert_array_equal(quantity, np.round(weights[weight] / scale[:, None, None]))


def test_activations_are_unsigned_over_the_range_of_the_calibration_clips(quantised: onnx.ModelProto) -> None:
    there, made = constants(quantised), by_output(quantised)
    dequantise = made[node_of(quantised, "body.first").input[0]]
    quantise = made[dequantise.input[0]]
    assert (dequantise.op_type, quantise.op_type) == ("DequantizeLinear", "QuantizeLinear")
    scale, zero = there[quantise.input[1]], there[quantise.input[2]]
    assert zero.dtype == np.uint8
    reached = values(convolutional(), "centred", CLIPS)
    lowest, highest = min(reached.min(), 0), max(reached.max(), 0)
    np.testing.assert_allclose(scale, (highest - lowest) / 255, rtol=1e-4)
    assert abs(int(zero) - round(-lowest / float(scale))) <= 1


def test_front_end_mean_and_head_stay_in_float(quantised: onnx.ModelProto) -> None:
    made = by_output(quantised)
    for node in quantised.graph.node:
        if node.name.startswith("front.") or node.name == "head":
            for name in node.input:
                assert name not in made or made[name].op_type != "DequantizeLinear", f"{node.name} reads {name}"
    before = {node.name: node for node in convolutional().graph.node}
    kept = [node.name for node in quantised.graph.node if node.name.startswith("front.")]
    assert kept == [name for name in before if name.startswith("front.")]


def test_the_quantised_encoder_computes_about_what_the_float_one_does(quantised: onnx.ModelProto) -> None:
    """The reference implementation of ONNX on the quantised graph, and ONNX Runtime's kernels, which fuse it."""
    clips = CLIPS[:16]  # others may reach beyond the calibrated ranges
    features, logits = ReferenceEvaluator(convolutional()).run(["FEATURES", "LOGITS"], {"WAVEFORM": clips})
    readable = onnx.ModelProto()
    readable.CopyFrom(quantised)
    # The reference has no DequantizeLinear of opset 18; that of 19 differs in types that are not used here.
    readable.opset_import[0].version = 19
    theirs = ReferenceEvaluator(readable).run(["LOGITS"], {"WAVEFORM": clips})[0]
    spread = float(np.std(logits))
    assert 0 < np.abs(theirs - logits).max() < 0.1 * spread
    import torch

    ours = [one.numpy() for one in SessionEncoder(quantised)(torch.from_numpy(clips))]
    assert np.abs(ours[1] - logits).max() < 0.1 * spread
    assert np.abs(ours[0] - features).max() < 0.1 * np.abs(features).max()


def test_layers_in_float_have_their_own_weights(encoder: Int8Encoder) -> None:
    left = encoder.model(["body.second"])
    assert node_of(left, "body.second").input[1] == "second"
    assert node_of(left, "body.first").input[1] != "first"
    alone = encoder.model(only=["body.second"])
    assert node_of(alone, "body.second").input[1] != "second"
    assert node_of(alone, "body.first").input[1] == "first"
    assert sum(node.op_type == "QuantizeLinear" for node in alone.graph.node) == 2


def test_an_encoder_without_anything_to_quantise_is_refused() -> None:
    model = convolutional()
    (relu,) = [node for node in model.graph.node if node.name == "body.add_relu"]
    relu.op_type = "Log"
    with pytest.raises(BundleError, match=r"small_audio: there is nothing to quantise between .* without --precision"):
        Int8Encoder(model, CLIPS)
