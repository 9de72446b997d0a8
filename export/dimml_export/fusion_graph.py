"""The fusion graph: masked, certainty-weighted fusion of the heads' votes as one ONNX model for every engine.

``dimml.fusion`` is the numpy reference; tests compare this graph with it. Shape suffixes: B batch, M modalities, H
heads, C classes, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import onnx
from onnx import TensorProto

from dimml.bundle import Bundle
from dimml.contract import (
    CERTAINTY,
    LOGITS,
    PRESENT,
    PROBABILITIES,
    WEIGHTS,
    features_input,
    logits_input,
    model_specs,
)
from dimml.errors import BundleError
from dimml.fusion import (
    CROSS_STATISTICS,
    LEAST_DOUBT,
    STATISTICS,
    FloatArray,
    FusionParameters,
    FusionSpec,
    HeadReliability,
)
from dimml_export.certainty_graph import certainty, safe_log
from dimml_export.cross_reliability_graph import cross_reliability
from dimml_export.onnx_graph import Graph, finished_model
from dimml_export.reliability_graph import reliability


def fusion_model(
    bundle: Bundle,
    fused_weight: FloatArray | None,
    fused_bias: FloatArray | None,
    parameters: FusionParameters | None = None,
) -> onnx.ModelProto:
    """Build the fusion model of ``bundle``, with the tensors of ``dimml.contract`` and a free batch dimension.

    ``fused_weight`` ``[C, sum of D]`` and ``fused_bias`` ``[C]`` are the fused head, a linear layer on the features
    concatenated in the bundle's order; both None exactly if the bundle has no fused head. ``parameters`` are those
    learned for a learned certainty. Raises BundleError if they do not fit the bundle.
    """
    weights = _fused_head(bundle, fused_weight, fused_bias)
    if bundle.fusion.learned:
        _check_reliability(bundle, parameters)
    spec = next(spec for spec in model_specs(bundle) if spec.role == "fusion")
    graph = Graph()
    heads = _heads(graph, bundle, weights)
    side_by_side = graph.add("Concat", *(head.logits_BC for head in heads), axis=1)
    logits_BHC = graph.add("Reshape", side_by_side, graph.axes(-1, len(heads), bundle.classes))
    present_BH = graph.add("Concat", *(head.present_B1 for head in heads), axis=1)
    scaled_BHC = _scaled(graph, logits_BHC, bundle.fusion)
    certainty_BH = _certainty(graph, heads, (logits_BHC, scaled_BHC, present_BH), bundle, parameters)
    graph.add("Where", present_BH, certainty_BH, graph.number(0), out=CERTAINTY)
    _weights(graph, present_BH, bundle.fusion)
    pooled_BC = _pooled(graph, logits_BHC, scaled_BHC, present_BH, bundle)
    if bundle.fusion.answer_temperature != 1.0:
        pooled_BC = graph.add("Div", pooled_BC, graph.number(bundle.fusion.answer_temperature))
    # Modalities' own heads are always among the heads: if none is present, the row has no answer.
    own = heads[: len(bundle.modalities)]
    any_B1 = reduce(lambda left, right: graph.add("Or", left, right), [head.present_B1 for head in own])
    graph.add("Where", any_B1, pooled_BC, graph.number(0), out=LOGITS)
    graph.add("Softmax", LOGITS, axis=1, out=PROBABILITIES)
    return finished_model(graph.nodes, graph.initializers, spec)


@dataclass(frozen=True, slots=True)
class _Head:
    """Names of one head's values in the graph; zeros in masked rows."""

    features_BD: str
    logits_BC: str
    present_B1: str


def _heads(graph: Graph, bundle: Bundle, fused: tuple[FloatArray, FloatArray] | None) -> list[_Head]:
    """Add the heads in order. Contents of masked slots are replaced before any arithmetic: 0 · NaN would be NaN."""
    zero = graph.number(0)
    needs_features = fused is not None or bundle.fusion.learned
    heads = []
    for index, modality in enumerate(bundle.modalities):
        # Not Gather, for which TensorRT has not always accepted booleans.
        present_B1 = graph.add("Slice", PRESENT, graph.axes(index), graph.axes(index + 1), graph.axes(1))
        logits_BC = graph.add("Where", present_B1, logits_input(modality.name), zero)
        features_BD = features_input(modality.name)
        if needs_features:
            features_BD = graph.add("Where", present_B1, features_BD, zero)
        heads.append(_Head(features_BD, logits_BC, present_B1))
    if fused is not None:
        weight_CD, bias_C = fused
        all_B1 = reduce(lambda left, right: graph.add("And", left, right), [head.present_B1 for head in heads])
        features_BD = graph.add("Concat", *(head.features_BD for head in heads), axis=1)
        logits_BC = graph.add("Gemm", features_BD, graph.constant(weight_CD), graph.constant(bias_C), transB=1)
        heads.append(_Head(features_BD, graph.add("Where", all_B1, logits_BC, zero), all_B1))
    return heads


def _scaled(graph: Graph, logits_BHC: str, fusion: FusionSpec) -> str:
    if fusion.head_temperatures is None:
        return logits_BHC
    temperatures_H1 = np.asarray(fusion.head_temperatures, np.float32)[:, None]
    return graph.add("Div", logits_BHC, graph.constant(temperatures_H1))


