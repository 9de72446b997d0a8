"""Which nodes of an encoder's graph may leave FP32: its body, between the front end and the features.

Found by structure, since names are torch's: what a logarithm is computed from spans more orders of magnitude than 8
bits have steps, and what turns an input into something normalised costs little.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import onnx

from dimml.contract import FEATURES

#: Operators that hold learned weights, where one of their inputs is constant.
WEIGHTED: Final = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "LSTM", "GRU", "RNN"})


def named(model: onnx.ModelProto) -> onnx.ModelProto:
    """Copy a model, with a name of its own for every node of its graph."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    seen: set[str] = set()
    for index, node in enumerate(copy.graph.node):
        if not node.name or node.name in seen:
            node.name = f"{node.op_type}_{index}_of_{copy.graph.name}"
        seen.add(node.name)
    return copy


def body_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """List the nodes whose arithmetic may be reduced, in the order of the graph.

    Not among them: a logarithm and all that it is computed from; what comes before the first learned weights (scaling,
    normalisation of the input, shapes); the own head, which is what follows ``FEATURES``; nodes with a graph inside.
    """
    nodes = list(model.graph.node)
    front = _upstream(nodes, lambda node: node.op_type == "Log")
    constant = {initializer.name for initializer in model.graph.initializer}
    constant |= {output for node in nodes if node.op_type == "Constant" for output in node.output}

    def learned(node: onnx.NodeProto) -> bool:
        return node.op_type in WEIGHTED and bool(constant.intersection(node.input)) and id(node) not in front

    after_weights = _downstream(nodes, {output for node in nodes if learned(node) for output in node.output})
    after_features = _downstream(nodes, {FEATURES})
    return [
        node
        for node in nodes
        if (learned(node) or id(node) in after_weights)
        and id(node) not in front
        and id(node) not in after_features
        and not any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute)
    ]


def _inputs(node: onnx.NodeProto) -> Iterator[str]:
    """Tensors that a node reads, those that graphs inside it take from outside included."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
            for inner in graph.node:
                yield from _inputs(inner)


def _upstream(nodes: list[onnx.NodeProto], ends: Callable[[onnx.NodeProto], bool]) -> set[int]:
    """Identities of the nodes for which ``ends`` holds, and of all that they are computed from."""
    found: set[int] = set()
    wanted: set[str] = set()
    for node in reversed(nodes):
        if ends(node) or wanted.intersection(node.output):
            found.add(id(node))
            wanted.update(_inputs(node))
    return found


def _downstream(nodes: list[onnx.NodeProto], tensors: set[str]) -> set[int]:
    """Identities of the nodes that are computed from any of these tensors."""
    found: set[int] = set()
    reached = set(tensors)
    for node in nodes:
        if reached.intersection(_inputs(node)):
            found.add(id(node))
            reached.update(node.output)
    return found
