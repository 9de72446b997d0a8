"""Learned reliability that learned nothing, for tests."""

from __future__ import annotations

import numpy as np

from dimml.fusion import STATISTICS, HeadReliability


def random_reliability(rng: np.random.Generator, width: int, classes: int) -> HeadReliability:
    """A reliability that learned nothing, but tells clips apart."""
    statistics, units = len(STATISTICS), 16
    sizes: dict[str, tuple[int, ...]] = {
        "whitening_DD": (width, width),
        "whitened_means_CD": (classes, width),
        "offset_K": (statistics,),
        "hidden_weight_KU": (statistics, units),
        "hidden_bias_U": (units,),
        "out_weight_U": (units,),
        "out_bias": (1,),
    }
    drawn = {name: rng.normal(size=size, scale=0.5).astype(np.float32) for name, size in sizes.items()}
    return HeadReliability(**drawn, scale_K=rng.uniform(0.5, 2.0, statistics).astype(np.float32))