def _certainty(
    graph: Graph,
    heads: Sequence[_Head],
    of_heads: tuple[str, str, str],
    bundle: Bundle,
    parameters: FusionParameters | None,
) -> str:
    """Add the certainty of every head, ``[B, H]``, not masked yet; ``of_heads``: logits, scaled logits, presence."""
    logits_BHC, scaled_BHC, present_BH = of_heads
    if not bundle.fusion.learned:
        return certainty(graph, scaled_BHC, bundle.fusion.static_certainty, classes=bundle.classes)
    learned, modalities = _check_reliability(bundle, parameters), len(bundle.modalities)
    features = [head.features_BD for head in heads]
    if bundle.fusion.certainty == "cross_reliability":
        return cross_reliability(graph, features, logits_BHC, present_BH, learned, modalities=modalities)
    return reliability(graph, features, logits_BHC, learned, modalities=modalities)


def _weights(graph: Graph, present_BH: str, fusion: FusionSpec) -> None:
    """Add the output WEIGHTS: softmax of the certainty over the present heads, or equal weights."""
    scores_BH = (
        graph.number(0) if fusion.temperature is None else graph.add("Div", CERTAINTY, graph.number(fusion.temperature))
    )
    masked_BH = graph.add("Where", present_BH, scores_BH, graph.number(-np.inf))
    # Selects zeros for a row with no head present, whose softmax is undefined, and makes weights exactly zero where a
    # runtime's exp(-inf) is only nearly zero.
    graph.add("Where", present_BH, graph.add("Softmax", masked_BH, axis=1), graph.number(0), out=WEIGHTS)


def _pooled(graph: Graph, logits_BHC: str, scaled_BHC: str, present_BH: str, bundle: Bundle) -> str:
    """Pool the heads' weighted logits or probabilities into logits ``[B, C]``."""
    pooling = bundle.fusion.pooling
    if pooling == "logits":
        return _weighted(graph, WEIGHTS, logits_BHC)
    probabilities_BHC = graph.add("Softmax", scaled_BHC, axis=2)
    if pooling == "probabilities":
        return safe_log(graph, _weighted(graph, WEIGHTS, probabilities_BHC))
    if pooling == "log_probabilities":
        return _weighted(graph, WEIGHTS, safe_log(graph, probabilities_BHC))
    certainty_BH1 = graph.add("Unsqueeze", CERTAINTY, graph.axes(2))
    doubt_BH1 = graph.add("Max", graph.add("Sub", graph.number(1), certainty_BH1), graph.number(LEAST_DOUBT))
    to_noise_BHC = graph.add("Sub", graph.number(1 / bundle.classes), probabilities_BHC)
    # By doubt on the way from the head's probabilities to equal ones: never 0.
    doubted_BHC = graph.add("Add", probabilities_BHC, graph.add("Mul", doubt_BH1, to_noise_BHC))
    exponents_BH = graph.add("Cast", present_BH, to=TensorProto.FLOAT)
    if bundle.fusion.temperature is not None:
        count_B1 = graph.add("ReduceSum", exponents_BH, graph.axes(1), keepdims=1)
        exponents_BH = graph.add("Mul", WEIGHTS, count_B1)
    return _weighted(graph, exponents_BH, graph.add("Log", doubted_BHC))


def _weighted(graph: Graph, weights_BH: str, values_BHC: str) -> str:
    """Add the weighted sum over the heads, ``[B, C]``."""
    axis = graph.axes(1)
    return graph.add("Squeeze", graph.add("MatMul", graph.add("Unsqueeze", weights_BH, axis), values_BHC), axis)


def _check_reliability(bundle: Bundle, parameters: FusionParameters | None) -> tuple[HeadReliability, ...]:
    """Check that there is one reliability per head, with matching shapes."""
    learned = None if parameters is None else parameters.reliability
    if learned is None or len(learned) != len(bundle.heads):
        raise BundleError(
            f"bundle {bundle.name!r}: certainty {bundle.fusion.certainty!r} needs what was learned for each of its "
            f"{len(bundle.heads)} heads"
        )
    widths = [encoder.features for encoder in bundle.encoders]
    crossing = bundle.fusion.certainty == "cross_reliability"
    inputs = len(CROSS_STATISTICS if crossing else STATISTICS)
    for name, width, head in zip(bundle.heads, (*widths, sum(widths)), learned, strict=False):
        wanted = (bundle.classes, width)
        if head.whitened_means_CD.shape != wanted:
            raise BundleError(
                f"bundle {bundle.name!r}: the reliability of head {name!r} was learned for (classes, features) "
                f"{head.whitened_means_CD.shape}, the bundle has {wanted}"
            )
        if inputs != len(head.offset_K) or (crossing and head.neighbours_ND is None):
            raise BundleError(
                f"bundle {bundle.name!r}: the reliability of head {name!r} was learned from {len(head.offset_K)} "
                f"statistics, certainty {bundle.fusion.certainty!r} has {inputs}"
                + (" and stored training features" if crossing else "")
            )
    return learned


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
