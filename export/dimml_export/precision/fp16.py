"""An encoder's body in FP16, for GPUs: inputs, outputs, front end and own head stay in FP32."""

from __future__ import annotations

from typing import Final

import onnx

from dimml.errors import BundleError
from dimml_export.onnx_graph import IR_VERSION
from dimml_export.precision.body import WEIGHTED, body_nodes, named
from dimml_export.precision.ort_tools import import_tool

_FLOAT: Final = onnx.TensorProto.FLOAT
_HALF: Final = onnx.TensorProto.FLOAT16


def fp16_model(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """Convert by ONNX Runtime's converter; return a checked model and the number of its layers that have FP16 weights.

    Raises BundleError where the graph has nothing to convert.
    """
    model = named(model)
    body = {node.name: node.op_type for node in body_nodes(model)}
    layers = sum(operator in WEIGHTED for operator in body.values())
    if not layers:
        raise BundleError(
            f"{model.graph.name}: there is nothing to convert between the front end and the features; export it "
            "without --precision fp16",
            field="precision",
        )
    in_float = [node for node in model.graph.node if node.name not in body]
    _own_constants(model.graph, in_float)
    converter = import_tool("onnxruntime.transformers.float16")
    found: onnx.ModelProto = converter.convert_float_to_float16(
        model, keep_io_types=True, node_block_list=[node.name for node in in_float]
    )
    _without_detours(found.graph)
    # The converter appends its casts at the end, and ONNX wants them before their consumers.
    import_tool("onnxruntime.quantization.onnx_model").ONNXModel(found).topological_sort()
    del found.graph.value_info[:]
    found.ir_version = IR_VERSION
    onnx.checker.check_model(found, full_check=True)
    return found, layers


def _own_constants(graph: onnx.GraphProto, in_float: list[onnx.NodeProto]) -> None:
    """Give nodes that stay in FP32 constants of their own: one that is shared would be rounded for them, too."""
    constants = {one.name: one for one in graph.initializer if one.data_type == _FLOAT}
    copied: dict[str, str] = {}
    for node in in_float:
        for place, name in enumerate(node.input):
            if name not in constants:
                continue
            if name not in copied:
                copied[name] = f"{name}_in_fp32"
                graph.initializer.add().CopyFrom(constants[name])
                graph.initializer[-1].name = copied[name]
            node.input[place] = copied[name]
    used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    kept = [one for one in graph.initializer if one.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _without_detours(graph: onnx.GraphProto) -> None:
    """Remove casts to FP16 and straight back, by which the converter joins two nodes that both stay in FP32.

    They would round every tensor of the front end to FP16: powers of quiet bands become zero before the logarithm.
    """
    outputs = {output.name for output in graph.output}
    to_half = {node.output[0]: node for node in graph.node if _casts_to(node, _HALF)}
    there_and_back = [node for node in graph.node if _casts_to(node, _FLOAT) and node.input[0] in to_half]
    renamed: dict[str, str] = {}
    for back in there_and_back:
        source = to_half[back.input[0]].input[0]
        if back.output[0] in outputs:
            renamed[source] = back.output[0]
        else:
            renamed[back.output[0]] = source
        graph.node.remove(back)
    for node in graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                names[place] = _final(name, renamed)
    read = {name for node in graph.node for name in node.input} | outputs
    for node in [node for node in graph.node if _casts_to(node, _HALF) and node.output[0] not in read]:
        graph.node.remove(node)


def _final(name: str, renamed: dict[str, str]) -> str:
    while name in renamed:
        name = renamed[name]
    return name


def _casts_to(node: onnx.NodeProto, element_type: int) -> bool:
    return node.op_type == "Cast" and any(a.name == "to" and a.i == element_type for a in node.attribute)
