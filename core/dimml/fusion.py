"""Certainty-aware logit weighting (CLW), masked: the readable statement of what the fusion graph computes.

DI-MML (arXiv 2407.19514, section 3.3): ``c_h = max softmax(z_h)``, ``w = softmax(c / T)``, fused logits
``sum_h w_h z_h``, over the heads: one per modality, and the fused head. Shape suffixes: B batch, C classes,
H heads, M modalities.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
Certainty = Literal["max_prob", "neg_entropy", "margin"]


@dataclass(frozen=True)
class Fused:
    """Result of a fusion. A row in which no head is present has zero weights and a uniform distribution."""

    probabilities_BC: FloatArray
    logits_BC: FloatArray
    #: In [0, 1], 0 for a head that is not present.
    certainty_BH: FloatArray
    #: Rows sum to 1; exactly 0 for a head that is not present.
    weights_BH: FloatArray


def softmax(logits: FloatArray) -> FloatArray:
    """Softmax over the last axis, shifted by the maximum so that it never overflows."""
    exp = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(exp / exp.sum(axis=-1, keepdims=True), dtype=np.float32)


def certainty_of(logits: FloatArray, measure: Certainty) -> FloatArray:
    """Certainty in [0, 1] of logits ``[..., C]``, 1 when sure, as ``[...]``.

    ``max_prob`` is the paper's; ``neg_entropy`` is ``1 - H(p) / ln C``; ``margin`` the lead of the first class
    over the second.
    """
    probabilities = softmax(logits)
    if measure == "max_prob":
        return np.asarray(probabilities.max(axis=-1))
    if measure == "margin":
        second, first = np.moveaxis(np.sort(probabilities, axis=-1)[..., -2:], -1, 0)
        return np.asarray(first - second)
    log_p = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
    entropy = -(probabilities * log_p).sum(axis=-1)
    return np.asarray(1.0 - entropy / np.log(logits.shape[-1]), dtype=np.float32)


def heads_present(present_BM: BoolArray, fused_head: bool) -> BoolArray:
    """Which heads vote, ``[B, H]``: each modality's own; the fused head only where every modality is there."""
    if not fused_head:
        return present_BM
    return np.concatenate([present_BM, present_BM.all(axis=1, keepdims=True)], axis=1)


def fuse(
    logits_BHC: FloatArray,
    present_BH: BoolArray,
    *,
    measure: Certainty = "max_prob",
    temperature: float = 1.0,
) -> Fused:
    """Masked CLW. What stands in a masked slot of ``logits_BHC``, NaN included, has no influence.

    Masked slots are selected away, never multiplied by zero, since 0 times NaN is NaN.
    """
    clean_BHC = np.where(present_BH[..., None], logits_BHC, np.float32(0))
    certainty_BH = certainty_of(clean_BHC, measure)
    any_B1 = present_BH.any(axis=1, keepdims=True)
    # A row with no head gets finite scores here, so that its softmax is defined before it is zeroed.
    scores_BH = np.where(present_BH, certainty_BH / np.float32(temperature), np.where(any_B1, -np.inf, 0.0))
    weights_BH = np.where(any_B1, softmax(scores_BH.astype(np.float32)), np.float32(0))
    logits_BC = np.einsum("bh,bhc->bc", weights_BH, clean_BHC).astype(np.float32)
    return Fused(
        probabilities_BC=softmax(logits_BC),
        logits_BC=logits_BC,
        certainty_BH=np.where(present_BH, certainty_BH, np.float32(0)).astype(np.float32),
        weights_BH=weights_BH.astype(np.float32),
    )
