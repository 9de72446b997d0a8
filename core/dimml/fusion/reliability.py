"""Reliability: a learned estimate of the probability that a head is right on this very clip (docs/adr/0004).

A small network over statistics of a head's own outputs: a clip unlike the training data often gives large logits, but
the position of its features reveals it. Shape suffixes: B batch, C classes, D features, K statistics, U hidden units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dimml.errors import BundleError
from dimml.fusion.certainty import certainty_of, softmax
from dimml.fusion.shapes import check_shapes
from dimml.fusion.spec import FloatArray

#: Features and logits are clipped to plus and minus this before any statistic is computed, so that no square overflows.
LARGEST: Final = 1e6

#: Two classes whose statistic "distance" differs by less count as partly equally near: a step from 1 to 0 would let the
#: last digit of a feature, which differs between runtimes, change the answer.
TIE: Final = 0.02

#: The network's inputs for a head, in this order.
STATISTICS: Final = (
    "max_prob",
    "margin",
    "neg_entropy",
    "energy",
    "logit_norm",
    "feature_norm",
    "distance",
    "distance_gap",
    "nearest_is_vote",
)


@dataclass(frozen=True)
class HeadReliability:
    """One head's network and its feature whitening; all FP32.

    ``whitening_DD`` makes features comparable (a Mahalanobis distance is a plain one after it), and
    ``whitened_means_CD`` are the training clips' class means after it. ``offset_K`` and ``scale_K`` standardise the
    statistics.
    """

    whitening_DD: FloatArray
    whitened_means_CD: FloatArray
    offset_K: FloatArray
    scale_K: FloatArray
    hidden_weight_KU: FloatArray
    hidden_bias_U: FloatArray
    out_weight_U: FloatArray
    #: Shape ``[1]``.
    out_bias: FloatArray
    #: Features of some training clips, each of length 1, ``[N, D]``; None for a reliability of the head alone.
    neighbours_ND: FloatArray | None = None


@dataclass(frozen=True)
class FusionParameters:
    """Learned parameters of the fusion, beside its spec: one reliability per head, in head order, or none."""

    reliability: tuple[HeadReliability, ...] | None = None

    def arrays(self) -> dict[str, FloatArray]:
        """Return all arrays by name, ``reliability.<head index>.<field>``; empty if nothing was learned."""
        return {
            f"reliability.{index}.{field.name}": value
            for index, head in enumerate(self.reliability or ())
            for field in fields(HeadReliability)
            if (value := getattr(head, field.name)) is not None
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> FusionParameters:
        """Build from named arrays; inverse of ``arrays``. Raises BundleError naming what is missing."""
        heads = sorted({int(name.split(".")[1]) for name in arrays if name.startswith("reliability.")})
        if not heads:
            return cls()
        try:
            return cls(
                tuple(
                    HeadReliability(
                        **{
                            field.name: np.asarray(arrays[f"reliability.{index}.{field.name}"], np.float32)
                            for field in fields(HeadReliability)
                            if field.default is MISSING or f"reliability.{index}.{field.name}" in arrays
                        }
                    )
                    for index in range(len(heads))
                )
            )
        except KeyError as error:
            raise BundleError(f"the fusion's parameters lack {error.args[0]!r}") from error


def reliability_statistics(
    features_BD: FloatArray, logits_BC: FloatArray, whitening_DD: FloatArray, whitened_means_CD: FloatArray
) -> FloatArray:
    """Compute the statistics of a head, ``[B, K]``, in the order of ``STATISTICS``.

    They are the three static certainties; ``log(sum exp z)``; the norms of logits and features, the latter as
    ``log(1 + x)``; ``log(1 + d)`` of the Mahalanobis distance ``d`` to the nearest class mean; how much larger that of
    the voted class is; and 1 where the nearest class is the vote, falling to 0 at a difference of ``TIE``.
    Raises InvalidTensorError if the shapes do not fit.
    """
    check_shapes(
        features_BD=features_BD, logits_BC=logits_BC, whitening_DD=whitening_DD, whitened_means_CD=whitened_means_CD
    )
    features_BD = np.clip(features_BD, -LARGEST, LARGEST)
    logits_BC = np.clip(logits_BC, -LARGEST, LARGEST)
    top_B1 = logits_BC.max(axis=1, keepdims=True)
    energy_B = top_B1[:, 0] + np.log(np.exp(logits_BC - top_B1).sum(axis=1))
    whitened_BD = features_BD @ whitening_DD
    # Class by class: the differences of many clips to all classes at once would not fit in memory.
    squares_BC = np.stack([np.square(whitened_BD - mean_D).sum(axis=1) for mean_D in whitened_means_CD], axis=1)
    distance_BC = np.log1p(np.sqrt(squares_BC))
    vote_B1 = logits_BC.argmax(axis=1)[:, None]
    nearest_B = distance_BC.min(axis=1)
    of_vote_B = np.take_along_axis(distance_BC, vote_B1, axis=1)[:, 0]
    columns = (
        certainty_of(logits_BC, "max_prob"),
        certainty_of(logits_BC, "margin"),
        certainty_of(logits_BC, "neg_entropy"),
        energy_B,
        np.sqrt(np.square(logits_BC).sum(axis=1)),
        np.log1p(np.sqrt(np.square(features_BD).sum(axis=1))),
        nearest_B,
        of_vote_B - nearest_B,
        np.clip(1 - (of_vote_B - nearest_B) / TIE, 0, 1),
    )
    return np.stack([np.asarray(column, np.float32) for column in columns], axis=1)


def reliability_of(features_BD: FloatArray, logits_BC: FloatArray, head: HeadReliability) -> FloatArray:
    """Estimate the probability ``[B]`` that the head is right.

    It is ``sigmoid(v · tanh(W s + b) + a)`` of the standardised statistics ``s``. Raises InvalidTensorError if the
    shapes do not fit, of the clips or of the head's arrays.
    """
    statistics_BK = reliability_statistics(features_BD, logits_BC, head.whitening_DD, head.whitened_means_CD)
    check_shapes(statistics_BK=statistics_BK, offset_K=head.offset_K, scale_K=head.scale_K)
    return network_output((statistics_BK - head.offset_K) / head.scale_K, head)


def network_output(standard_BK: FloatArray, head: HeadReliability) -> FloatArray:
    """Compute the head's network, ``[B]``, on standardised statistics. Raises InvalidTensorError if it does not fit."""
    check_shapes(
        standard_BK=standard_BK,
        hidden_weight_KU=head.hidden_weight_KU,
        hidden_bias_U=head.hidden_bias_U,
        out_weight_U=head.out_weight_U,
    )
    hidden_BU = np.tanh(standard_BK @ head.hidden_weight_KU + head.hidden_bias_U)
    return np.asarray(_sigmoid(hidden_BU @ head.out_weight_U + head.out_bias[0]), np.float32)


def head_certainties(
    features: Sequence[FloatArray], logits_BHC: FloatArray, heads: Sequence[HeadReliability]
) -> FloatArray:
    """Estimate the reliability of every head, ``[B, H]``."""
    return np.stack(
        [reliability_of(own, logits_BHC[:, index], heads[index]) for index, own in enumerate(features)], axis=1
    )


def _sigmoid(x: FloatArray) -> FloatArray:
    return np.asarray(softmax(np.stack([np.zeros_like(x), x], axis=-1))[..., 1])
