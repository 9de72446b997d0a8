"""An encoder's ONNX graph prepared for TensorRT: strongly typed, with what FP16 would spoil kept in FP32.

TensorRT has two ways to choose what runs in FP16. Weakly typed networks (``BuilderFlag.FP16`` with per-layer
constraints) are deprecated since 10.12 and gone in 11. Strongly typed ones take every tensor's type from the graph, so
the types are put into the graph here, as casts: what runs in which precision can then be read, tested and run by any
ONNX runtime, on any machine. onnxruntime's own converter is not used: it casts a graph's inputs to FP16 and back before
the nodes that are to stay FP32.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dimml.contract import LOGITS
from dimml.errors import BundleError

Precision = Literal["fp32", "fp16"]

#: Module that holds every encoder's learned layers (``dimml_training.models.encoder``); names of weights keep it.
_BACKBONE: Final = ".backbone."
#: Operators that amplify small numbers, or sum squares: FP16 cannot represent 1e-4 added to 1 under a logarithm.
_SMALL_NUMBERS: Final = {"Log", "Sqrt", "Reciprocal", "Pow", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp"}
_NORMALISATIONS: Final = {
    *("LayerNormalization", "InstanceNormalization", "GroupNormalization", "BatchNormalization"),
    *("LpNormalization", "RMSNormalization", "MeanVarianceNormalization"),
}
#: Operators that end the backward search for sources of small numbers: their sums are of learned size.
_WEIGHTED: Final = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
#: Operators some of whose inputs must be FP32 whatever the data type is.
_FP32_INPUTS: Final = {"Resize", "Upsample", "Range"}
#: Operators that only move values, and so accept both UINT8 and FP32.
_MOVES: Final = {
    *("Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Gather", "Split", "Concat", "Identity"),
    *("Expand", "Tile"),
}
#: Operators that accept any type and return only its shape.
_MEASURES: Final = {"Shape", "Size"}
_FP16_LARGEST: Final = float(np.finfo(np.float16).max)


def network_model(model: onnx.ModelProto, precision: Precision) -> onnx.ModelProto:
    """Copy an exported encoder into a form that TensorRT accepts, with the same inputs and outputs.

    UINT8 inputs are cast to FP32 first, since TensorRT accepts them in no other layer; ``fp16`` puts everything except
    ``nodes_in_fp32`` into FP16. Raises BundleError if the graph cannot be changed in this way.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    _name_nodes(changed.graph)
    _cast_inputs_first(changed.graph)
    if precision == "fp16":
        _lower(changed, nodes_in_fp32(changed))
    onnx.checker.check_model(changed, full_check=True)
    return changed


def nodes_in_fp32(model: onnx.ModelProto) -> frozenset[str]:
    """Return the names of the nodes that stay FP32 in a plan of mixed precision.

    They are all nodes before the backbone (spectrogram, input normalisation); inside it normalisations, and logarithms,
    roots and powers, with all nodes that lead to them from the last weighted layer on; and the head that gives the
    logits. Raises BundleError if no weight marks where the backbone begins.
    """
    graph = model.graph
    inside = _after_first_weight(graph)
    if not inside:
        raise BundleError(
            f"{graph.name}: no weight of the graph is named as a backbone's, so what must stay FP32 cannot be told; "
            "build with --fp32"
        )
    made_by = {output: node for node in graph.node for output in node.output}
    kept = {node.name for node in graph.node if node.name not in inside}
    for node in graph.node:
        if node.op_type in _NORMALISATIONS | _FP32_INPUTS or LOGITS in node.output or _overflows(node, graph):
            kept.add(node.name)
        if node.op_type in _SMALL_NUMBERS:
            kept.add(node.name)
            kept.update(_leading_to(node, made_by))
    return frozenset(kept)


def _after_first_weight(graph: onnx.GraphProto) -> set[str]:
    """Return the names of nodes that read a weight of the backbone, or depend on one that does."""
    weights = {tensor.name for tensor in graph.initializer if _BACKBONE in tensor.name}
    reached: set[str] = set()
    inside = set()
    for node in graph.node:
        if any(name in weights or name in reached for name in node.input):
            reached.update(node.output)
            inside.add(node.name)
    return inside


def _leading_to(node: onnx.NodeProto, made_by: dict[str, onnx.NodeProto]) -> Iterator[str]:
    waiting, seen = list(node.input), set()
    while waiting:
        before = made_by.get(waiting.pop())
        if before is not None and before.name not in seen and before.op_type not in _WEIGHTED:
            seen.add(before.name)
            yield before.name
            waiting.extend(before.input)


