"""Encoders in FP16: the body's weights, and that nothing of front end and head is rounded."""

from __future__ import annotations

import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from dimml.errors import BundleError
from dimml_export.precision.fp16 import fp16_model
from support.small_graphs import convolutional, sounds


@pytest.fixture(scope="module")
def half() -> onnx.ModelProto:
    found, layers = fp16_model(convolutional())
    assert layers == 2
    return found


def test_only_the_bodys_weights_are_halved(half: onnx.ModelProto) -> None:
    types = {one.name.removesuffix("_in_fp32"): numpy_helper.to_array(one).dtype for one in half.graph.initializer}
    halved = {name for name, dtype in types.items() if dtype == np.float16}
    assert halved == {"first", "first_bias", "second"}


def test_inputs_and_outputs_stay_in_float(half: onnx.ModelProto) -> None:
    for value in (*half.graph.input, *half.graph.output):
        assert value.type.tensor_type.elem_type == TensorProto.FLOAT


def test_the_front_end_is_computed_to_the_last_bit_as_before(half: onnx.ModelProto) -> None:
    """The converter alone would pass every tensor between two of its nodes through FP16."""
    clips = 1e-3 * sounds(4)  # powers far below the smallest number of FP16
    before, after = convolutional(), half
    found = []
    for model in (before, after):
        (node,) = [node for node in model.graph.node if node.name == "front.centred"]
        looked_at = onnx.ModelProto()
        looked_at.CopyFrom(model)
        looked_at.graph.output.append(onnx.helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None))
        found.append(ReferenceEvaluator(looked_at).run([node.output[0]], {"WAVEFORM": clips})[0])
    np.testing.assert_array_equal(found[0], found[1])


def test_logits_are_near_those_of_float(half: onnx.ModelProto) -> None:
    import onnxruntime as ort

    clips = sounds(8)
    wanted = ReferenceEvaluator(convolutional()).run(["LOGITS"], {"WAVEFORM": clips})[0]
    session = ort.InferenceSession(half.SerializeToString(), providers=["CPUExecutionProvider"])
    (logits,) = session.run(["LOGITS"], {"WAVEFORM": clips})
    assert logits.dtype == np.float32
    assert 0 < np.abs(logits - wanted).max() < 0.01 * np.std(wanted)


def test_the_import_path_stays_as_it_was() -> None:
    before = list(sys.path)
    for name in [name for name in sys.modules if name.startswith("onnxruntime.transformers")]:
        del sys.modules[name]
    fp16_model(convolutional())
    assert sys.path == before


def test_an_encoder_without_a_body_is_refused() -> None:
    model = convolutional()
    (relu,) = [node for node in model.graph.node if node.name == "body.add_relu"]
    relu.op_type = "Log"
    with pytest.raises(BundleError, match="there is nothing to convert"):
        fp16_model(model)
