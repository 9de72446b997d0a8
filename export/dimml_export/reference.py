"""Reference distributions of a run's clean validation clips, for the manifest: a server computes drift from them."""

from __future__ import annotations

from pathlib import Path

from dimml.bundle import FUSED_HEAD
from dimml.fusion import FloatArray, fuse
from dimml.monitoring.reference import Reference, reference_of
from dimml_training.run.directory import TrainedRun
from dimml_training.run.votes import Votes, read_votes

SPLIT = "validation"
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
    # A fused head that was trained but does not vote is in the votes but not in the bundle.
    voting = [h for h, head in enumerate(votes.heads) if head != FUSED_HEAD or run.fusion.fused_head]
    heads = [votes.heads[h] for h in voting]
    certainty_NH = _certainty(votes, run, voting)
    found = reference_of(heads, certainty_NH, votes.present_NH[:, voting], votes.answer_NC)
    if found is None:
        return None, ["no drift will be reported in service: no validation clip has a usable modality"]
    if certainty_NH is None:
        return found, [
            "no drift of certainty will be reported in service: it is learned, and the run predates its recording for "
            f"validation clips; {_WAY_OUT}"
        ]
    return found, []


def _certainty(votes: Votes, run: TrainedRun, voting: list[int]) -> FloatArray | None:
    if votes.certainty_NH is not None:
        return votes.certainty_NH[:, voting]
    if run.fusion.certainty == "reliability":
        return None
    return fuse(votes.logits_NHC[:, voting], votes.present_NH[:, voting], run.fusion).certainty_BH
