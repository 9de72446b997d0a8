"""The fusion graph: certainty-aware logit weighting, masked, as one ONNX model for every engine.

``dimml.fusion`` states the same mathematics in numpy; tests hold this graph to it. Shape suffixes: B batch,
M modalities, H heads, C classes, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from dimml.bundle import Bundle
from dimml.contract import (
    CERTAINTY,
    LOGITS,
    PRESENT,
    PROBABILITIES,
    WEIGHTS,
    ModelSpec,
    TensorSpec,
    features_input,
    logits_input,
    model_specs,
)
from dimml.errors import BundleError
from dimml.fusion import FloatArray

#: What every ONNX file of a bundle is written in: read by ONNX Runtime from 1.14 on, and by TensorRT from 8.6 on.
OPSET: Final = 18
IR_VERSION: Final = 8

#: ONNX element types by KServe v2 datatype.
ELEMENT_TYPES: Final = {"FP32": TensorProto.FLOAT, "UINT8": TensorProto.UINT8, "BOOL": TensorProto.BOOL}


def fusion_model(bundle: Bundle, fused_weight: FloatArray | None, fused_bias: FloatArray | None) -> onnx.ModelProto:
    """The fusion model of ``bundle``, with the tensors that ``dimml.contract`` names and a free batch dimension.

    ``fused_weight`` ``[C, sum of D]`` and ``fused_bias`` ``[C]`` are the fused head, a linear layer on the
    features concatenated in the bundle's order; both None exactly where the bundle has no fused head. Raises
    BundleError where they do not fit the bundle.
    """
    weights = _fused_head(bundle, fused_weight, fused_bias)
    spec = next(spec for spec in model_specs(bundle) if spec.role == "fusion")
    graph = _Graph()
    present_B1 = [
        graph.add("Gather", PRESENT, graph.constant(np.array([index])), axis=1)
        for index in range(len(bundle.modalities))
    ]
    zero = graph.constant(np.float32(0))
    names = [modality.name for modality in bundle.modalities]
    # Whatever stands in a masked slot is replaced before any arithmetic: 0 · NaN would be NaN.
    head_logits_BC = [
        graph.add("Where", present, logits_input(name), zero) for name, present in zip(names, present_B1, strict=True)
    ]
    head_present_B1 = list(present_B1)
    if weights is not None:
        features_BD = [
            graph.add("Where", present, features_input(name), zero)
            for name, present in zip(names, present_B1, strict=True)
        ]
        weight_CD, bias_C = weights
        all_B1 = reduce(lambda left, right: graph.add("And", left, right), present_B1)
        fused_BC = graph.add(
            "Gemm",
            graph.add("Concat", *features_BD, axis=1),
            graph.constant(weight_CD),
            graph.constant(bias_C),
            transB=1,
        )
        head_logits_BC.append(graph.add("Where", all_B1, fused_BC, zero))
        head_present_B1.append(all_B1)

    unsqueeze_1 = graph.constant(np.array([1]))
    logits_BHC = graph.add(
        "Concat", *(graph.add("Unsqueeze", logits, unsqueeze_1) for logits in head_logits_BC), axis=1
    )
    present_BH = graph.add("Concat", *head_present_B1, axis=1)
    certainty_BH = _certainty(graph, logits_BHC, bundle)
    graph.add("Where", present_BH, certainty_BH, zero, out=CERTAINTY)

    scores_BH = graph.add("Div", certainty_BH, graph.constant(np.float32(bundle.fusion.temperature)))
    masked = graph.constant(np.float32(-np.inf))
    softmax_BH = graph.add("Softmax", graph.add("Where", present_BH, scores_BH, masked), axis=1)
    # Selects zeros from a row with nothing present, whose softmax is undefined, and makes weights exactly zero
    # where a runtime's exp(-inf) is only nearly so.
    graph.add("Where", present_BH, softmax_BH, zero, out=WEIGHTS)

    weights_B1H = graph.add("Unsqueeze", WEIGHTS, unsqueeze_1)
    graph.add("Squeeze", graph.add("MatMul", weights_B1H, logits_BHC), unsqueeze_1, out=LOGITS)
    graph.add("Softmax", LOGITS, axis=1, out=PROBABILITIES)
    return finished_model(graph.nodes, graph.initializers, spec)


def finished_model(
    nodes: Sequence[onnx.NodeProto], initializers: Sequence[onnx.TensorProto], spec: ModelSpec
) -> onnx.ModelProto:
    """A checked model with the inputs and outputs of ``spec`` and a free first dimension. No torch involved."""
    graph = helper.make_graph(
        list(nodes),
        spec.name,
        [_value_info(tensor) for tensor in spec.inputs],
        [_value_info(tensor) for tensor in spec.outputs],
        list(initializers),
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="dimml"
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def _value_info(tensor: TensorSpec) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(tensor.name, ELEMENT_TYPES[tensor.datatype], ["batch", *tensor.dims])


def _fused_head(
    bundle: Bundle, weight: FloatArray | None, bias: FloatArray | None
) -> tuple[FloatArray, FloatArray] | None:
    if not bundle.fusion.fused_head:
        if weight is not None or bias is not None:
            raise BundleError(f"bundle {bundle.name!r} has no fused head, but weights for one are given")
        return None
    wanted = (bundle.classes, sum(encoder.features for encoder in bundle.encoders))
    if weight is None or bias is None:
        raise BundleError(f"bundle {bundle.name!r} has a fused head: its weight {wanted} and bias are needed")
    if weight.shape != wanted or bias.shape != wanted[:1]:
        raise BundleError(
            f"the fused head's weight is {weight.shape} and its bias {bias.shape}; "
            f"bundle {bundle.name!r} needs {wanted} and {wanted[:1]}"
        )
    return weight.astype(np.float32), bias.astype(np.float32)


def _certainty(graph: _Graph, logits_BHC: str, bundle: Bundle) -> str:
    """Certainty of every head, ``[B, H]``; the measures of ``dimml.fusion.certainty_of``."""
    probabilities_BHC = graph.add("Softmax", logits_BHC, axis=2)
    last = graph.constant(np.array([2]))
    match bundle.fusion.certainty:
        case "max_prob":
            return graph.add("ReduceMax", probabilities_BHC, last, keepdims=0)
        case "margin":
            leaders_BH2 = graph.add("TopK", probabilities_BHC, graph.constant(np.array([2])), outputs=2, axis=2)
            first_BH, second_BH = (
                graph.add("Gather", leaders_BH2, graph.constant(np.array(rank)), axis=2) for rank in (0, 1)
            )
            return graph.add("Sub", first_BH, second_BH)
        case "neg_entropy":
            tiny = graph.constant(np.float32(np.finfo(np.float32).tiny))
            log_p = graph.add("Log", graph.add("Max", probabilities_BHC, tiny))
            p_log_p = graph.add("ReduceSum", graph.add("Mul", probabilities_BHC, log_p), last, keepdims=0)
            share_of_most = graph.add("Div", p_log_p, graph.constant(np.float32(np.log(bundle.classes))))
            return graph.add("Add", graph.constant(np.float32(1)), share_of_most)


class _Graph:
    """Nodes and constants in the making; every value is known by the name that ``add`` gives."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def constant(self, value: npt.NDArray[Any] | np.generic) -> str:
        name = f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def add(self, op: str, *inputs: str, out: str | None = None, outputs: int = 1, **attributes: Any) -> str:
        """Append a node; the name of its first output."""
        index = len(self.nodes)
        names = [out or f"{op.lower()}{index}", *(f"{op.lower()}{index}_{extra}" for extra in range(1, outputs))]
        self.nodes.append(helper.make_node(op, list(inputs), names, name=f"{op}_{index}", **attributes))
        return names[0]
