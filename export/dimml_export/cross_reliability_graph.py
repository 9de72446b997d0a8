"""Cross-head reliability as ONNX nodes; ``dimml.fusion.cross_reliability`` is the numpy reference.

All heads side by side: at batch 1 a graph costs by its number of nodes. Shape suffixes: B batch, C classes, D features,
H heads (a pair's second axis H is the other's), K statistics, N stored training clips, U hidden units.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import TensorProto

from dimml.fusion import (
    LARGEST,
    LEAST_NORM,
    NEIGHBOURS,
    OTHERS,
    OWN_STATISTICS,
    FloatArray,
    HeadReliability,
    others_of,
)
from dimml_export.certainty_graph import TINY, statistics
from dimml_export.onnx_graph import Graph


def cross_reliability(
    graph: Graph,
    features: Sequence[str],
    logits_BHC: str,
    present_BH: str,
    heads: Sequence[HeadReliability],
    *,
    modalities: int,
) -> str:
    """Add ``dimml.fusion.cross_reliability.cross_certainties``, as ``[B, H]``; contents of masked slots are finite.

    ``heads`` must have neighbours.
    """
    clipped_BHC = graph.add("Clip", logits_BHC, graph.number(-LARGEST), graph.number(LARGEST))
    own_BHK = _own(graph, features, clipped_BHC, heads)
    # By row and head, the share of each other in the means, and 1 where there is one at all.
    among_HH = graph.constant(others_of(len(heads), modalities).astype(np.float32))
    present_B1H = graph.add("Unsqueeze", graph.add("Cast", present_BH, to=TensorProto.FLOAT), graph.axes(1))
    there_BHH = graph.add("Mul", present_B1H, among_HH)
    count_BH1 = graph.add("ReduceSum", there_BHH, graph.axes(2), keepdims=1)
    share_BHH = graph.add("Div", there_BHH, graph.add("Max", count_BH1, graph.number(1)))
    accompanied_BH1 = graph.add("Clip", count_BH1, graph.number(0), graph.number(1))

    pairs_BHK = _pairs(graph, clipped_BHC, share_BHH, classes=len(heads[0].whitened_means_CD))
    seen = graph.constant(np.array([OWN_STATISTICS.index(name) for name in OTHERS], np.int64))
    theirs_BHK = graph.add("MatMul", share_BHH, graph.add("Gather", own_BHK, seen, axis=2))
    others_BHK = graph.add("Concat", pairs_BHK, theirs_BHK, axis=2)

    offset_HK, scale_HK = np.stack([h.offset_K for h in heads]), np.stack([h.scale_K for h in heads])
    own, alone = len(OWN_STATISTICS), offset_HK.shape[1] - 1
    standard = [
        graph.add("Div", graph.add("Sub", values, graph.constant(offset_HK[:, k])), graph.constant(scale_HK[:, k]))
        for values, k in (
            (own_BHK, slice(0, own)),
            (others_BHK, slice(own, alone)),
            (graph.add("Sub", graph.number(1), accompanied_BH1), slice(alone, None)),
        )
    ]
    # All of it is finite: selecting by a product is safe here.
    standard[1] = graph.add("Mul", standard[1], accompanied_BH1)
    return _networks(graph, graph.add("Concat", *standard, axis=2), heads)


def _own(graph: Graph, features: Sequence[str], clipped_BHC: str, heads: Sequence[HeadReliability]) -> str:
    """Add the statistics of the heads' own outputs, ``[B, H, K]``."""
    rows = []
    for h, (features_BD, head) in enumerate(zip(features, heads, strict=True)):
        logits_BC = graph.add("Gather", clipped_BHC, graph.constant(np.int64(h)), axis=1)
        own_BK = statistics(graph, features_BD, logits_BC, head)
        cosine_B1 = _neighbour_cosine(graph, features_BD, np.asarray(head.neighbours_ND))
        rows.append(graph.add("Unsqueeze", graph.add("Concat", own_BK, cosine_B1, axis=1), graph.axes(1)))
    return graph.add("Concat", *rows, axis=1)