def _overflows(node: onnx.NodeProto, graph: onnx.GraphProto) -> bool:
    """Whether a constant of the node exceeds the range of FP16."""
    used = set(node.input)
    return any(
        tensor.name in used
        and tensor.data_type == TensorProto.FLOAT
        and bool((np.abs(numpy_helper.to_array(tensor)) > _FP16_LARGEST).any())
        for tensor in graph.initializer
    )


def _lower(model: onnx.ModelProto, kept: frozenset[str]) -> None:
    """Put every node except ``kept`` into FP16, with casts where the precision changes; ``x`` becomes ``x.half``.

    Inputs, outputs and integer values stay as they are.
    """
    graph = model.graph
    if any(attribute.HasField("g") or attribute.graphs for node in graph.node for attribute in node.attribute):
        raise BundleError(f"{graph.name}: it has branches or loops, which FP16 is not offered for; build with --fp32")
    floats = _float_values(model)
    constants = {tensor.name: tensor for tensor in graph.initializer if tensor.name in floats}
    outputs = {value.name for value in graph.output}
    made: set[str] = {value.name for value in graph.input} | set(constants)
    nodes: list[onnx.NodeProto] = []

    def cast(value: str, result: str, to: int) -> None:
        nodes.append(helper.make_node("Cast", [value], [result], name=f"cast:{result}", to=to))
        made.add(result)

    def in_half(value: str) -> str:
        half = f"{value}.half"
        if half not in made:
            if value in constants:
                array = numpy_helper.to_array(constants[value]).astype(np.float16)
                graph.initializer.append(numpy_helper.from_array(array, half))
                made.add(half)
            else:
                cast(value, half, TensorProto.FLOAT16)
        return half

    def in_full(value: str) -> str:
        if value not in made:
            cast(f"{value}.half", value, TensorProto.FLOAT)
        return value

    for node in graph.node:
        own = onnx.NodeProto()
        own.CopyFrom(node)
        if node.name in kept:
            own.input[:] = [in_full(value) if value in floats else value for value in node.input]
        else:
            own.input[:] = [in_half(value) if value in floats else value for value in node.input]
            own.output[:] = [f"{value}.half" if value in floats else value for value in node.output]
            _attributes_in_half(own)
        nodes.append(own)
        made.update(own.output)
        for value in outputs.intersection(node.output):
            in_full(value)
    del graph.node[:]
    graph.node.extend(nodes)
    read = {value for node in nodes for value in node.input}
    unread = [tensor for tensor in graph.initializer if tensor.name not in read]
    for tensor in unread:
        graph.initializer.remove(tensor)
    del graph.value_info[:]


def _float_values(model: onnx.ModelProto) -> set[str]:
    """Return the names of all FP32 values and constants."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    values = (*graph.input, *graph.output, *graph.value_info)
    floats = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    return floats | {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}


def _attributes_in_half(node: onnx.NodeProto) -> None:
    for attribute in node.attribute:
        if attribute.name in ("to", "dtype") and attribute.i == TensorProto.FLOAT:
            attribute.i = TensorProto.FLOAT16
        elif attribute.name == "value" and attribute.t.data_type == TensorProto.FLOAT:
            attribute.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(attribute.t).astype(np.float16)))


def _cast_inputs_first(graph: onnx.GraphProto) -> None:
    """Cast UINT8 inputs to FP32 at the input instead of after layout operators; FP32 holds 0..255 exactly."""
    pixels = {value.name for value in graph.input if value.type.tensor_type.elem_type == TensorProto.UINT8}
    if not pixels:
        return
    moved: dict[str, str] = {}
    nodes = []
    for name in sorted(pixels):
        moved[name] = f"{name}.float"
        nodes.append(helper.make_node("Cast", [name], [moved[name]], name=f"cast:{name}.float", to=TensorProto.FLOAT))
    for node in graph.node:
        if moved.keys().isdisjoint(node.input):
            nodes.append(node)
            continue
        own = onnx.NodeProto()
        own.CopyFrom(node)
        own.input[:] = [moved.get(value, value) for value in node.input]
        if own.op_type in _MOVES:
            moved.update((value, f"{value}.float") for value in node.output)
            own.output[:] = [moved[value] for value in node.output]
        elif own.op_type != "Cast" and own.op_type not in _MEASURES:
            raise BundleError(
                f"{graph.name}: node {node.name} ({node.op_type}) reckons with UINT8 pixels, which TensorRT cannot; "
                "cast them to float first in the encoder"
            )
        nodes.append(own)
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:]


def _name_nodes(graph: onnx.GraphProto) -> None:
    """Give every node a unique name, which the sets of nodes here and TensorRT's errors use."""
    taken: set[str] = set()
    for index, node in enumerate(graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{index}"
        taken.add(node.name)
