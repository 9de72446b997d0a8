"""Learned reliability as ONNX nodes; ``dimml.fusion.reliability`` is the numpy reference.

At batch 1 a graph costs by its number of nodes. So all heads stand side by side, and what is linear between the values
computed of a head, its *columns*, and the hidden layer of its network is part of that layer's weights: the statistic
"margin" is the columns "first" less "second". Only plain operators are used, which both ONNX Runtime and TensorRT
support. Shape suffixes: B batch, C classes, D features, H heads, J columns, K statistics, S the whitened features of
all heads side by side, U hidden units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dimml.fusion import LARGEST, STATISTICS, TIE, HeadReliability
from dimml_export.certainty_graph import sum_p_log_p
from dimml_export.onnx_graph import Graph

#: Columns of a head's own outputs, in the order of ``OwnOutputs.columns``; not all are part of a statistic.
COLUMNS: Final = (
    *("first", "second", "top_logit", "log_first"),
    *("logit_norm", "feature_norm", "least_distance", "vote_distance"),
    *("log_logit_norm", "log_feature_norm", "log_least_distance", "log_vote_distance"),
    *("gap", "capped_gap"),
)
DoubleArray = npt.NDArray[np.float64]
#: A statistic as columns: the factor of each, and what is added.
Affine = tuple[Mapping[str, float], float]


@dataclass(frozen=True, slots=True)
class OwnOutputs:
    """Names of values computed from each head's own features and logits."""

    #: Side by side along axis 2, these are ``COLUMNS``.
    columns: tuple[str, ...]
    p_BHC: str
    vote_BH1: str
    #: Features of each head, ``[B, 1, D]``, within bounds, and their squared norm.
    features: tuple[str, ...]
    norm_square_BH1: str


def reliability(
    graph: Graph, features: Sequence[str], logits_BHC: str, heads: Sequence[HeadReliability], *, modalities: int
) -> str:
    """Add ``dimml.fusion.reliability_of`` of every head, ``[B, H]``; contents of masked slots are finite.

    ``features`` are each head's, ``[B, D]``; after the ``modalities`` first there may be a fused head's, which are
    those of all modalities side by side.
    """
    own = own_outputs(graph, features, logits_BHC, heads, modalities=modalities)
    columns_BHJ = graph.add("Concat", *own.columns, sum_p_log_p(graph, own.p_BHC, keepdims=1), axis=2)
    affine = affine_statistics({"entropy": 1 / np.log(len(heads[0].whitened_means_CD))})
    factors_JK, added_K = affine_arrays((*COLUMNS, "entropy"), [affine[name] for name in STATISTICS])
    return networks(graph, columns_BHJ, heads, [(factors_JK, added_K - head.offset_K) for head in heads])


def affine_statistics(entropy: Mapping[str, float]) -> dict[str, Affine]:
    """Return each of ``STATISTICS`` as columns; ``entropy`` is the negative of the entropy, as a share of the most."""
    return {
        "max_prob": ({"first": 1}, 0),
        "margin": ({"first": 1, "second": -1}, 0),
        "neg_entropy": (entropy, 1),
        "energy": ({"top_logit": 1, "log_first": -1}, 0),
        "logit_norm": ({"logit_norm": 1}, 0),
        "feature_norm": ({"log_feature_norm": 1}, 0),
        "distance": ({"log_least_distance": 1}, 0),
        "distance_gap": ({"gap": 1}, 0),
        "nearest_is_vote": ({"capped_gap": -1 / TIE}, 1),
    }


def affine_arrays(columns: Sequence[str], statistics: Sequence[Affine]) -> tuple[DoubleArray, DoubleArray]:
    """Return the factors ``[J, K]`` of the columns and what is added, ``[K]``, for these statistics."""
    factors_JK = np.array([[factors.get(column, 0.0) for factors, _ in statistics] for column in columns])
    return factors_JK, np.array([added for _, added in statistics], np.float64)