def _neighbour_cosine(graph: Graph, features_BD: str, neighbours_ND: FloatArray) -> str:
    """Add ``dimml.fusion.neighbour_cosine``, ``[B, 1]``."""
    clipped_BD = graph.add("Clip", features_BD, graph.number(-LARGEST), graph.number(LARGEST))
    squares_BD = graph.add("Mul", clipped_BD, clipped_BD)
    norm_B1 = graph.add("Sqrt", graph.add("ReduceSum", squares_BD, graph.axes(1), keepdims=1))
    unit_BD = graph.add("Div", clipped_BD, graph.add("Max", norm_B1, graph.number(LEAST_NORM)))
    cosines_BN = graph.add("MatMul", unit_BD, graph.constant(np.ascontiguousarray(neighbours_ND.T)))
    nearest = min(NEIGHBOURS, len(neighbours_ND))
    top_BN = graph.add("TopK", cosines_BN, graph.axes(nearest), outputs=2, axis=1)
    return graph.add("Div", graph.add("ReduceSum", top_BN, graph.axes(1), keepdims=1), graph.number(nearest))


def _pairs(graph: Graph, clipped_BHC: str, share_BHH: str, *, classes: int) -> str:
    """Add the means over the others of the statistics of a pair, ``[B, H, 4]``."""
    p_BHC = graph.add("Softmax", clipped_BHC, axis=2)
    votes_BH = graph.add("ArgMax", clipped_BHC, axis=2, keepdims=0)
    vote_BHC = graph.add("Gather", graph.constant(np.eye(classes, dtype=np.float32)), votes_BH, axis=0)
    own_p, own_vote = (graph.add("Unsqueeze", values, graph.axes(2)) for values in (p_BHC, vote_BHC))
    their_p, their_vote = (graph.add("Unsqueeze", values, graph.axes(1)) for values in (p_BHC, vote_BHC))
    half = graph.number(0.5)
    middle_BHH = _entropy(graph, graph.add("Mul", graph.add("Add", own_p, their_p), half), axis=3)
    entropy_BH = _entropy(graph, p_BHC, axis=2)
    own_entropy, their_entropy = (graph.add("Unsqueeze", entropy_BH, graph.axes(axis)) for axis in (2, 1))
    halves_BHH = graph.add("Mul", graph.add("Add", own_entropy, their_entropy), half)
    bits_BHH = graph.add("Div", graph.add("Sub", middle_BHH, halves_BHH), graph.number(np.log(2)))
    found = [
        # Of ones and zeros and probabilities, these sums are exact.
        graph.add("ReduceSum", graph.add("Mul", own_vote, their_p), graph.axes(3), keepdims=0),
        graph.add("ReduceSum", graph.add("Mul", own_p, their_vote), graph.axes(3), keepdims=0),
        graph.add("Clip", bits_BHH, graph.number(0), graph.number(1)),
        graph.add("ReduceSum", graph.add("Mul", own_vote, their_vote), graph.axes(3), keepdims=0),
    ]
    pairs = [graph.add("Unsqueeze", values, graph.axes(3)) for values in found]
    pairs_BHHK = graph.add("Concat", *pairs, axis=3)
    weighted_BHHK = graph.add("Mul", graph.add("Unsqueeze", share_BHH, graph.axes(3)), pairs_BHHK)
    return graph.add("ReduceSum", weighted_BHHK, graph.axes(2), keepdims=0)


def _entropy(graph: Graph, p: str, *, axis: int) -> str:
    log_p = graph.add("Log", graph.add("Max", p, graph.number(TINY)))
    total = graph.add("ReduceSum", graph.add("Mul", p, log_p), graph.axes(axis), keepdims=0)
    return graph.add("Sub", graph.number(0), total)


def _networks(graph: Graph, standard_BHK: str, heads: Sequence[HeadReliability]) -> str:
    """Add every head's network on its own standardised statistics, ``[B, H]``."""
    weight_HKU = graph.constant(np.stack([head.hidden_weight_KU for head in heads]))
    bias_H1U = graph.constant(np.stack([head.hidden_bias_U for head in heads])[:, None])
    out_HU1 = graph.constant(np.stack([head.out_weight_U for head in heads])[..., None])
    out_bias_H11 = graph.constant(np.stack([head.out_bias for head in heads])[:, None])
    rows_BH1K = graph.add("Unsqueeze", standard_BHK, graph.axes(2))
    hidden_BH1U = graph.add("Tanh", graph.add("Add", graph.add("MatMul", rows_BH1K, weight_HKU), bias_H1U))
    score_BH11 = graph.add("Add", graph.add("MatMul", hidden_BH1U, out_HU1), out_bias_H11)
    return graph.add("Squeeze", graph.add("Sigmoid", score_BH11), graph.axes(2, 3))
