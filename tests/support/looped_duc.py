"""DUC as a plain loop, written from docs/adr/0001."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt


def looped_duc(features: npt.NDArray[np.float64], effective: npt.NDArray[np.bool_], temperature: float) -> float:
    """docs/adr/0001: InfoNCE for every ordered pair on the dimensions P(t→s), summed over pairs."""
    modalities, batch, dimensions = features.shape
    total = 0.0
    for t in range(modalities):
        for s in range(modalities):
            private = [d for d in range(dimensions) if effective[t, d] and not effective[s, d]]
            if t == s or not private:
                continue
            pair = 0.0
            for i in range(batch):
                similarity = [sum(features[s, i, d] * features[t, j, d] for d in private) for j in range(batch)]
                scores = [value / temperature for value in similarity]
                pair += -math.log(math.exp(scores[i]) / sum(math.exp(score) for score in scores))
            total += pair / batch
    return total
