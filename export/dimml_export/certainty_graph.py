"""Certainty of every head, computed from its logits, as ONNX nodes; ``dimml.fusion.certainty_of`` is the reference.

Only plain operators are used, which both ONNX Runtime and TensorRT support. Shape suffixes: B batch, C classes, H
heads.
"""

from __future__ import annotations

import numpy as np

from dimml.fusion import StaticCertainty
from dimml_export.onnx_graph import Graph

TINY = float(np.finfo(np.float32).tiny)


def certainty(graph: Graph, logits_BHC: str, measure: StaticCertainty, *, classes: int) -> str:
    """Add ``dimml.fusion.certainty_of``, as ``[B, H]``."""
    axis, p_BHC = graph.axes(2), graph.add("Softmax", logits_BHC, axis=2)
    match measure:
        case "max_prob":
            return graph.add("ReduceMax", p_BHC, axis, keepdims=0)
        case "margin":
            leaders = graph.add("TopK", p_BHC, graph.axes(2), outputs=2, axis=2)
            first, second = (graph.add("Gather", leaders, graph.constant(np.array(rank)), axis=2) for rank in (0, 1))
            return graph.add("Sub", first, second)
        case "neg_entropy":
            share_of_most = graph.add("Div", sum_p_log_p(graph, p_BHC, keepdims=0), graph.number(np.log(classes)))
            return graph.add("Add", graph.number(1), share_of_most)


def sum_p_log_p(graph: Graph, p: str, *, keepdims: int) -> str:
    """Add the negative entropy, in nats, over axis 2 of three."""
    return graph.add("ReduceSum", graph.add("Mul", p, safe_log(graph, p)), graph.axes(2), keepdims=keepdims)


def safe_log(graph: Graph, p: str) -> str:
    """Add the logarithm of probabilities, of which none counts as less than FP32's least normal number."""
    return graph.add("Log", graph.add("Max", p, graph.number(TINY)))
