"""From the heads' votes to one answer: the readable statement of what the fusion graph computes.

``spec``: what can be chosen; ``certainty``: how sure a head is, read off its logits; ``reliability``: the same,
learned; ``weighting``: the masked fusion itself.
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
