"""Certainty-aware, masked weighting of the heads: a readable reference for what the fusion graph computes.

DI-MML (arXiv 2407.19514, section 3.3): ``c_h = max softmax(z_h)``, ``w = softmax(c / T)``, fused logits
``sum_h w_h z_h``, over the heads: one per modality, and the fused head. Other certainties and poolings are choices
of ``FusionSpec``. Shape suffixes: B batch, C classes, H heads, M modalities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from dimml.errors import BundleError
from dimml.fusion.certainty import certainty_of, softmax
from dimml.fusion.cross_reliability import cross_certainties
from dimml.fusion.reliability import FusionParameters, head_certainties
from dimml.fusion.shapes import check_shapes
from dimml.fusion.spec import BoolArray, FloatArray, FusionSpec, Pooling

#: Pooling 'product' caps certainty at 1 minus this. Otherwise the last digit of a certainty near 1, which differs
#: between runtimes, would decide how strong the head's veto is.
LEAST_DOUBT: Final = 1e-3

#: The paper's own setting.
PAPER = FusionSpec(fused_head=True)


@dataclass(frozen=True)
class Fused:
    """Result of a fusion. A row without any head has zero weights and a uniform distribution."""

    probabilities_BC: FloatArray
    logits_BC: FloatArray
    #: In [0, 1], 0 for a head that is not present.
    certainty_BH: FloatArray
    #: Rows sum to 1; exactly 0 for a head that is not present.
    weights_BH: FloatArray


def heads_present(present_BM: BoolArray, fused_head: bool) -> BoolArray:
    """Return which heads vote, ``[B, H]``: each present modality's own; the fused head only if all are present.

    Raises InvalidTensorError unless ``present_BM`` is ``[B, M]``.
    """
    check_shapes(present_BM=present_BM)
    if not fused_head:
        return present_BM
    return np.concatenate([present_BM, present_BM.all(axis=1, keepdims=True)], axis=1)


def fuse(
    logits_BHC: FloatArray,
    present_BH: BoolArray,
    spec: FusionSpec = PAPER,
    parameters: FusionParameters | None = None,
    features: Sequence[FloatArray] | None = None,
) -> Fused:
    """Fuse the heads that are present.

    The contents of a masked slot of ``logits_BHC`` or ``features``, NaN included, have no influence: masked slots are
    replaced by selection, never multiplied by zero, since 0 times NaN is NaN.

    ``features`` (one ``[B, D]`` per head; the fused head's are those of all modalities side by side) and ``parameters``
    are needed for a learned certainty only. Raises BundleError if they are missing or the numbers of heads differ,
    and InvalidTensorError if the arrays' shapes do not fit each other.
    """
    check_shapes(logits_BHC=logits_BHC, present_BH=present_BH)
    heads = logits_BHC.shape[1]
    clean_BHC = np.where(present_BH[..., None], logits_BHC, np.float32(0))
    if spec.learned:
        learned = None if parameters is None else parameters.reliability
        if learned is None or features is None or len(learned) != heads or len(features) != heads:
            raise BundleError(
                f"certainty {spec.certainty!r} needs learned parameters and features of all {heads} heads"
            )
        for h, own in enumerate(features):
            check_shapes(logits_BHC=logits_BHC, **{f"features[{h}]_BD": own})
        clean = [np.where(present_BH[:, [h]], own, np.float32(0)) for h, own in enumerate(features)]
        if spec.certainty == "cross_reliability":
            certainty_BH = cross_certainties(clean, clean_BHC, present_BH, learned, heads - spec.fused_head)
        else:
            certainty_BH = head_certainties(clean, clean_BHC, learned)
    else:
        certainty_BH = certainty_of(_scaled(clean_BHC, spec), spec.static_certainty)
    return fuse_weighted(logits_BHC, present_BH, certainty_BH, spec)


def fuse_weighted(
    logits_BHC: FloatArray, present_BH: BoolArray, certainty_BH: FloatArray, spec: FusionSpec = PAPER
) -> Fused:
    """Fuse as ``fuse`` does, with every head's certainty given; ``spec.certainty`` is ignored."""
    check_shapes(logits_BHC=logits_BHC, present_BH=present_BH, certainty_BH=certainty_BH)
    clean_BHC = np.where(present_BH[..., None], logits_BHC, np.float32(0))
    certainty_BH = np.where(present_BH, certainty_BH, np.float32(0))
    weights_BH = _weights(certainty_BH, present_BH, spec.temperature)
    if spec.pooling == "logits":
        logits_BC = np.einsum("bh,bhc->bc", weights_BH, clean_BHC)
    else:
        exponents_BH = weights_BH * present_BH.sum(axis=1, keepdims=True) if spec.pooling == "product" else weights_BH
        logits_BC = _pooled(softmax(_scaled(clean_BHC, spec)), certainty_BH, exponents_BH, spec.pooling)
    any_B1 = present_BH.any(axis=1, keepdims=True)
    logits_BC = np.where(any_B1, logits_BC / np.float32(spec.answer_temperature), np.float32(0)).astype(np.float32)
    return Fused(
        probabilities_BC=softmax(logits_BC),
        logits_BC=logits_BC,
        certainty_BH=certainty_BH.astype(np.float32),
        weights_BH=weights_BH.astype(np.float32),
    )


def _scaled(logits_BHC: FloatArray, spec: FusionSpec) -> FloatArray:
    temperatures_H = _head_temperatures(spec, logits_BHC.shape[1])
    return np.asarray(logits_BHC / temperatures_H[:, None], np.float32)


def _head_temperatures(spec: FusionSpec, heads: int) -> FloatArray:
    if spec.head_temperatures is None:
        return np.ones(heads, np.float32)
    if len(spec.head_temperatures) != heads:
        raise BundleError(f"head_temperatures has {len(spec.head_temperatures)} entries for {heads} heads")
    return np.asarray(spec.head_temperatures, np.float32)


def _weights(certainty_BH: FloatArray, present_BH: BoolArray, temperature: float | None) -> FloatArray:
    """Compute ``softmax(c / T)`` over the heads that are present; equal weights without a temperature."""
    scores_BH = np.zeros_like(certainty_BH) if temperature is None else certainty_BH / np.float32(temperature)
    any_B1 = present_BH.any(axis=1, keepdims=True)
    # A row without any head gets finite scores here, so that its softmax is defined before it is set to zero.
    masked_BH = np.where(present_BH, scores_BH, np.where(any_B1, -np.inf, 0.0)).astype(np.float32)
    return np.where(any_B1, softmax(masked_BH), np.float32(0))


def _pooled(
    probabilities_BHC: FloatArray, certainty_BH: FloatArray, weights_BH: FloatArray, pooling: Pooling
) -> FloatArray:
    """Pool the heads into log-probabilities ``[B, C]``, not normalised."""
    tiny = np.finfo(np.float32).tiny
    if pooling == "probabilities":
        return np.asarray(np.log(np.maximum(np.einsum("bh,bhc->bc", weights_BH, probabilities_BHC), tiny)))
    if pooling == "product":
        doubt_BH1 = np.maximum(1 - certainty_BH[..., None], np.float32(LEAST_DOUBT))
        probabilities_BHC = (1 - doubt_BH1) * probabilities_BHC + doubt_BH1 / probabilities_BHC.shape[2]
    return np.asarray(np.einsum("bh,bhc->bc", weights_BH, np.log(np.maximum(probabilities_BHC, tiny))))
