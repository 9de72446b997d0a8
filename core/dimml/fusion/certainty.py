"""How sure a head is, computed from its logits."""

from __future__ import annotations

import numpy as np

from dimml.errors import InvalidTensorError
from dimml.fusion.spec import FloatArray, StaticCertainty


def softmax(logits: FloatArray) -> FloatArray:
    """Compute the softmax over the last axis, shifted by the maximum so that it never overflows."""
    exp = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(exp / exp.sum(axis=-1, keepdims=True), dtype=np.float32)


def certainty_of(logits: FloatArray, measure: StaticCertainty) -> FloatArray:
    """Compute the certainty in [0, 1] of logits ``[..., C]``, 1 when sure, as ``[...]``.

    ``max_prob`` is the paper's; ``neg_entropy`` is ``1 - H(p) / ln C``; ``margin`` the lead of the first class
    over the second. Raises InvalidTensorError without classes, or where the measure needs two and there is one.
    """
    shape, least = np.shape(logits), 1 if measure == "max_prob" else 2
    if not shape or shape[-1] < least:
        raise InvalidTensorError(
            f"logits must be [..., C] with {least} or more classes for certainty {measure!r}, got shape {list(shape)}",
            field="logits",
        )
    probabilities = softmax(logits)
    if measure == "max_prob":
        return np.asarray(probabilities.max(axis=-1))
    if measure == "margin":
        second, first = np.moveaxis(np.sort(probabilities, axis=-1)[..., -2:], -1, 0)
        return np.asarray(first - second)
    log_p = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
    entropy = -(probabilities * log_p).sum(axis=-1)
    return np.asarray(1.0 - entropy / np.log(logits.shape[-1]), dtype=np.float32)
