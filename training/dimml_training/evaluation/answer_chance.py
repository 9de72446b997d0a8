"""Chance of each answer of being right, as a server estimates it for its metrics (``monitoring.accuracy_estimate``)."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import numpy.typing as npt

from dimml.fusion import Fused, softmax
from dimml.monitoring.accuracy_estimate import AccuracyEstimate
from dimml_training.evaluation.heads import HeadLogits


def answer_chances(
    votes: HeadLogits, fused: Fused, modalities: int, estimates: AccuracyEstimate | None
) -> npt.NDArray[np.float64]:
    """Estimate the chance of each of N answers of being right, ``[N]``.

    ``modalities`` is the number of heads that are a modality's own; they come first. Where there is no estimate for the
    modalities that are present, it is the answer's probability.
    """
    chance_N: npt.NDArray[np.float64] = fused.probabilities_BC.max(axis=1).astype(np.float64)
    if estimates is None:
        return chance_N
    own = range(modalities)
    p_NMC = softmax(np.where(votes.present_NH[:, :modalities, None], votes.logits_NHC[:, :modalities], np.float32(0)))
    answer_N, vote_NM = fused.probabilities_BC.argmax(axis=1), p_NMC.argmax(axis=2)
    same = {
        (one, other): (p_NMC[:, one] * p_NMC[:, other]).sum(axis=1, dtype=np.float64)
        for one, other in combinations(own, 2)
    }
    for row, probability in enumerate(chance_N.tolist()):
        here = [head for head in own if votes.present_NH[row, head]]
        estimate = estimates.by_modalities.get(tuple(votes.heads[head] for head in here))
        if estimate is None:
            continue
        pairs = [same[pair][row] for pair in combinations(here, 2)]
        chance_N[row] = estimate.chance(
            probability,
            {name: float(fused.certainty_BH[row, head]) for head, name in enumerate(votes.heads)},
            {votes.heads[head]: bool(vote_NM[row, head] == answer_N[row]) for head in here},
            min(1.0, max(0.0, 1.0 - float(np.mean(pairs)))) if pairs else None,
        )
    return chance_N
