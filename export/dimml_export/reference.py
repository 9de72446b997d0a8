"""Reference distributions of a run's clean validation clips, for the manifest: a server computes drift from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

import numpy as np

from dimml.bundle import FUSED_HEAD
from dimml.fusion import BoolArray, FloatArray, FusionSpec, fuse, fuse_weighted
from dimml.monitoring.accuracy import JOINT, patterns
from dimml.monitoring.reference import Reference, reference_of
from dimml_training.run.directory import TrainedRun
from dimml_training.run.votes import Votes, read_votes

SPLIT = "validation"
#: A mean probability over fewer clips would be off by more than 0.07 in one case of three, at worst.
LEAST_CLIPS: Final = 50
_WAY_OUT = "`dimml calibrate`, which needs the run's clips, notes it"


def reference_distributions(folder: Path, run: TrainedRun) -> tuple[Reference | None, list[str]]:
    """Build the reference of the run in ``folder``; return it with remarks on anything missing.

    Certainty is that of the answers stored with the run. For older runs without it, it is computed from the heads'
    logits, which is not possible for a learned certainty. Raises SetupError if the votes are damaged.
    """
    votes = read_votes(folder).get(SPLIT)
    if votes is None:
        return None, ["no drift will be reported in service: the run kept no votes of its validation clips"]
    if votes.fusion != run.fusion:
        return None, [
            f"no drift will be reported in service: the run's votes are of another fusion than its own; {_WAY_OUT} anew"
        ]
    certainty_NH = _certainty(votes, run)
    found = reference_of_votes(votes, certainty_NH, votes.answer_NC, run.fusion)
    if found is None:
        return None, ["no drift will be reported in service: no validation clip has a usable modality"]
    if certainty_NH is None:
        return found, [
            "no drift of certainty and no fall of the estimated accuracy will be reported in service: certainty is "
            f"learned, and the run predates its recording for validation clips; {_WAY_OUT}"
        ]
    return found, []


class HeadVotes(Protocol):
    """Votes of all heads, those that do not vote in a bundle too: ``run.votes.Votes`` or ``HeadLogits``."""

    @property
    def heads(self) -> tuple[str, ...]:
        """Names of the heads."""

    @property
    def logits_NHC(self) -> FloatArray:  # noqa: N802  # as the dataclasses that have it name it
        """Their logits."""

    @property
    def present_NH(self) -> BoolArray:  # noqa: N802
        """Which of them are present."""


def voting_heads(heads: Sequence[str], fusion: FusionSpec) -> list[int]:
    """Return the places of the heads in a bundle: a fused head that was trained but does not vote is left out."""
    return [h for h, head in enumerate(heads) if head != FUSED_HEAD or fusion.fused_head]


def reference_of_votes(
    votes: HeadVotes, certainty_NH: FloatArray | None, answer_NC: FloatArray, fusion: FusionSpec
) -> Reference | None:
    """Build the reference of the heads that vote, from all heads' votes and certainty ``[N, H]`` and the answers."""
    voting = voting_heads(votes.heads, fusion)
    heads, present_NH = [votes.heads[h] for h in voting], votes.present_NH[:, voting]
    if certainty_NH is None:
        return reference_of(heads, None, present_NH, answer_NC)
    certainty_NH = certainty_NH[:, voting]
    sure = answer_probabilities(heads, votes.logits_NHC[:, voting], present_NH, certainty_NH, fusion)
    return reference_of(heads, certainty_NH, present_NH, answer_NC, sure)


def answer_probabilities(
    heads: Sequence[str], logits_NHC: FloatArray, present_NH: BoolArray, certainty_NH: FloatArray, fusion: FusionSpec
) -> dict[str, float]:
    """Compute the mean probability of the answers under every pattern of modalities present, from whole clips' votes.

    A pattern's clips are those that have all of its modalities; the others are left out of them. A head's certainty
    does not depend on what else is there, so that the stored one serves. With 'cross_reliability' it does: a pattern's
    clips are then those that have just its modalities. Patterns of fewer than ``LEAST_CLIPS`` clips are left out.
    """
    modalities = [head for head in heads if head != FUSED_HEAD]
    found: dict[str, float] = {}
    for pattern in patterns(modalities):
        wanted = pattern.split(JOINT)
        kept_M = np.array([name in wanted for name in modalities])
        present_NM = present_NH[:, : len(modalities)]
        clips_N = present_NM[:, kept_M].all(axis=1)
        if fusion.certainty == "cross_reliability":
            clips_N &= ~present_NM[:, ~kept_M].any(axis=1)
        if clips_N.sum() < LEAST_CLIPS:
            continue
        kept_H = np.append(kept_M, kept_M.all()) if FUSED_HEAD in heads else kept_M
        here_NH = present_NH[clips_N] & kept_H
        fused = fuse_weighted(logits_NHC[clips_N], here_NH, certainty_NH[clips_N], fusion)
        found[pattern] = round(float(fused.probabilities_BC.max(axis=1).mean(dtype=np.float64)), 6)
    return found


def _certainty(votes: Votes, run: TrainedRun) -> FloatArray | None:
    """Certainty of all heads, of idle ones 0; None if it was learned and not stored."""
    if votes.certainty_NH is not None:
        return votes.certainty_NH
    if run.fusion.learned:
        return None
    voting = voting_heads(votes.heads, run.fusion)
    found_NH = np.zeros(votes.present_NH.shape, np.float32)
    found_NH[:, voting] = fuse(votes.logits_NHC[:, voting], votes.present_NH[:, voting], run.fusion).certainty_BH
    return found_NH