def own_outputs(
    graph: Graph, features: Sequence[str], logits_BHC: str, heads: Sequence[HeadReliability], *, modalities: int
) -> OwnOutputs:
    """Add what ``dimml.fusion.reliability_statistics`` computes, less the entropy; arguments as of ``reliability``."""
    bounds = graph.number(-LARGEST), graph.number(LARGEST)
    logits_BHC = graph.add("Clip", logits_BHC, *bounds)
    p_BHC = graph.add("Softmax", logits_BHC, axis=2)
    classes = graph.axes(2)
    leaders_BH2 = graph.add("TopK", p_BHC, graph.axes(2), outputs=2, axis=2)
    vote_BH1 = graph.add("ArgMax", logits_BHC, axis=2, keepdims=1)
    # The logarithm of the sum of exp z, which must not overflow, is the largest z less the logarithm of its share.
    top_BH1 = graph.add("ReduceMax", logits_BHC, classes, keepdims=1)
    log_first_BH1 = graph.add("Log", graph.add("ReduceMax", p_BHC, classes, keepdims=1))
    logit_square_BH1 = graph.add("ReduceSumSquare", logits_BHC, classes, keepdims=1)

    widths = [len(head.whitening_DD) for head in heads]
    together_BD = features[-1] if len(heads) > modalities else graph.concat(features, axis=1)
    x_B1D = graph.add("Clip", graph.add("Unsqueeze", together_BD, graph.axes(1)), *bounds)
    of_heads = graph.split(x_B1D, widths[:modalities], axis=2) + [x_B1D] * (len(heads) - modalities)
    # The fused head's features are all of them.
    seen_HD = np.concatenate([_blocks(widths[:modalities]), np.ones((1, sum(widths[:modalities])))])[: len(heads)]
    norm_square_BH1 = _sums_of_squares(graph, x_B1D, seen_HD)
    whitened_B1S = graph.concat(
        [graph.add("MatMul", x, graph.constant(head.whitening_DD)) for x, head in zip(of_heads, heads, strict=True)],
        axis=2,
    )
    # From the differences, not as |x|² - 2·x·m + |m|², which loses precision if features lie close to a mean.
    means_1CS = np.concatenate([head.whitened_means_CD for head in heads], axis=1)[None]
    difference_BCS = graph.add("Sub", whitened_B1S, graph.constant(means_1CS))
    square_BHC = _sums_of_squares(graph, difference_BCS, _blocks(widths))
    nearest_BH1 = graph.add("ReduceMin", square_BHC, classes, keepdims=1)
    of_vote_BH1 = graph.add("GatherElements", square_BHC, vote_BH1, axis=2)
    square_BH4 = graph.add("Concat", logit_square_BH1, norm_square_BH1, nearest_BH1, of_vote_BH1, axis=2)
    length_BH4 = graph.add("Sqrt", square_BH4)
    log_BH4 = graph.add("Log", graph.add("Add", length_BH4, graph.number(1)))
    # The difference of two of them: exactly 0 where they are the same, as it must be.
    gap_BH1 = graph.add("MatMul", log_BH4, graph.constant(np.array([[[0], [0], [-1], [1]]], np.float32)))
    capped_BH1 = graph.add("Clip", gap_BH1, graph.number(0), graph.number(TIE))
    return OwnOutputs(
        (leaders_BH2, top_BH1, log_first_BH1, length_BH4, log_BH4, gap_BH1, capped_BH1),
        p_BHC,
        vote_BH1,
        tuple(of_heads),
        norm_square_BH1,
    )


def networks(
    graph: Graph,
    columns_BHJ: str,
    heads: Sequence[HeadReliability],
    statistics: Sequence[tuple[DoubleArray, DoubleArray]],
) -> str:
    """Add every head's network, ``[B, H]``.

    ``statistics`` are for each head the factors ``[J, K]`` of the columns, and what is added, ``[K]``, to make its
    statistics less their offset.
    """
    weights, biases = [], []
    for head, (factors_JK, added_K) in zip(heads, statistics, strict=True):
        scaled_KU = head.hidden_weight_KU / np.asarray(head.scale_K, np.float64)[:, None]
        weights.append(factors_JK @ scaled_KU)
        biases.append(added_K @ scaled_KU + head.hidden_bias_U)
    columns_BJ = graph.add("Reshape", columns_BHJ, graph.axes(-1, sum(len(own) for own in weights)))
    hidden_BU = graph.add(
        "Gemm",
        columns_BJ,
        graph.constant(_diagonal(weights).astype(np.float32)),
        graph.constant(np.concatenate(biases).astype(np.float32)),
    )
    out_UH = _diagonal([head.out_weight_U[:, None] for head in heads])
    out_bias_H = np.concatenate([head.out_bias for head in heads])
    score_BH = graph.add("Gemm", graph.add("Tanh", hidden_BU), graph.constant(out_UH), graph.constant(out_bias_H))
    return graph.add("Sigmoid", score_BH)


def _sums_of_squares(graph: Graph, values_BXS: str, of_heads_HS: DoubleArray) -> str:
    """Add the sums of squares over each head's part of the last axis, ``[B, H, X]``."""
    squares_BXS = graph.add("Mul", values_BXS, values_BXS)
    sums_BXH = graph.add("MatMul", squares_BXS, graph.constant(of_heads_HS.T.astype(np.float32)))
    return graph.add("Transpose", sums_BXH, perm=[0, 2, 1])


def _blocks(widths: Sequence[int]) -> DoubleArray:
    """Return which columns belong to which block, ``[blocks, sum of widths]``: ones and zeros."""
    return np.repeat(np.eye(len(widths)), widths, axis=1)


def _diagonal(blocks: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Put matrices of one shape along the diagonal of a larger one."""
    return np.concatenate(
        [np.kron(np.eye(len(blocks), dtype=own.dtype)[[place]], own) for place, own in enumerate(blocks)]
    )
