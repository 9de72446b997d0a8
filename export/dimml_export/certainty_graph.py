"""Certainty of a head as ONNX nodes: computed from its logits, or learned.

``dimml.fusion`` is the numpy reference for both (``certainty``, ``reliability``). Only plain operators are used, which
both ONNX Runtime and TensorRT support. Shape suffixes: B batch, C classes, D features, K statistics, U hidden units.
"""

from __future__ import annotations

import numpy as np

from dimml.fusion import LARGEST, TIE, HeadReliability, StaticCertainty
from dimml_export.onnx_graph import Graph

TINY = float(np.finfo(np.float32).tiny)


def certainty(graph: Graph, logits: str, measure: StaticCertainty, *, axis: int, classes: int, keepdims: bool) -> str:
    """Add ``dimml.fusion.certainty_of`` along ``axis``, the classes; with ``keepdims`` the axis stays, with size 1."""
    keep = int(keepdims)
    probabilities = graph.add("Softmax", logits, axis=axis)
    match measure:
        case "max_prob":
            return graph.add("ReduceMax", probabilities, graph.axes(axis), keepdims=keep)
        case "margin":
            leaders = graph.add("TopK", probabilities, graph.axes(2), outputs=2, axis=axis)
            first, second = (
                graph.add("Gather", leaders, graph.constant(np.array([rank] if keep else rank)), axis=axis)
                for rank in (0, 1)
            )
            return graph.add("Sub", first, second)
        case "neg_entropy":
            log_p = graph.add("Log", graph.add("Max", probabilities, graph.number(TINY)))
            p_log_p = graph.add("ReduceSum", graph.add("Mul", probabilities, log_p), graph.axes(axis), keepdims=keep)
            share_of_most = graph.add("Div", p_log_p, graph.number(np.log(classes)))
            return graph.add("Add", graph.number(1), share_of_most)


def reliability(graph: Graph, features_BD: str, logits_BC: str, head: HeadReliability) -> str:
    """Add ``dimml.fusion.reliability_of``, as ``[B, 1]``."""
    statistics_BK = statistics(graph, features_BD, logits_BC, head)
    standard_BK = graph.add(
        "Div",
        graph.add("Sub", statistics_BK, graph.constant(head.offset_K)),
        graph.constant(head.scale_K),
    )
    hidden_BU = graph.add(
        "Tanh",
        graph.add("Gemm", standard_BK, graph.constant(head.hidden_weight_KU), graph.constant(head.hidden_bias_U)),
    )
    score_B1 = graph.add("Gemm", hidden_BU, graph.constant(head.out_weight_U[:, None]), graph.constant(head.out_bias))
    return graph.add("Sigmoid", score_B1)


def statistics(graph: Graph, features_BD: str, logits_BC: str, head: HeadReliability) -> str:
    """Add ``dimml.fusion.reliability_statistics``, in the order of ``STATISTICS``."""
    bounds = graph.number(-LARGEST), graph.number(LARGEST)
    features_BD = graph.add("Clip", features_BD, *bounds)
    logits_BC = graph.add("Clip", logits_BC, *bounds)
    measures: tuple[StaticCertainty, ...] = ("max_prob", "margin", "neg_entropy")
    classes = len(head.whitened_means_CD)
    distance_BC = _distances(graph, features_BD, head)
    nearest_B1 = graph.add("ReduceMin", distance_BC, graph.axes(1), keepdims=1)
    vote_B1 = graph.add("ArgMax", logits_BC, axis=1, keepdims=1)
    gap_B1 = graph.add("Sub", graph.add("GatherElements", distance_BC, vote_B1, axis=1), nearest_B1)
    beside_B1 = graph.add("Sub", graph.number(1), graph.add("Div", gap_B1, graph.number(TIE)))
    is_vote_B1 = graph.add("Clip", beside_B1, graph.number(0), graph.number(1))
    return graph.add(
        "Concat",
        *(certainty(graph, logits_BC, measure, axis=1, classes=classes, keepdims=True) for measure in measures),
        _energy(graph, logits_BC),
        _norm(graph, logits_BC, axis=1, keepdims=1),
        _log1p(graph, _norm(graph, features_BD, axis=1, keepdims=1)),
        nearest_B1,
        gap_B1,
        is_vote_B1,
        axis=1,
    )


def _distances(graph: Graph, features_BD: str, head: HeadReliability) -> str:
    """Add the logarithm of one plus the Mahalanobis distance to every class mean, ``[B, C]``."""
    whitened_BD = graph.add("MatMul", features_BD, graph.constant(head.whitening_DD))
    # From the differences, not as |x|² - 2·x·m + |m|², which loses precision if features lie close to a mean.
    differences_BCD = graph.add(
        "Sub", graph.add("Unsqueeze", whitened_BD, graph.axes(1)), graph.constant(head.whitened_means_CD[None])
    )
    return _log1p(graph, _norm(graph, differences_BCD, axis=2, keepdims=0))


def _energy(graph: Graph, logits_BC: str) -> str:
    """Add ``log(sum exp z)``, ``[B, 1]``, shifted explicitly: some runtimes' ReduceLogSumExp may overflow."""
    top_B1 = graph.add("ReduceMax", logits_BC, graph.axes(1), keepdims=1)
    shifted_BC = graph.add("Exp", graph.add("Sub", logits_BC, top_B1))
    return graph.add("Add", top_B1, graph.add("Log", graph.add("ReduceSum", shifted_BC, graph.axes(1), keepdims=1)))


def _norm(graph: Graph, values: str, *, axis: int, keepdims: int) -> str:
    squares = graph.add("Mul", values, values)
    return graph.add("Sqrt", graph.add("ReduceSum", squares, graph.axes(axis), keepdims=keepdims))


def _log1p(graph: Graph, values: str) -> str:
    return graph.add("Log", graph.add("Add", values, graph.number(1)))
