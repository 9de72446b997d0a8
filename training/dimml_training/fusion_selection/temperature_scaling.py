"""Temperature scaling: calibration by one number that divides the logits (Guo et al. 2017, arXiv 1706.04599).

The temperature is the one with the least negative log-likelihood.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from dimml.fusion import FloatArray
from dimml.metrics.classification import nll_of_logits
from dimml_training.fusion_selection.condition_rows import IntArray

#: Range in which a temperature is searched. For a head that is always right the best one would be 0.
LOWEST, HIGHEST = 0.2, 20.0
_STEPS: Final = 40
_GOLDEN: Final = (5**0.5 - 1) / 2


def calibration_temperature(
    logits_NC: FloatArray, labels_N: IntArray, weights_N: npt.NDArray[np.float64] | None = None
) -> float:
    """Find the temperature with the least negative log-likelihood, between ``LOWEST`` and ``HIGHEST``.

    Golden section search on its logarithm: the loss is convex in 1 / T, hence it has one minimum.
    """
    weights_N = np.ones(len(labels_N)) if weights_N is None else weights_N
    if not weights_N.sum() > 0:
        return 1.0

    def loss(log_t: float) -> float:
        return nll_of_logits(logits_NC, labels_N, weights_N, temperature=float(np.exp(log_t)))

    low, high = float(np.log(LOWEST)), float(np.log(HIGHEST))
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = loss(left), loss(right)
    for _ in range(_STEPS):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = loss(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = loss(right)
        if high - low < 1e-4:
            break
    return float(np.exp((low + high) / 2))
