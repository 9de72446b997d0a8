"""Fusion of the heads' votes into one answer: a readable reference for what the fusion graph computes.

``spec``: the options; ``certainty``: how sure a head is, computed from its logits; ``reliability``: a learned estimate
of the same; ``cross_reliability``: one with the other heads in view; ``weighting``: the masked fusion itself.
"""

from dimml.fusion.certainty import certainty_of, softmax
from dimml.fusion.cross_reliability import (
    ALONE,
    CROSS_STATISTICS,
    FIRST_OF_OTHERS,
    LEAST_NORM,
    NEIGHBOURS,
    OTHERS,
    OWN_STATISTICS,
    cross_statistics,
    neighbour_cosine,
    others_of,
    standardised,
)
from dimml.fusion.reliability import (
    LARGEST,
    STATISTICS,
    TIE,
    FusionParameters,
    HeadReliability,
    reliability_of,
    reliability_statistics,
)
from dimml.fusion.spec import LEARNED, BoolArray, Certainty, FloatArray, FusionSpec, Pooling, StaticCertainty
from dimml.fusion.weighting import LEAST_DOUBT, PAPER, Fused, fuse, fuse_weighted, heads_present

__all__ = [
    "ALONE",
    "CROSS_STATISTICS",
    "FIRST_OF_OTHERS",
    "LARGEST",
    "LEARNED",
    "LEAST_DOUBT",
    "LEAST_NORM",
    "NEIGHBOURS",
    "OTHERS",
    "OWN_STATISTICS",
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
    "cross_statistics",
    "fuse",
    "fuse_weighted",
    "heads_present",
    "neighbour_cosine",
    "others_of",
    "reliability_of",
    "reliability_statistics",
    "softmax",
    "standardised",
]
