"""What confidence is worth when a modality is away or contradicts the others."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dimml.metrics.classification import auroc, disagreement


def confidence_rise(clean_N: npt.NDArray[Any], without_N: npt.NDArray[Any], answered_N: npt.NDArray[np.bool_]) -> float:
    """Share of the clips answered both with and without a modality whose confidence is higher without it."""
    return float((without_N > clean_N)[answered_N].mean()) if answered_N.any() else 0.0


def conflict(
    clean_N: npt.NDArray[Any],
    conflict_N: npt.NDArray[Any],
    own_NMC: npt.NDArray[Any],
    own_conflict_NMC: npt.NDArray[Any],
) -> dict[str, float]:
    """Effect of conflicting modalities, where no label is right: how far the answer's confidence falls.

    If several modalities' heads vote (``own``), also the AUROC with which their disagreement separates conflict from
    clean. Clean and conflict may differ in N.
    """
    found = {"confidence": float(conflict_N.mean()), "confidence_clean": float(clean_N.mean())}
    if own_NMC.shape[1] > 1:
        scores = [disagreement(own_NMC), disagreement(own_conflict_NMC)]
        found["disagreement_auroc"] = auroc(np.concatenate(scores), np.repeat([False, True], [len(s) for s in scores]))
    return found
