"""Fusion of the heads' votes into one answer: a readable reference for what the fusion graph computes.

``spec``: the options; ``certainty``: how sure a head is, computed from its logits; ``reliability``: a learned estimate
of the same; ``weighting``: the masked fusion itself.
"""

from dimml.fusion.certainty import certainty_of, softmax
from dimml.fusion.reliability import (
    LARGEST,
    STATISTICS,
    TIE,
    FusionParameters,
    HeadReliability,
    reliability_of,
    reliability_statistics,
)
from dimml.fusion.spec import BoolArray, Certainty, FloatArray, FusionSpec, Pooling, StaticCertainty
from dimml.fusion.weighting import LEAST_DOUBT, PAPER, Fused, fuse, fuse_weighted, heads_present

__all__ = [
    "LARGEST",
    "LEAST_DOUBT",
    "PAPER",
    "STATISTICS",
    "TIE",
    "BoolArray",
    "Certainty",
    "FloatArray",
    "Fused",
    "FusionParameters",
    "FusionSpec",
    "HeadReliability",
    "Pooling",
    "StaticCertainty",
    "certainty_of",
    "fuse",
    "fuse_weighted",
    "heads_present",
    "reliability_of",
    "reliability_statistics",
    "softmax",
]
