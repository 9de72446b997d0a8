"""From the heads' votes to one answer: the readable statement of what the fusion graph computes.

``spec``: what can be chosen; ``certainty``: how sure a head is, read off its logits; ``reliability``: the same,
learned; ``weighting``: the masked fusion itself.
"""

from dimml.fusion.certainty import certainty_of, softmax
from dimml.fusion.reliability import (
    LARGEST,
    STATISTICS,
    FusionParameters,
    HeadReliability,
    reliability_of,
    reliability_statistics,
)
from dimml.fusion.spec import BoolArray, Certainty, FloatArray, FusionSpec, Pooling, StaticCertainty
from dimml.fusion.weighting import Fused, fuse, heads_present

__all__ = [
    "LARGEST",
    "STATISTICS",
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
    "heads_present",
    "reliability_of",
    "reliability_statistics",
    "softmax",
]
