"""Learned reliability that learned nothing, for tests."""

from __future__ import annotations

import numpy as np

from dimml.fusion import CROSS_STATISTICS, STATISTICS, HeadReliability

#: Stored training features: more than are nearest, so that a choice of them shows.
NEIGHBOURS = 24


def random_reliability(rng: np.random.Generator, width: int, classes: int, *, cross: bool = False) -> HeadReliability:
    """A reliability that learned nothing, but tells clips apart; ``cross``: with the other heads in view."""
    statistics, units = len(CROSS_STATISTICS if cross else STATISTICS), 16
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
    scale_K = rng.uniform(0.5, 2.0, statistics).astype(np.float32)
    neighbours_ND = None
    if cross:
        rows_ND = rng.normal(size=(NEIGHBOURS, width))
        neighbours_ND = (rows_ND / np.linalg.norm(rows_ND, axis=1, keepdims=True)).astype(np.float32)
    return HeadReliability(**drawn, scale_K=scale_K, neighbours_ND=neighbours_ND)
