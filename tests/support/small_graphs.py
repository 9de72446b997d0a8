"""Encoder graphs written by hand, small and with known numbers, for tests of what is done to graphs."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

#: Input of ``convolutional``: sound of this many samples.
SAMPLES = 64


def convolutional(seed: int = 3, classes: int = 3, *, channels: int = 4, opset: int = 18) -> onnx.ModelProto:
    """A front end with powers, bands and a logarithm, normalisation, two convolutions with a residual, mean and head.

    Nodes are named after what they are: ``front.*`` up to the normalisation, ``body.*``, ``mean``, ``head``.
    """
    rng = np.random.default_rng(seed)
    weights: dict[str, npt.NDArray[Any]] = {
        "basis": rng.normal(size=(8, 1, 8)),
        "floor": np.array(1e-6),
        "first": rng.normal(size=(channels, 8, 3)) * rng.uniform(0.1, 3, size=(channels, 1, 1)),
        "first_bias": rng.normal(size=channels),
        "second": rng.normal(size=(channels, channels, 3)) / channels,
        "head_weight": rng.normal(size=(classes, channels)),
        "head_bias": rng.normal(size=classes),
    }
    whole = {"one": [1], "two": [2]}
    initializers = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    initializers += [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in whole.items()]

    def node(operator: str, inputs: str, output: str, name: str, **attributes: Any) -> onnx.NodeProto:
        return helper.make_node(operator, inputs.split(), [output], name=name, **attributes)

    nodes = [
        node("Unsqueeze", "WAVEFORM one", "channel", "front.channel"),
        node("Conv", "channel basis", "parts", "front.basis", strides=[4]),
        node("Mul", "parts parts", "power", "front.power"),
        node("Add", "power floor", "floored", "front.floor"),
        node("Log", "floored", "log", "front.log"),
        node("ReduceMean", "log two", "log_mean", "front.mean"),
        node("Sub", "log log_mean", "centred", "front.centred"),
        node("Conv", "centred first first_bias", "one_out", "body.first", pads=[1, 1]),
        node("Relu", "one_out", "one_relu", "body.first_relu"),
        node("Conv", "one_relu second", "two_out", "body.second", pads=[1, 1]),
        node("Add", "two_out one_relu", "sum", "body.add"),
        node("Relu", "sum", "sum_relu", "body.add_relu"),
        node("ReduceMean", "sum_relu two", "FEATURES", "mean", keepdims=0),
        node("Gemm", "FEATURES head_weight head_bias", "LOGITS", "head", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "small_audio",
        [helper.make_tensor_value_info("WAVEFORM", TensorProto.FLOAT, ["batch", SAMPLES])],
        [
            helper.make_tensor_value_info("FEATURES", TensorProto.FLOAT, ["batch", channels]),
            helper.make_tensor_value_info("LOGITS", TensorProto.FLOAT, ["batch", classes]),
        ],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def sounds(count: int, seed: int = 5) -> npt.NDArray[np.float32]:
    """Clips for ``convolutional``, ``[count, SAMPLES]``."""
    return (0.3 * np.random.default_rng(seed).standard_normal((count, SAMPLES))).astype(np.float32)
