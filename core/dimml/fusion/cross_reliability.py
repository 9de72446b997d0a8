"""Cross-head reliability: a head's reliability that looks at what the other heads say, too.

A head that is wrong with large logits looks like one that is right, as far as its own last layer goes; that another
head says something else, and how that one can be believed, does not hide. Shape suffixes: B batch, C classes, D
features, H heads, K statistics, N stored training clips, U hidden units.

**The others** of a head are the modalities' own heads that are present, without itself: for the fused head all
modalities, for a modality all the others, never the fused head. Statistics of a pair are computed for each other and
averaged, so that the order of modalities does not matter, and that with two modalities they are those of the other.
Averaging statistics, not votes, keeps two sure others that disagree from a tie that the last digit decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from dimml.errors import BundleError
from dimml.fusion.certainty import softmax
from dimml.fusion.reliability import (
    LARGEST,
    STATISTICS,
    HeadReliability,
    network_output,
    reliability_statistics,
)
from dimml.fusion.shapes import check_shapes
from dimml.fusion.spec import BoolArray, FloatArray

#: Stored training features whose cosine is averaged: the nearest ones.
NEIGHBOURS: Final = 10
#: Statistics of a head's own outputs.
OWN_STATISTICS: Final = (*STATISTICS, "neighbour_cosine")
#: Statistics of the others that a head sees.
OTHERS: Final = ("max_prob", "energy", "distance", "distance_gap", "neighbour_cosine")
#: The network's inputs for a head, in this order; all from ``of_vote`` on are means over the others.
CROSS_STATISTICS: Final = (
    *OWN_STATISTICS,
    "of_vote",
    "of_their_vote",
    "divergence",
    "agreement",
    *(f"other_{name}" for name in OTHERS),
    "alone",
)
#: Where the statistics of others begin, and where "alone" stands.
FIRST_OF_OTHERS: Final = len(OWN_STATISTICS)
ALONE: Final = len(CROSS_STATISTICS) - 1
_TINY: Final = np.finfo(np.float32).tiny
#: Below this norm, features have no direction: their cosines are 0.
LEAST_NORM: Final = 1e-12


def others_of(heads: int, modalities: int) -> BoolArray:
    """Return which heads are among a head's others, ``[H, H]``: row h, the modalities without h."""
    return np.asarray(np.arange(heads)[None] < modalities) & ~np.eye(heads, dtype=np.bool_)


def neighbour_cosine(features_BD: FloatArray, neighbours_ND: FloatArray) -> FloatArray:
    """Compute the mean cosine ``[B]`` to the ``NEIGHBOURS`` nearest of the stored unit vectors, or to all if fewer.

    Deep nearest neighbours (Sun et al. 2022, arXiv 2204.06507), with a mean in place of the k-th. Raises
    InvalidTensorError if the shapes do not fit.
    """
    check_shapes(features_BD=features_BD, neighbours_ND=neighbours_ND)
    clipped_BD = np.clip(features_BD, -LARGEST, LARGEST)
    norm_B1 = np.sqrt(np.square(clipped_BD).sum(axis=1, keepdims=True))
    cosines_BN = (clipped_BD / np.maximum(norm_B1, LEAST_NORM)) @ neighbours_ND.T
    nearest = min(NEIGHBOURS, cosines_BN.shape[1])
    return np.asarray(np.partition(cosines_BN, -nearest, axis=1)[:, -nearest:].mean(axis=1), np.float32)


