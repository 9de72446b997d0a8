"""Bootstrap replicates of metrics that cannot be computed from one bit per clip, made when a cell is scored.

Each replicate is the metric of as many clips as the cell has, drawn with replacement. The draw depends on the clips
alone: cells that score the same clips (seeds) share it, cells of other clips (folds) are independent, as in
``bootstrap``. Shape suffixes: S replicates, N clips of the cell, A answers (conditions and their draws).
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dimml.metrics.classification import f1_scores
from dimml_training.compare.bootstrap import SEED, FloatArray

#: Enough for percentiles of a 95 % interval, at 2 bytes each in a cell.
REPLICATES = 500
#: Number of bins of equal share into which scores are ranked; scores within a bin count as tied.
AUROC_BINS = 512


def clip_weights(lines_N: npt.NDArray[Any], replicates: int = REPLICATES) -> FloatArray:
    """Draw the number of times that each clip counts, ``[S, N]``; ``lines_N`` identifies the clips."""
    rng = np.random.default_rng([SEED, zlib.crc32(np.ascontiguousarray(lines_N, "<u4").tobytes())])
    clips = len(lines_N)
    return rng.multinomial(clips, np.full(clips, 1.0 / clips), size=replicates).astype(np.float64)


def means(values_N: npt.NDArray[Any], weights_SN: FloatArray) -> FloatArray:
    """Mean of the values over the clips drawn, ``[S]``; NaN in a replicate without any clip that counts.

    ``values_N`` may be NaN for clips that do not count.
    """
    counts_N = np.isfinite(values_N)
    drawn_S = weights_SN @ counts_N.astype(np.float64)
    with np.errstate(invalid="ignore"):
        return np.asarray(weights_SN @ np.where(counts_N, values_N, 0.0) / drawn_S, np.float64)


def macro_f1s(
    labels_N: npt.NDArray[np.int64], guesses_N: npt.NDArray[np.int64], classes: int, weights_SN: FloatArray
) -> FloatArray:
    """Macro-F1 of the clips drawn, ``[S]``."""
    known = np.arange(classes)
    there_NC, said_NC = labels_N[:, None] == known, guesses_N[:, None] == known
    hits_SC, there_SC, said_SC = (weights_SN @ of_NC for of_NC in (there_NC & said_NC, there_NC, said_NC))
    return np.asarray(np.nanmean(f1_scores(hits_SC, there_SC, said_SC), axis=1), np.float64)


def aurocs(
    scores_AN: npt.NDArray[Any],
    positive_AN: npt.NDArray[np.bool_],
    there_AN: npt.NDArray[np.bool_],
    weights_SN: FloatArray,
) -> FloatArray:
    """AUROC of the clips drawn with all their answers, ``[S]``, over the answers of the mask ``there``.

    NaN in a replicate in which all or none are positive.
    """
    edges = np.quantile(scores_AN[there_AN], np.linspace(0.0, 1.0, AUROC_BINS + 1)[1:-1])
    bin_AN = np.searchsorted(np.unique(edges), scores_AN, side="right")
    clip_AN = np.broadcast_to(np.arange(scores_AN.shape[1]), scores_AN.shape)

    def drawn(chosen_AN: npt.NDArray[np.bool_]) -> FloatArray:
        count_NK = np.zeros((scores_AN.shape[1], AUROC_BINS))
        np.add.at(count_NK, (clip_AN[chosen_AN], bin_AN[chosen_AN]), 1.0)
        return np.asarray(weights_SN @ count_NK, np.float64)

    positive_SK, negative_SK = drawn(there_AN & positive_AN), drawn(there_AN & ~positive_AN)
    below_SK = np.cumsum(negative_SK, axis=1) - 0.5 * negative_SK
    pairs_S = positive_SK.sum(axis=1) * negative_SK.sum(axis=1)
    with np.errstate(invalid="ignore"):
        return np.asarray((positive_SK * below_SK).sum(axis=1) / pairs_S, np.float64)


def mean_of(samples: Sequence[FloatArray]) -> FloatArray | None:
    """Mean of several metrics, replicate by replicate, ``[S]``; None for an empty sequence."""
    return np.asarray(np.mean(samples, axis=0), np.float64) if samples else None