def cross_statistics(
    features: Sequence[FloatArray],
    logits_BHC: FloatArray,
    present_BH: BoolArray,
    heads: Sequence[HeadReliability],
    modalities: int,
) -> FloatArray:
    """Compute the statistics of every head, ``[B, H, K]``, in the order of ``CROSS_STATISTICS``.

    The first ``modalities`` heads are the modalities' own. Contents of masked slots must be finite. Of a pair of heads
    with probabilities p and q, ``of_vote`` is q of the head's vote, ``of_their_vote`` p of the other's,
    ``divergence`` the Jensen-Shannon divergence in bits (Lin 1991), ``agreement`` 1 where the votes are the same.
    ``alone`` is 1 where no other is present, and the means are 0 there. Raises InvalidTensorError if the shapes do
    not fit, BundleError if a head has no stored neighbours.
    """
    check_shapes(logits_BHC=logits_BHC, present_BH=present_BH)
    own_BHK = np.stack(
        [
            np.column_stack(
                [
                    reliability_statistics(of_head, logits_BHC[:, h], head.whitening_DD, head.whitened_means_CD),
                    neighbour_cosine(of_head, _neighbours(head, h)),
                ]
            )
            for h, (of_head, head) in enumerate(zip(features, heads, strict=True))
        ],
        axis=1,
    )
    clipped_BHC = np.clip(logits_BHC, -LARGEST, LARGEST)
    p_BHC, vote_BH = softmax(clipped_BHC), clipped_BHC.argmax(axis=2)
    entropy_BH = _entropy(p_BHC)
    seen = [OWN_STATISTICS.index(name) for name in OTHERS]
    found_BHK = np.zeros((*present_BH.shape, len(CROSS_STATISTICS)), np.float32)
    found_BHK[..., :FIRST_OF_OTHERS] = own_BHK
    among_HH = others_of(len(heads), modalities)
    for h in range(len(heads)):
        there_BH = present_BH & among_HH[h]
        count_B1 = there_BH.sum(axis=1, keepdims=True)
        share_BH = (there_BH / np.maximum(count_B1, 1)).astype(np.float32)
        for j in np.flatnonzero(among_HH[h]):
            middle_B = _entropy((p_BHC[:, h] + p_BHC[:, j]) * np.float32(0.5))
            halves_B = (entropy_BH[:, h] + entropy_BH[:, j]) * np.float32(0.5)
            pair_BK = np.column_stack(
                [
                    np.take_along_axis(p_BHC[:, j], vote_BH[:, [h]], axis=1),
                    np.take_along_axis(p_BHC[:, h], vote_BH[:, [j]], axis=1),
                    np.clip((middle_B - halves_B) / np.float32(np.log(2)), 0, 1),
                    vote_BH[:, h] == vote_BH[:, j],
                    own_BHK[:, j, seen],
                ]
            )
            found_BHK[:, h, FIRST_OF_OTHERS:ALONE] += share_BH[:, [j]] * pair_BK
        found_BHK[:, h, ALONE] = (count_B1 == 0)[:, 0]
    return found_BHK


def standardised(statistics_BK: FloatArray, offset_K: FloatArray, scale_K: FloatArray) -> FloatArray:
    """Standardise the statistics of one head, ``[..., K]``; those of others that are not there become 0, the mean."""
    standard_BK = (statistics_BK - offset_K) / scale_K
    of_others_K = (np.arange(len(offset_K)) >= FIRST_OF_OTHERS) & (np.arange(len(offset_K)) < ALONE)
    hidden_BK = of_others_K & (statistics_BK[..., [ALONE]] > 0)
    return np.where(hidden_BK, np.float32(0), standard_BK).astype(np.float32)


def cross_certainties(
    features: Sequence[FloatArray],
    logits_BHC: FloatArray,
    present_BH: BoolArray,
    heads: Sequence[HeadReliability],
    modalities: int,
) -> FloatArray:
    """Estimate every head's probability of being right, ``[B, H]``; arguments as of ``cross_statistics``."""
    statistics_BHK = cross_statistics(features, logits_BHC, present_BH, heads, modalities)
    found = []
    for h, head in enumerate(heads):
        statistics_BK = statistics_BHK[:, h]
        check_shapes(statistics_BK=statistics_BK, offset_K=head.offset_K, scale_K=head.scale_K)
        found.append(network_output(standardised(statistics_BK, head.offset_K, head.scale_K), head))
    return np.stack(found, axis=1)


def _neighbours(head: HeadReliability, place: int) -> FloatArray:
    if head.neighbours_ND is None:
        raise BundleError(f"certainty 'cross_reliability' needs training features of every head; head {place} has none")
    return head.neighbours_ND


def _entropy(p_BHC: FloatArray) -> FloatArray:
    return np.asarray(-(p_BHC * np.log(np.maximum(p_BHC, _TINY))).sum(axis=-1), np.float32)
